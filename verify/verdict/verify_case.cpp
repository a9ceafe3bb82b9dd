// One case, from what a dump holds to a verdict.
#include "verify/verdict/verify_case.hpp"

#include <algorithm>
#include <exception>
#include <functional>
#include <iterator>

#include "verify/axes/axes.hpp"
#include "verify/axes/region.hpp"
#include "verify/compare.hpp"
#include "verify/diagnosis/advice.hpp"
#include "verify/diagnosis/diagnose.hpp"
#include "verify/dump/digest.hpp"
#include "verify/statistics/picture_maker.hpp"
#include "verify/statistics/region_statistics.hpp"
#include "verify/verdict/judge.hpp"

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

/// On as many threads as there are. Throws what the first of those that failed threw.
void run_together(const std::vector<std::function<void()>>& tasks) {
  std::vector<std::exception_ptr> failures(tasks.size());
#pragma omp parallel for schedule(dynamic, 1)
  for (std::size_t n = 0; n < tasks.size(); ++n) {
    try {
      tasks[n]();
    } catch (...) {
      failures[n] = std::current_exception();
    }
  }
  for (const std::exception_ptr& failure : failures)
    if (failure) std::rethrow_exception(failure);
}

}  // namespace

CaseFindings verify_case(const Case& c, Progress& progress, const Wanted& wanted) {
  return verify_case(find_op(c), c, progress, wanted);
}

CaseFindings verify_case(const Op& op, const Case& c, Progress& progress, const Wanted& wanted) {
  check_ports(op, c);
  const std::unique_ptr<Problem> problem = op.read(c);
  const std::vector<Expected> expected = problem->expect([&](double done) { progress.advance(done); });

  CaseFindings findings;
  findings.file = c.file;
  findings.name = c.name;
  findings.op = c.op;
  findings.about = c.about;
  findings.contract = problem->contract();
  findings.settled = problem->contract_keys().settled();
  findings.remarks = problem->remarks();

  std::vector<Decoy> answers;
  std::vector<std::function<void()>> tasks = {[&] { answers = problem->decoys(expected); }};
  if (wanted.diagnosis) {
    tasks.push_back([&] { problem->recheck(expected); });
    tasks.push_back([&] { findings.inputs = digest_of(c).text(); });
  }
  findings.outputs.resize(expected.size());
  for (std::size_t n = 0; n < expected.size(); ++n) {
    tasks.push_back([&, &e = expected[n], &found = findings.outputs[n]] {
      found = compare(e);
      if (wanted.diagnosis) found.where = place_of_failures(op, c, e);
      if (wanted.pictures) found.picture = picture_of(op, c, e);
      if (wanted.regions) found.regions = spread_by_region(op, output_axes(op, c, e.output), e);
    });
  }
  run_together(tasks);
  judge(findings, expected, answers);
  if (wanted.diagnosis && findings.verdict == Verdict::fail) {
    std::ranges::move(problem->alternatives(expected), std::back_inserter(answers));
    drop_impossible_advice(c, answers);
    findings.diagnosis = diagnose(expected, answers, problem->explanations(expected),
                                  [&](const std::string& output) { return output_axes(op, c, output); });
  }
  return findings;
}

}  // namespace attest
