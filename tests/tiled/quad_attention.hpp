// Attention and its elementary functions in 113 bits, in plain loops: slow, and independent of tiled.
#pragma once

#include "core/array.hpp"
#include "core/attention.hpp"

namespace attest::test {

__extension__ typedef __float128 Quad;

/// Within 2^-108 relative, without a library.
Quad quad_exp(Quad x);
Quad quad_log(Quad x);
Quad quad_tanh(Quad x);
inline Quad absolute(Quad x) {
  return x < 0 ? -x : x;
}

struct QuadAttention {
  Array<Quad, 3> o;          // [Hq, Sq, E]
  Array<Quad, 2> lse, m, l;  // [Hq, Sq]; a row that sees no key has l = 0 and, for lse and m, 0
};
/// Empty rows follow spec.empty_row, but for NaN, which stays 0.
QuadAttention quad_attention(const AttentionSpec& spec, const AttentionInputs& in);

struct QuadGradients {
  Array<Quad, 3> dq, dk, dv, ds;
  Array<Quad, 1> dsink;
};
/// ref::attention_backward's definition, of o and lse as given; no row may be empty.
QuadGradients quad_gradients(const AttentionSpec& spec, const AttentionInputs& in, const Array<Quad, 3>& o,
                             const Array<Quad, 2>& lse, View<const double, 3> d_o);

}  // namespace attest::test
