// `attest ops [NAME...]`.
#pragma once

#include <string>
#include <vector>

namespace attest {

struct Op;

/// Throws UsageError where there is no such operation.
const Op& op_of(const std::string& name);
/// "attention, softmax, ..."
std::string names_of_ops();

/// Prints the pages of the named operations, or without names a list of all; returns the exit status. Throws
/// UsageError where there is no such operation.
int show_ops(const std::vector<std::string>& names);

}  // namespace attest
