// What an operation reads, writes and means, as text from its record.
#pragma once

#include <string>

#include "verify/op.hpp"

namespace attest {

/// A page of Markdown whose lines fit into 80 columns.
std::string page_of(const Op& op);

/// One line for every operation: name and summary. Width 0 breaks no line.
std::string list_of_ops(Index width);

}  // namespace attest
