// One case, from what a dump holds to a verdict.
#include "verify/verify_case.hpp"

#include <algorithm>
#include <iterator>

#include "verify/axes.hpp"
#include "verify/compare.hpp"
#include "verify/diagnose.hpp"
#include "verify/digest.hpp"
#include "verify/judge.hpp"
#include "verify/region.hpp"

namespace attest {
namespace {

std::string place_of_failures(const Op& op, const Case& c, const Expected& expected) {
  Region region(output_axes(op, c, expected.output));
  bool is_empty = true;
  for (Index at = 0; at < expected.dumped->size(); ++at) {
    if (within_bound(expected, at, expected.dumped->values[at])) continue;
    region.add(at);
    is_empty = false;
  }
  return is_empty ? "" : region.text();
}

}  // namespace

CaseFindings verify_case(const Case& c, Progress& progress, Depth depth) {
  return verify_case(find_op(c), c, progress, depth);
}

CaseFindings verify_case(const Op& op, const Case& c, Progress& progress, Depth depth) {
  const bool is_thorough = depth == Depth::diagnosis;
  check_ports(op, c);
  const std::unique_ptr<Problem> problem = op.read(c);
  const std::vector<Expected> expected = problem->expect([&](double done) { progress.advance(done); });
  if (is_thorough) problem->recheck(expected);

  CaseFindings findings;
  findings.file = c.file;
  findings.name = c.name;
  findings.op = c.op;
  findings.about = c.about;
  if (is_thorough) findings.inputs = digest_of(c).text();
  findings.contract = problem->contract();
  findings.settled = problem->contract_keys().settled();
  findings.remarks = problem->remarks();
  for (const Expected& e : expected) {
    findings.outputs.push_back(compare(e));
    if (is_thorough) findings.outputs.back().where = place_of_failures(op, c, e);
  }
  std::vector<Decoy> answers = problem->decoys(expected);
  judge(findings, expected, answers);
  if (is_thorough && findings.verdict == Verdict::fail) {
    std::ranges::move(problem->alternatives(expected), std::back_inserter(answers));
    findings.diagnosis = diagnose(expected, answers, problem->explanations(expected));
  }
  return findings;
}

}  // namespace attest
