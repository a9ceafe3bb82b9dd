// One case, from what a dump holds to a verdict.
#pragma once

#include "verify/findings.hpp"
#include "verify/op.hpp"
#include "verify/progress.hpp"

namespace attest {

/// Judges one case. Throws InvalidCase if the case is malformed, InternalError if a check of ours fails.
CaseFindings verify_case(const Case& c, Progress& progress);

/// The same for an operation that need not be in the table.
CaseFindings verify_case(const Op& op, const Case& c, Progress& progress);

}  // namespace attest
