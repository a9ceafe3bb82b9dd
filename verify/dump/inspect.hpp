// What a case of a dump holds, as text.
#pragma once

#include <string>

#include "verify/case.hpp"
#include "verify/text.hpp"

namespace attest {

/// The case's name and op, its spec, contract and about keys, and the type and shape of every dataset. The
/// values are not looked at.
std::string text_of_case(const Case& c, const TextStyle& style);

}  // namespace attest
