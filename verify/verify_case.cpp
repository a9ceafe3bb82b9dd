// One case, from what a dump holds to a verdict.
#include "verify/verify_case.hpp"

#include "verify/compare.hpp"
#include "verify/judge.hpp"

namespace attest {

CaseFindings verify_case(const Case& c, Progress& progress) {
  return verify_case(find_op(c), c, progress);
}

CaseFindings verify_case(const Op& op, const Case& c, Progress& progress) {
  check_ports(op, c);
  const std::unique_ptr<Problem> problem = op.read(c);
  const std::vector<Expected> expected = problem->expect([&](double done) { progress.advance(done); });
  problem->recheck(expected);

  CaseFindings findings;
  findings.file = c.file;
  findings.name = c.name;
  findings.op = c.op;
  findings.about = c.about;
  findings.contract = problem->contract();
  findings.remarks = problem->remarks();
  for (const Expected& e : expected) findings.outputs.push_back(compare(e));
  judge(findings, expected, problem->decoys(expected));
  return findings;
}

}  // namespace attest
