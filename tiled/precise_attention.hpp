// Attention in double-double arithmetic, about 100 bits: what results of float64 devices are held against.
// The errors below are derived in docs/double_double.md and certain, not estimated.
#pragma once

#include <span>

#include "core/attention.hpp"
#include "tiled/dispatch.hpp"
#include "tiled/precise_problem.hpp"

namespace attest::tiled {

/// Results hi + lo, hi the double nearest to it.
template <int Rank>
struct WideView {
  View<double, Rank> hi, lo;
};

/// Views that are empty are not written, here and below.
struct PreciseOutputs {
  WideView<3> o;          // [Hq, Sq, E]
  WideView<2> lse, m, l;  // [Hq, Sq], natural log; m = -inf, l = 0, lse = -inf in rows that see no key
  /// [Hq, Sq, E]: |o - exact| is at most this: 2^-104 sum_j p_j |v_j| times a few hundred and twice the
  /// score's error. The score of a key is off by at most 2^-104 (6 D + 24) A, 256 more with a softcap, A the
  /// sum of the absolute values of its terms.
  View<double, 3> o_error;
  View<double, 2> row_error;  // [Hq, Sq]: of lse and m; twice this, relative to it, of l
};

/// A batch of sequences. Memory of a few tiles a thread. The bits depend on the level and not on the number
/// of threads. Options and empty rows: AttentionSpec.
///
/// Not covered by the errors: products of magnitude below 2^-960 lose their low parts. Sums of 2^1021 or
/// more, infinities and NaN give NaN; those in k or v of a key that is masked for some rows only may reach
/// these rows.
void precise_attention_forward(const AttentionSpec& spec, std::span<const AttentionInputs> in,
                               std::span<const PreciseOutputs> out, Level level = fastest_level());

/// What the backward pass reads beside the inputs: o and lse of a device (lo empty), or the forward pass's.
struct PreciseSaved {
  View<const double, 3> o, o_lo;      // [Hq, Sq, E]
  View<const double, 2> lse, lse_lo;  // [Hq, Sq], natural log
  View<const double, 3> d_o;          // [Hq, Sq, E]
};

struct PreciseGradients {
  WideView<3> dq, dk, dv;  // as q, k, v
  WideView<3> ds;          // [Hq, Sq, Sk]: the gradient of a bias of full shape
  WideView<1> dsink;       // [Hq]
  // Of the same shapes: what the errors are at most, given o and lse.
  View<double, 3> dq_error, dk_error, dv_error, ds_error;
  View<double, 1> dsink_error;
};

/// The gradients that ref::attention_backward defines, as functions of o and lse as given.
void precise_attention_backward(const AttentionSpec& spec, std::span<const AttentionInputs> in,
                                std::span<const PreciseSaved> saved, std::span<const PreciseGradients> out,
                                Level level = fastest_level());

const PreciseKernels& precise_kernels_for(Level level);

}  // namespace attest::tiled
