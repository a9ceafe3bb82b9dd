// One case, from what a dump holds to a verdict.
#include "verify/verify_case.hpp"

#include <algorithm>
#include <iterator>

#include "verify/axes.hpp"
#include "verify/compare.hpp"
#include "verify/diagnose.hpp"
#include "verify/digest.hpp"
#include "verify/judge.hpp"
#include "verify/picture_maker.hpp"
#include "verify/region.hpp"
#include "verify/region_statistics.hpp"

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

Picture picture_of(const Op& op, const Case& c, const Expected& expected) {
  PictureMaker maker(op, output_axes(op, c, expected.output));
  for (Index at = 0; at < expected.dumped->size(); ++at) maker.add(expected, at, at);
  return maker.take();
}

}  // namespace

CaseFindings verify_case(const Case& c, Progress& progress, const Wanted& wanted) {
  return verify_case(find_op(c), c, progress, wanted);
}

CaseFindings verify_case(const Op& op, const Case& c, Progress& progress, const Wanted& wanted) {
  check_ports(op, c);
  const std::unique_ptr<Problem> problem = op.read(c);
  const std::vector<Expected> expected = problem->expect([&](double done) { progress.advance(done); });
  if (wanted.diagnosis) problem->recheck(expected);

  CaseFindings findings;
  findings.file = c.file;
  findings.name = c.name;
  findings.op = c.op;
  findings.about = c.about;
  if (wanted.diagnosis) findings.inputs = digest_of(c).text();
  findings.contract = problem->contract();
  findings.settled = problem->contract_keys().settled();
  findings.remarks = problem->remarks();
  for (const Expected& e : expected) {
    findings.outputs.push_back(compare(e));
    OutputFindings& found = findings.outputs.back();
    if (wanted.diagnosis) found.where = place_of_failures(op, c, e);
    if (wanted.pictures) found.picture = picture_of(op, c, e);
    if (wanted.regions) found.regions = spread_by_region(op, output_axes(op, c, e.output), e);
  }
  std::vector<Decoy> answers = problem->decoys(expected);
  judge(findings, expected, answers);
  if (wanted.diagnosis && findings.verdict == Verdict::fail) {
    std::ranges::move(problem->alternatives(expected), std::back_inserter(answers));
    findings.diagnosis = diagnose(expected, answers, problem->explanations(expected));
  }
  return findings;
}

}  // namespace attest
