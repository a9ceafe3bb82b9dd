// Sums over rows or columns from which a faulty kernel has lost some, or counted them twice.
#pragma once

#include <optional>
#include <string>

#include "verify/findings.hpp"
#include "verify/ops/weighted_sums.hpp"

namespace attest {

/// One number is fitted to a few elements: in fewer it always fits.
inline constexpr Index least_elements_of_sums = 32;

/// Terms with weight 1 that have 0 or 2 in its place, if that explains the errors. Their vectors have one
/// element for each sum that was looked at. what: "row" or "column"; of: what the sum is.
std::optional<DiagnosisEntry> lost_or_doubled(const WeightedSum& sum, const std::string& what,
                                              const std::string& of);

}  // namespace attest
