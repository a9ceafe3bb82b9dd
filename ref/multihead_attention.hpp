// Multi-head attention between projections, as torch.nn.MultiheadAttention computes it, in plain loops.
#pragma once

#include "core/array.hpp"
#include "ref/attention.hpp"

namespace attest::ref {

/// y[R, N] = x[R, M] w[N, M]^T + b[N]; an empty b adds nothing.
void linear(View<const double, 2> x, View<const double, 2> w, View<const double, 1> b, View<double, 2> y);

/// x[S, M] as [H, S, M / H]: head h owns the columns [h M/H, (h + 1) M/H).
template <class T>
View<T, 3> heads_of(View<T, 2> x, Index heads) {
  const Index width = x.extent(1) / heads;
  return {x.data_handle(), {heads, x.extent(0), width}, {width * x.stride(1), x.stride(0), x.stride(1)}};
}

/// One sequence. Views that were not given are empty.
struct MultiheadInputs {
  View<const double, 2> query;       // [Sq, M]
  View<const double, 2> key, value;  // [Sk, M]
  View<const double, 2> in_weight;   // [3M, M]: the rows of Wq, then of Wk, then of Wv
  View<const double, 1> in_bias;     // [3M]; optional
  View<const double, 2> out_weight;  // [M, M]
  View<const double, 1> out_bias;    // [M]; optional
  View<const double, 3> mask;        // [H, Sq, Sk], not 0 = may attend; optional
};

/// q[Sq, M], k[Sk, M], v[Sk, M]: query, key and value times their third of in_weight, plus bias.
struct Projected {
  Array<double, 2> q, k, v;
};
Projected project(const MultiheadInputs& in);

/// y[M] = out_weight o_i + out_bias of row i, where o_i joins what the heads of `attention` give; p[H, Sk]:
/// their weights.
void multihead_attention_row(const AttentionSpec& spec, const AttentionInputs& attention,
                             const MultiheadInputs& in, Index i, View<double, 1> y, View<double, 2> p);

/// All rows: y[Sq, M], p[H, Sq, Sk].
void multihead_attention(const AttentionSpec& spec, Index heads, const MultiheadInputs& in, View<double, 2> y,
                         View<double, 3> p);

}  // namespace attest::ref
