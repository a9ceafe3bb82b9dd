// A gradient's errors held against what known faults would make of it, everywhere or in some tiles of its
// sums.
#pragma once

#include <span>
#include <vector>

#include "verify/findings.hpp"
#include "verify/ops/attention/problem.hpp"

namespace attest {

/// The fault that explains most of the errors of a sample of the wrong rows of dq, dk or dv; empty if none
/// explains most.
std::vector<DiagnosisEntry> misread_gradient(const AttentionCase& attention,
                                             std::span<const SavedForBackward> saved, const Expected& e);

}  // namespace attest
