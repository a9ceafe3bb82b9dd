// Attention by tiles (FlashAttention-2): memory grows with the sequence, not with its square.
#pragma once

#include <span>

#include "core/attention.hpp"
#include "tiled/dispatch.hpp"

namespace attest::tiled {

template <class Real>
using Inputs = BasicAttentionInputs<Real>;

/// Views that are empty are not written.
template <class Real>
struct Outputs {
  View<Real, 3> o;          // [Hq, Sq, E]
  View<Real, 2> lse, m, l;  // [Hq, Sq], natural log; m = -inf, l = 0, lse = -inf in rows that see no key
};

/// A batch of sequences, each with lengths of its own. Where a sequence has few rows and many keys, these are
/// dealt to parts that are merged in a fixed order (tiled/merge.hpp). The bits of a result depend on the
/// level and, for gradients, on whether o and d_o have unit column strides, and neither on the number of
/// threads nor on the rest of the batch. Options and empty rows: AttentionSpec. A key that no row of a tile
/// may attend to may hold anything; a NaN or an infinity in v of a key that is masked for some rows only may
/// reach those rows.
template <class Real>
void attention_forward(const AttentionSpec& spec, std::span<const Inputs<Real>> in,
                       std::span<const Outputs<Real>> out, Level level = fastest_level(),
                       Normalisation normalisation = Normalisation::deferred);

/// What the backward pass reads beside the inputs: o and lse of the forward pass, and the gradient of o.
template <class Real>
struct Saved {
  View<const Real, 3> o;    // [Hq, Sq, E]
  View<const Real, 2> lse;  // [Hq, Sq], natural log
  View<const Real, 3> d_o;  // [Hq, Sq, E]
};

/// Views that are empty are not written.
template <class Real>
struct Gradients {
  View<Real, 3> dq, dk, dv;  // as q, k, v
  View<Real, 3> ds;          // [Hq, Sq, Sk]: the gradient of a bias of full shape
  View<Real, 1> dsink;       // [Hq]
};

/// The gradients that ref::attention_backward defines, as functions of o and lse as given. Long sequences are
/// cut into parts whose dk and dv are added in a fixed order, so that one head keeps many threads busy and
/// the bits do not depend on how many. Each thread keeps dk and dv of one head.
template <class Real>
void attention_backward(const AttentionSpec& spec, std::span<const Inputs<Real>> in,
                        std::span<const Saved<Real>> saved, std::span<const Gradients<Real>> out,
                        Level level = fastest_level());

extern template void attention_backward(const AttentionSpec&, std::span<const Inputs<float>>,
                                        std::span<const Saved<float>>, std::span<const Gradients<float>>,
                                        Level);
extern template void attention_backward(const AttentionSpec&, std::span<const Inputs<double>>,
                                        std::span<const Saved<double>>, std::span<const Gradients<double>>,
                                        Level);
extern template void attention_forward(const AttentionSpec&, std::span<const Inputs<float>>,
                                       std::span<const Outputs<float>>, Level, Normalisation);
extern template void attention_forward(const AttentionSpec&, std::span<const Inputs<double>>,
                                       std::span<const Outputs<double>>, Level, Normalisation);

}  // namespace attest::tiled
