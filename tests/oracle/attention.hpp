// A second attention, slow and independent of ref: whole matrices of long double and the softmax Jacobian.
#pragma once

#include "core/array.hpp"
#include "core/attention.hpp"

namespace attest::oracle {

/// 64 bits of significand on x86: rounding errors 2^-11 of double's, which the tests count on.
using Real = long double;

struct Attention {
  Array<Real, 3> o;          // [Hq, Sq, E]
  Array<Real, 2> lse, m, l;  // [Hq, Sq]; a row that weighs nothing, not even a sink: -inf, -inf, 0
  Array<Real, 3> s, p;       // [Hq, Sq, Sk]
};
/// Inputs are finite, except that bias and sink may be -inf: a masked NaN would spread through the products.
Attention attention(const AttentionSpec& spec, const AttentionInputs& in);

struct AttentionGradients {
  Array<Real, 3> dq, dk, dv;  // as q, k, v
  Array<Real, 3> ds;          // [Hq, Sq, Sk]
  Array<Real, 1> dsink;       // [Hq]; empty without a sink
};
/// The gradients of sum(o * d_o), d_o[Hq, Sq, E]. An empty row counts as constant weights 0, NaN or 1 / Sk.
AttentionGradients attention_gradients(const AttentionSpec& spec, const AttentionInputs& in,
                                       View<const double, 3> d_o);

}  // namespace attest::oracle
