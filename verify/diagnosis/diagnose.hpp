// What would explain an output that failed.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "verify/axes/axes.hpp"
#include "verify/findings.hpp"
#include "verify/op.hpp"

namespace attest {

/// Of what only says where to look, and not what is wrong.
inline constexpr double confidence_of_a_place = 0.6;

/// The confidence in one answer for this output.
double explained_share(const Expected& expected, const Decoy& answer);

/// More than a few right elements should be wrong by this answer, as they should be elsewhere than where it
/// holds.
bool denies_right_elements(const Expected& expected, const Decoy& answer);

/// Of the output of that name.
using AxesOf = std::function<std::vector<Axis>(const std::string& output)>;

/// Answers that wrong elements of the dump agree with, or zeros, NaN and infinities, the likeliest first.
/// confidence: the share of the wrong elements for which an answer is known that agree with it; what explains
/// less than 70 % of them is left out, or 90 % where hardly an error is well beyond its bound. An answer of
/// the whole call is held against right elements, too, and comes to nothing if another output of the forward
/// pass is right that should not be; of any other one that makes right elements wrong, the place is named
/// where it holds, if axes_of says what the axes of an output are, or its confidence is at most 0.9. One that
/// explains no wrong element of a forward output of which it says something has at most 0.85. Among them, the
/// causes that the op fitted to the errors, an answer without which errors within their bounds would not
/// spread too far, and narrower formats that outputs were stored in; then, stores that seem to cut off
/// instead of rounding.
std::vector<DiagnosisEntry> diagnose(std::span<const Expected> expected, std::span<const Decoy> answers,
                                     const std::vector<DiagnosisEntry>& fitted,
                                     const AxesOf& axes_of = nullptr);

}  // namespace attest
