// The suites that attest_recipes found (docs/recipes.md).
#include "verify/inputs/suite.hpp"

#include <algorithm>
#include <iterator>
#include <sstream>

namespace attest {
namespace {

// Written by attest_recipes; a test holds it against the table of docs/recipes.md.
constexpr SuiteCase suite[] = {
#include "verify/inputs/suite.inc"
};

}  // namespace

RequestText SuiteCase::request() const {
  RequestText text;
  text.recipe = recipe;
  if (!shape.empty()) text.shape = {std::string(shape)};
  std::istringstream settings{std::string(set)};
  for (std::string part; std::getline(settings, part, ',');) text.set.push_back(part);
  if (!with.empty()) text.with = {std::string(with)};
  return text;
}

std::vector<SuiteCase> suite_of(std::string_view op) {
  std::vector<SuiteCase> found;
  std::ranges::copy_if(suite, std::back_inserter(found), [&](const SuiteCase& c) { return c.op == op; });
  return found;
}

}  // namespace attest
