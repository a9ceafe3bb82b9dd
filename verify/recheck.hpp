// The check of ours on every run: the engine's values against those of ref.
#pragma once

#include <span>

#include "verify/op.hpp"

namespace attest {

/// Throws InternalError where an answer of ref and the value of the engine differ by more than twice the
/// certified error: both evaluate the same formula in double, so that both may be off by it.
void hold_against_ref(std::span<const Expected> expected, std::span<const Decoy> answers);

}  // namespace attest
