// Suites: the cases that together expose every fault that any recipe exposes, as docs/recipes.md measured.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "verify/inputs/request.hpp"

namespace attest {

/// What of a request differs from case to case, as on a command line; "" stands for nothing.
struct SuiteCase {
  std::string_view op, name, recipe, shape, set, with;

  RequestText request() const;
};

/// Those of an op, in the order in which a greedy search found them; empty if none were measured.
std::vector<SuiteCase> suite_of(std::string_view op);

}  // namespace attest
