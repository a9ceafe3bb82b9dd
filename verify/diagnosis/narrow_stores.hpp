// Outputs that were stored in a narrower format on the way.
#pragma once

#include <span>
#include <vector>

#include "verify/findings.hpp"

namespace attest {

/// Wrong outputs of which all numbers are numbers of a format narrower than their own, and no further off
/// than one rounding to it.
std::vector<DiagnosisEntry> narrow_stores(std::span<const Expected> expected);

}  // namespace attest
