// `attest ops [NAME...]`.
#pragma once

#include <string>
#include <vector>

namespace attest {

/// Prints the pages of the named operations, or without names a list of all; returns the exit status. Throws
/// UsageError where there is no such operation.
int show_ops(const std::vector<std::string>& names);

}  // namespace attest
