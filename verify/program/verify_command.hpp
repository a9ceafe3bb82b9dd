// `attest verify` and `attest baseline`.
#pragma once

#include "verify/program/program.hpp"

namespace attest {

/// Judges every case of the dumps, reports, and returns the exit status.
int verify(const Options& options);

/// The same, and writes what it found to options.baseline, or updates it, if every case passes.
int write_baseline(const Options& options);

}  // namespace attest
