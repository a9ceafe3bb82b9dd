// What would explain an output that failed.
#pragma once

#include <span>
#include <vector>

#include "verify/findings.hpp"
#include "verify/op.hpp"

namespace attest {

/// Of what only says where to look, and not what is wrong.
inline constexpr double confidence_of_a_place = 0.6;

/// The confidence in one answer for this output.
double explained_share(const Expected& expected, const Decoy& answer);

/// Answers that wrong elements of the dump agree with, or zeros, NaN and infinities, the likeliest first.
/// confidence: the share of the wrong elements for which an answer is known that agree with it; what explains
/// less than 70 % of them is left out. An answer of the whole call is held against right elements, too, and
/// comes to nothing if another output of the forward pass is right that should not be. Among them, the causes
/// that the op fitted to the errors, an answer without which errors within their bounds would not spread too
/// far, and narrower formats that outputs were stored in; then, stores that seem
/// to cut off instead of rounding.
std::vector<DiagnosisEntry> diagnose(std::span<const Expected> expected, std::span<const Decoy> answers,
                                     const std::vector<DiagnosisEntry>& fitted);

}  // namespace attest
