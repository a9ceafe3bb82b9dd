// Answers that explain errors none of which is beyond its bound, and which spread too far all the same.
#pragma once

#include <span>
#include <vector>

#include "verify/findings.hpp"
#include "verify/op.hpp"

namespace attest {

/// The answer without which least is left of what errors exceed their predicted spread by, if that is at
/// least 70 % less. Nothing if an element is beyond its bound: such elements say more.
std::vector<DiagnosisEntry> explained_spread(std::span<const Expected> expected,
                                             std::span<const Decoy> answers);

}  // namespace attest
