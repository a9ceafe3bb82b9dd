// `attest compare A.h5 B.h5`.
#pragma once

#include "verify/program/program.hpp"

namespace attest {

/// Pairs the cases of the two files, compares and reports; returns the exit status. options.files are A and
/// B. With options.batch the one case of A is held against all cases of B together. Throws UsageError.
int compare(const Options& options);

}  // namespace attest
