// What would explain an output that failed.
#pragma once

#include <span>
#include <vector>

#include "verify/findings.hpp"
#include "verify/op.hpp"

namespace attest {

/// Answers that wrong elements of the dump agree with, or zeros, NaN and infinities, the likeliest first.
/// confidence: the share of the wrong elements for which an answer is known that agree with it; what explains
/// less than 70 % of them is left out. Among them, the causes that the op fitted to the errors; then, stores
/// that seem to cut off instead of rounding.
std::vector<DiagnosisEntry> diagnose(std::span<const Expected> expected, std::span<const Decoy> answers,
                                     const std::vector<DiagnosisEntry>& fitted);

}  // namespace attest
