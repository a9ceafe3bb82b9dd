// Exact values and bounds of the attention backward pass. Derivation: docs/bounds.md, "Attention, backward".
#pragma once

#include "core/attention.hpp"
#include "core/contract.hpp"
#include "verify/bounds/expected_view.hpp"
#include "verify/bounds/key_gradients.hpp"

namespace attest::bounds {

/// What the device's backward pass started from, and how far that may be from the values given here: for an o
/// that the device wrote, the rounding of its store, since do . o may be formed before it; for a value that
/// the dump does not hold, the error of the whole forward pass.
struct BackwardInputs {
  View<const double, 3> d_o;                                // [Hq, Sq, E]
  View<const double, 3> o, o_worst, o_systematic, o_sigma;  // [Hq, Sq, E]
  View<const double, 2> lse, lse_worst, lse_systematic;     // [Hq, Sq], natural log
  View<const double, 2>
      delta_shift;  // [Hq, Sq]: what the device's do . o is more than that of o; NaN if unknown
};

/// Gradients that are sums over rows, keys or sequences; the caller adds the sequences up, then takes
/// summed_bound() of each element. Broadcast axes have stride 0.
template <int Rank>
struct GradientSums {
  View<double, Rank> value, magnitude, worst, systematic, variance;
  explicit operator bool() const { return static_cast<bool>(value); }
};

/// Outputs of one sequence; those that the dump does not hold stay empty.
struct BackwardOutputs {
  ExpectedView<3> dq;      // [Hq, Sq, D]
  ExpectedView<3> dk, dv;  // [Hkv, Sk - past, D or E]: the keys of the past get no gradient
  GradientSums<3> dbias;   // [Hq, Sq, Sk]
  GradientSums<1> dsink;   // [Hq]
};

/// The same bits with any number of threads. Memory: the inputs, and O(Sk (D + E)) for sums.
void attention_backward(const AttentionSpec& spec, const AttentionInputs& in, const BackwardInputs& saved,
                        const Contract& contract, const BackwardOutputs& out);

/// Adds some rows of one query head, all that `in` and `saved` have, to the gradients of the keys that `in`
/// has. Bits and value are those of attention_backward() if all rows of a head are added in their order, and
/// finish_head() and finish() are called after the last of a head and of a group.
void attention_backward_rows(const AttentionSpec& spec, const AttentionInputs& in,
                             const BackwardInputs& saved, const Contract& contract, KeyGradients& gradients);

}  // namespace attest::bounds
