// The golden files against themselves, and the exact values of verify and ref against them.
#include <algorithm>
#include <cmath>
#include <set>

#include "tests/catch.hpp"
#include "tests/golden/golden_values.hpp"
#include "verify/compare.hpp"
#include "verify/verdict/judge.hpp"

using namespace attest;
using namespace attest::test;

namespace {

bool is_same(double a, double b) {
  return (std::isnan(a) && std::isnan(b)) || (a == b && std::signbit(a) == std::signbit(b));
}

std::string at_text(const Case& c, const std::string& output, std::size_t at, double got, double want) {
  std::ostringstream text;
  text.precision(17);
  text << c.object("out/" + output) << " element " << at << " is " << got << ", golden " << want;
  return text.str();
}

/// test_tiled.cpp has those: how close they are depends on o and lse.
bool is_gradient_in_double_double(const Expected& e) {
  return !e.double_error.empty() && (e.output == "dq" || e.output == "dk" || e.output == "dv");
}

/// The values of an output that are further from the golden ones than both may be from the exact ones, in
/// words.
std::string disagreement(const Case& c, const Expected& e) {
  const GoldenValues golden = golden_values(c, e.output);
  for (std::size_t n = 0; n < golden.values.size(); ++n) {
    const std::size_t at = n * static_cast<std::size_t>(golden.step);
    const double got = e.value[at], want = golden.values[n], error = e.value_error[at] + golden_error(want);
    if ((std::isnan(want) && std::isnan(got)) || got == want || std::abs(got - want) <= error) continue;
    return at_text(c, e.output, at, got, want) + ", certified error " + std::to_string(error);
  }
  return {};
}

/// Golden values in place of the engine's, where there are some, with half of what ref and they may differ
/// by: recheck allows for twice the error.
std::vector<Expected> with_goldens(const Case& c, std::vector<Expected> expected) {
  for (Expected& e : expected) {
    const GoldenValues golden = golden_values(c, e.output);
    for (std::size_t n = 0; n < golden.values.size(); ++n) {
      const std::size_t at = n * static_cast<std::size_t>(golden.step);
      e.value[at] = golden.values[n];
      e.value_error[at] = (e.value_error[at] + golden_error(golden.values[n])) / 2;
    }
  }
  return expected;
}

}  // namespace

TEST_CASE("the outputs of a golden are the nearest values of their element types") {
  for (const Case& c : golden_cases()) {
    for (const auto& [output, tensor] : c.out) {
      const GoldenValues golden = golden_values(c, output);
      const std::vector<double> special = golden_exceptions(c, output, *tensor.dtype);
      const std::size_t step = static_cast<std::size_t>(golden.step);
      REQUIRE(golden.values.size() == (tensor.values.size() + step - 1) / step);
      for (std::size_t n = 0; n < golden.values.size(); ++n) {
        const double want = special.empty() ? round_to(golden.values[n], *tensor.dtype) : special[n];
        if (is_same(tensor.values[n * step], want)) continue;
        FAIL_CHECK(at_text(c, output, n * step, tensor.values[n * step], want));
      }
    }
  }
}

TEST_CASE("a golden file has results that rounding by way of float64 misses") {
  const auto is_it = [](const Case& c) { return c.name == "nearly_halfway"; };
  const auto c = std::ranges::find_if(golden_cases(), is_it);
  REQUIRE(c != golden_cases().end());
  CHECK(!golden_exceptions(*c, "o", DType::bfloat16).empty());
}

TEST_CASE("every operation has goldens, in every element type") {
  std::set<std::string> ops;
  std::set<DType> types;
  for (const Case& c : golden_cases()) {
    ops.insert(c.op);
    for (const auto& [name, tensor] : c.out) types.insert(*tensor.dtype);
  }
  for (const Op& op : all_ops()) CHECK(ops.contains(std::string(op.name)));
  CHECK(types.size() == all_formats().size());
}

TEST_CASE(
    "goldens pass, and the exact values of verify and of ref are within their certified errors of them") {
  for (const Case& c : golden_cases()) {
    INFO(c.object(""));
    const std::unique_ptr<Problem> problem = find_op(c).read(c);
    const std::vector<Expected> expected = problem->expect([](double) {});
    CaseFindings findings;  // as verify_case judges, which would compute all of it again
    for (const Expected& e : expected) {
      if (!is_gradient_in_double_double(e)) CHECK(disagreement(c, e) == "");
      findings.outputs.push_back(compare(e));
    }
    judge(findings, expected, problem->decoys(expected));
    CHECK(name_of(findings.verdict) == "pass");
    CHECK_NOTHROW(problem->recheck(with_goldens(c, expected)));
  }
}
