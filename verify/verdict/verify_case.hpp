// One case, from what a dump holds to a verdict.
#pragma once

#include <functional>

#include "verify/dump/dump.hpp"
#include "verify/findings.hpp"
#include "verify/op.hpp"
#include "verify/progress.hpp"
#include "verify/verdict/row_sample.hpp"

namespace attest {

/// What there shall be beside the verdict, which none of it changes.
struct Wanted {
  bool diagnosis = true;  // and places, and checks of ours; needless for a case that was judged before
  bool regions = false, pictures = false;
};

/// Judges one case. Throws InvalidCase if the case is malformed, InternalError if a check of ours fails.
CaseFindings verify_case(const Case& c, Progress& progress, const Wanted& wanted = {});

/// Reads parts of a case; see Dump. Called from several threads.
using PartReader = std::function<Case(const Dump::Parts&)>;

/// Judges the rows of a sample: memory for a key/value head a thread, and no more than four of them. The case
/// may lack its values; `read` gives them. The same findings with any number of threads.
CaseFindings verify_rows(const Case& c, const RowSample& sample, const PartReader& read, Progress& progress,
                         const Wanted& wanted = {});

/// The same for an operation that need not be in the table.
CaseFindings verify_case(const Op& op, const Case& c, Progress& progress, const Wanted& wanted = {});

}  // namespace attest
