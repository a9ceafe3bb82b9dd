// Exact values and bounds of the attention forward pass. Derivation: docs/bounds.md, "Attention, forward".
#pragma once

#include "core/attention.hpp"
#include "core/contract.hpp"
#include "verify/bounds/expected_view.hpp"
#include "verify/bounds/input_errors.hpp"

namespace attest::bounds {

/// Outputs of one sequence; those that the dump does not hold stay empty.
struct ForwardOutputs {
  ExpectedView<3> o;          // [Hq, Sq, E]
  ExpectedView<3> lse, m, l;  // [Hq, Sq, R], R equal copies
  ExpectedView<3> s, p;       // [Hq, Sq, Sk]
  double lse_unit = 1;        // log2(e) where the device writes base 2
  double lse_empty;           // what the device writes for a row with nothing to attend to
};

/// The same bits with any number of threads. errors: of q, k and v as the device read them, where they are
/// its own results (docs/bounds_multihead.md); without them they are exact.
void attention_forward(const AttentionSpec& spec, const AttentionInputs& in, const Contract& contract,
                       const ForwardOutputs& out, const InputErrors* errors = nullptr);

}  // namespace attest::bounds
