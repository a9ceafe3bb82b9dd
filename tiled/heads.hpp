// Heads of a problem and the memory that threads work in, for the files that distribute work.
#pragma once

#include <new>

#include "tiled/attention.hpp"

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
