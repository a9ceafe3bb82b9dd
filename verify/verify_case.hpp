// One case, from what a dump holds to a verdict.
#pragma once

#include <functional>

#include "verify/dump.hpp"
#include "verify/findings.hpp"
#include "verify/op.hpp"
#include "verify/progress.hpp"
#include "verify/row_sample.hpp"

namespace attest {

/// What reports show beside the verdict, which none of it changes.
struct Shown {
  bool regions = false, pictures = false;
};

/// Judges one case. Throws InvalidCase if the case is malformed, InternalError if a check of ours fails.
CaseFindings verify_case(const Case& c, Progress& progress, const Shown& shown = {});

/// Reads parts of a case; see Dump.
using PartReader = std::function<Case(const Dump::Parts&)>;

/// Judges the rows of a sample, one part after another: memory for one key/value head. The case may lack its
/// values; `read` gives them.
CaseFindings verify_rows(const Case& c, const RowSample& sample, const PartReader& read, Progress& progress,
                         const Shown& shown = {});

/// The same for an operation that need not be in the table.
CaseFindings verify_case(const Op& op, const Case& c, Progress& progress, const Shown& shown = {});

}  // namespace attest
