// The forward pass of tiled/forward.hpp in the arithmetic of a device: what a correct kernel computes,
// rounding errors included.
#pragma once

#include "core/contract.hpp"
#include "tiled/attention.hpp"

namespace attest::tiled {

/// How the kernel cuts its work up.
struct EmulatedKernel {
  Index key_tile = 64;    // keys; tiles begin at multiples of it
  Index query_tile = 64;  // query rows that visit the same tiles
  Index splits = 1;       // parts of the keys, merged in float32 (tiled/merge.hpp)
  Normalisation normalisation = Normalisation::deferred;
};

/// Attention that rounds where the contract says that a device rounds:
///   q.k      sums as contract.qk forms them
///   scores   in softmax_dtype. The scale is part of the exponent, s c - (m c rounded), rounded once. If
///            anything besides q.k decides a score, or the scale is not positive, s c is rounded first.
///   weights  exp2 in softmax_dtype; float32 is cut off, not rounded. Row sums add weights unrounded.
///   P V      P in p_dtype, sums as contract.pv forms them, each tile going on from the rescaled sum
/// Every tile is computed whole and masked afterwards, as devices do it: an infinity or a NaN in v reaches
/// all rows of a tile. Results are values of softmax_dtype: storing o in the element type is the caller's
/// rounding. A tensor core's products must be exact in double. Speed is that of plain loops. Throws
/// std::invalid_argument for a softmax_dtype other than float32 and float64, in which the inputs must be
/// exact.
void attention_forward_emulated(const AttentionSpec& spec, const Contract& contract,
                                const EmulatedKernel& kernel, const AttentionInputs& in,
                                const Outputs<double>& out);

}  // namespace attest::tiled
