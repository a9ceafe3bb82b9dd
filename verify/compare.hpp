// Holds what a device wrote against what was expected, element by element.
#pragma once

#include "verify/expected.hpp"
#include "verify/findings.hpp"

namespace attest {

/// Does an element pass? Equal values do, NaN included where NaN is expected; so does what is within the
/// bound, and an overflow (infinity, or the largest finite value with the right sign) where the bound reaches
/// past the largest value.
bool within_bound(const Expected& expected, Index at, double got);

/// Does any element not pass?
bool has_wrong_elements(const Expected& expected);

/// |error| / bound; 0 for permitted overflows and right special values, infinity where one is wrong.
double error_ratio(const Expected& expected, Index at);

/// expected.dumped must hold its values.
OutputFindings compare(const Expected& expected);

}  // namespace attest
