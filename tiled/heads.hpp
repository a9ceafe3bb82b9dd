// Heads of a problem and the memory that threads work in, for the files that distribute work.
#pragma once

#include <new>
#include <vector>

#include "core/array.hpp"
#include "tiled/attention.hpp"
#include "tiled/merge.hpp"

namespace attest::tiled {

template <class Real>
Matrix<Real> matrix(View<Real, 3> x, Index h) {  // no keys: no data, but a width
  return {x.data_handle() + h * x.stride(0), x.extent(2), x.stride(1), x.stride(2)};
}
template <class Real>
Column<Real> column(View<Real, 2> x, Index h) {
  return {x.data_handle() + h * x.stride(0), x.stride(1)};
}

template <class Real>
Head<Real> query_head(const AttentionSpec& spec, const Inputs<Real>& in, Index h) {
  const Index g = h / (in.q.extent(0) / in.k.extent(0));
  Head<Real> head{spec,
                  in.q.extent(1),
                  in.k.extent(1),
                  spec.causal == Causal::top_left ? in.past : in.k.extent(1) - in.q.extent(1),
                  matrix(in.q, h),
                  matrix(in.k, g),
                  matrix(in.v, g),
                  matrix(in.mask, h),
                  matrix(in.bias, h),
                  in.alibi_slopes ? &in.alibi_slopes(h) : nullptr,
                  in.sink ? &in.sink(h) : nullptr};
  return head;
}

/// What one of `parts` workers that share the keys of rows is told of a head: the first has the sink, and
/// rows without keys are left to the merger.
template <class Real>
Head<Real> head_of_part(Head<Real> head, Index part, Index parts) {
  if (parts > 1) head.spec.empty_row = EmptyRow::zero;
  if (part > 0) head.sink = nullptr;
  return head;
}

template <class Real>
ForwardHead<Real> forward_head(const Outputs<Real>& out, Index h) {
  return {matrix(out.o, h), column(out.lse, h), column(out.m, h), column(out.l, h)};
}

/// Rows [first, first + rows) of a head.
template <class Real>
Head<Real> rows_of(Head<Real> head, Index first, Index rows) {
  for (Matrix<const Real>* x : {&head.q, &head.mask, &head.bias}) {
    if (x->data) x->data = x->at(first, 0);
  }
  head.first_diagonal += first;
  head.queries = rows;
  return head;
}
template <class Real>
ForwardHead<Real> rows_of(ForwardHead<Real> out, Index first) {
  out.o.data = out.o.at(first, 0);
  for (Column<Real>* x : {&out.lse, &out.m, &out.l}) x->data = x->at(first);
  return out;
}

/// Results of the forward pass that own their memory.
template <class Real>
struct ForwardTensors {
  Array<Real, 3> o;
  Array<Real, 2> lse, m, l;

  explicit ForwardTensors(const Inputs<Real>& in)
      : o({in.q_heads(), in.queries(), in.v_width()}), lse({in.q_heads(), in.queries()}), m(lse), l(lse) {}
  Outputs<Real> outputs() { return {o.view(), lse.view(), m.view(), l.view()}; }
};

template <class Real>
std::vector<Part<Real>> parts_of(const std::vector<ForwardTensors<Real>>& tensors) {
  std::vector<Part<Real>> parts;
  for (const ForwardTensors<Real>& x : tensors) parts.push_back({x.o.view(), x.m.view(), x.l.view()});
  return parts;
}

/// Memory of one thread for its tiles.
template <class Real>
class Scratch {
 public:
  explicit Scratch(Index count)
      : data_(static_cast<Real*>(::operator new(static_cast<std::size_t>(count) * sizeof(Real), alignment))) {
  }
  ~Scratch() { ::operator delete(data_, alignment); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  Real* data() const { return data_; }

 private:
  static constexpr std::align_val_t alignment{64};
  Real* data_;
};

}  // namespace attest::tiled
