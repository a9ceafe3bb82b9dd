// Multi-head attention between projections, in plain loops.
#include "ref/multihead_attention.hpp"

#include <utility>
#include <vector>

namespace attest::ref {

void linear(View<const double, 2> x, View<const double, 2> w, View<const double, 1> b, View<double, 2> y) {
#pragma omp parallel for if (x.extent(0) > 1)
  for (Index r = 0; r < x.extent(0); ++r) {
    for (Index n = 0; n < w.extent(0); ++n) {
      double sum = b ? b(n) : 0;
      for (Index m = 0; m < w.extent(1); ++m) sum += x(r, m) * w(n, m);
      y(r, n) = sum;
    }
  }
}

Projected project(const MultiheadInputs& in) {
  const Index width = in.in_weight.extent(1);
  const auto third = [&](View<const double, 2> x, Index n) {
    Array<double, 2> y({x.extent(0), width});
    const View<const double, 1> bias = in.in_bias ? in.in_bias.narrowed(0, n * width, width) : in.in_bias;
    linear(x, in.in_weight.narrowed(0, n * width, width), bias, y.view());
    return y;
  };
  return {third(in.query, 0), third(in.key, 1), third(in.value, 2)};
}

void multihead_attention_row(const AttentionSpec& spec, const AttentionInputs& attention,
                             const MultiheadInputs& in, Index i, View<double, 1> y, View<double, 2> p) {
  const Index heads = attention.q_heads(), width = attention.v_width();
  Array<double, 2> o({1, heads * width});
  std::vector<double> s(attention.keys());
  for (Index h = 0; h < heads; ++h) {
    attention_forward_row(spec, attention, h, i, {s.data(), {attention.keys()}}, p.slice(h),
                          {&o(0, h * width), {width}});
  }
  linear(std::as_const(o).view(), in.out_weight, in.out_bias,
         {y.data_handle(), {1, y.extent(0)}, {0, y.stride(0)}});
}

void multihead_attention(const AttentionSpec& spec, Index heads, const MultiheadInputs& in, View<double, 2> y,
                         View<double, 3> p) {
  const Projected x = project(in);
  AttentionInputs attention;
  attention.q = heads_of(x.q.view(), heads);
  attention.k = heads_of(x.k.view(), heads);
  attention.v = heads_of(x.v.view(), heads);
  attention.mask = in.mask;
  for (Index i = 0; i < attention.queries(); ++i) {
    const View<double, 2> p_i{
        p.data_handle() + i * p.stride(1), {heads, attention.keys()}, {p.stride(0), p.stride(2)}};
    multihead_attention_row(spec, attention, in, i, y.slice(i), p_i);
  }
}

}  // namespace attest::ref
