// One feature put to the test.
#include "tests/coverage/check.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "verify/compare.hpp"
#include "verify/text.hpp"
#include "verify/verdict/verify_case.hpp"

namespace attest::coverage {
namespace {

std::vector<Expected> expect(const Case& c) {
  const Op& op = find_op(c);
  check_ports(op, c);
  const std::unique_ptr<Problem> problem = op.read(c);
  std::vector<Expected> all = problem->expect([](double) {});
  problem->recheck(all);
  return all;
}

/// What the oracle would have written.
Case honest(const Feature& feature, const Answers& answers) {
  Case c = feature.c;
  c.file = feature.name;
  c.name = "/";
  for (auto& [name, tensor] : c.out) {
    tensor.values.clear();
    for (const long double x : answers.at(name).value)
      tensor.values.push_back(round_to(static_cast<double>(x), *tensor.dtype));
  }
  return c;
}

bool agrees(long double value, long double want, long double allowed) {
  return value == want || std::abs(value - want) <= allowed || (std::isnan(value) && std::isnan(want));
}

/// Is the next number of the element type out of bounds?
bool is_exact(const Expected& e, Index at) {
  const double value = e.value[at];
  return !std::isfinite(value) || (round_to(value, e.dtype) == value && e.bound(at) < ulp(value, e.dtype));
}

std::string place(const std::string& output, Index at) {
  return "out/" + output + " at flat index " + std::to_string(at);
}

/// The value of an output that the dump holds alone, against the oracle; returns OutputCheck::open_share.
double check_value(const Case& c, const std::string& output, const Answer& answer,
                   std::vector<std::string>& problems) {
  Case alone = c;
  std::erase_if(alone.out, [&](const auto& out) { return out.first != output; });
  const std::vector<Expected> all = expect(alone);
  const Expected& e = all.front();
  double open = 0;
  for (Index at = 0; at < static_cast<Index>(e.value.size()); ++at) {
    const double value = e.value[at], rounded = round_to(static_cast<double>(answer.value[at]), e.dtype);
    const long double allowed = e.value_error[at] + answer.error[at];
    const bool exact = is_exact(e, at);
    if (!agrees(value, answer.value[at], allowed) || (exact && !agrees(value, rounded, 0))) {
      problems.push_back(place(output, at) + " is " + exact_text(value) + ", the oracle's is " +
                         exact_text(static_cast<double>(answer.value[at])) + ", " +
                         number_text(static_cast<double>(allowed), 3) + " is allowed");
      return 0;
    }
    if (!exact) open = std::max(open, static_cast<double>(allowed) / e.bound(at));
  }
  if (open > 1) problems.push_back("the oracle's errors exceed the bounds of out/" + output);
  return open;
}

/// Returns OutputCheck::bound_in_ulp.
double check_bounds(const Expected& e, std::vector<std::string>& problems) {
  std::vector<double> in_ulp;
  for (Index at = 0; at < static_cast<Index>(e.value.size()); ++at) {
    const double value = e.value[at], bound = e.bound(at);
    if (std::isnan(value)) continue;  // nothing else passes, whatever the bound is
    const bool is_number = round_to(value, e.dtype) == value;
    const bool good = std::isfinite(bound) && bound >= 0 && e.probable[at] <= e.rigorous[at] &&
                      std::isfinite(e.sigma[at]) && (bound > 0 || is_number);
    if (!good) {
      problems.push_back(place(e.output, at) + ": the value is " + exact_text(value) + ", the bound is " +
                         exact_text(bound) + ", the rigorous one " + exact_text(e.rigorous[at]) + ", sigma " +
                         exact_text(e.sigma[at]));
      break;
    }
    if (!is_exact(e, at)) in_ulp.push_back(bound / ulp(value, e.dtype));
  }
  if (in_ulp.empty()) return 0;
  const auto middle = in_ulp.begin() + static_cast<Index>(in_ulp.size() / 2);
  std::nth_element(in_ulp.begin(), middle, in_ulp.end());
  return *middle;
}

/// An element with a finite value, in the middle of those that need not be met exactly if there are any; -1:
/// there is none.
Index middle_element(const Expected& e) {
  std::vector<Index> open, exact;
  for (Index at = 0; at < static_cast<Index>(e.value.size()); ++at) {
    if (std::isfinite(e.value[at])) (is_exact(e, at) ? exact : open).push_back(at);
  }
  const std::vector<Index>& some = open.empty() ? exact : open;
  return some.empty() ? -1 : some[some.size() / 2];
}

void check_wrong(const Case& right, const Expected& e, std::vector<std::string>& problems) {
  const Index at = middle_element(e);
  if (at < 0) {
    problems.push_back("out/" + e.output + " has no finite value");
    return;
  }
  const double value = e.value[at], step = std::max(3 * e.bound(at), ulp(value, e.dtype));
  const double off = round_to(value + std::copysign(step, value), e.dtype);
  for (const double wrong : {off, std::numeric_limits<double>::quiet_NaN()}) {
    Case c = right;
    c.out.at(e.output).values[at] = wrong;
    const std::vector<Expected> all = expect(c);
    const auto same =
        std::find_if(all.begin(), all.end(), [&](const Expected& other) { return other.output == e.output; });
    if (!within_bound(*same, at, wrong)) continue;
    problems.push_back(exact_text(wrong) + " passes as " + place(e.output, at) + ", which is " +
                       exact_text(value));
  }
}

void check_together(const Case& c, const Answers& answers, Checked& checked) {
  Progress progress;
  const CaseFindings findings = verify_case(c, progress);
  if (findings.verdict != Verdict::pass) {
    std::string text = "the oracle's dump gets the verdict " + std::string(name_of(findings.verdict));
    for (const OutputFindings& o : findings.outputs) text += ", " + o.name + " " + ratio_text(o.worst_ratio);
    for (const std::string& reason : findings.reasons) text += ", " + reason;
    checked.problems.push_back(text);
  }
  for (const Expected& e : expect(c)) {
    OutputCheck& output = checked.outputs.emplace_back(OutputCheck{e.output});
    output.bound_in_ulp = check_bounds(e, checked.problems);
    output.open_share = check_value(c, e.output, answers.at(e.output), checked.problems);
    check_wrong(c, e, checked.problems);
  }
}

}  // namespace

Checked check(const Suite& suite, const Feature& feature) {
  Checked checked;
  try {
    const Answers answers = suite.answers(feature.c);
    check_together(honest(feature, answers), answers, checked);
  } catch (const std::exception& error) {  // InvalidCase, InternalError: neither is expected
    checked.problems.push_back(error.what());
  }
  return checked;
}

}  // namespace attest::coverage
