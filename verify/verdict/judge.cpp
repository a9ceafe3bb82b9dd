// Whether a pass counts: wrong answers must not have passed on the same case.
#include "verify/verdict/judge.hpp"

#include <algorithm>
#include <cmath>
#include <map>

#include "verify/compare.hpp"

namespace attest {
namespace {

struct Trial {
  bool is_subtle = false;
  bool differs = false;   // from the right answer, once rounded
  bool rejected = false;  // by at least one element
};

/// The largest exact value of an output. A bound as large is none.
double largest_of(const Expected& expected) {
  double largest = 0;
  for (const double value : expected.value)
    if (std::isfinite(value)) largest = std::max(largest, std::abs(value));
  return largest;
}

void try_element(Trial& trial, const Expected& expected, double largest, Index at, double answer) {
  const double written = round_to(answer, expected.dtype);
  const double right = round_to(expected.value[at], expected.dtype);
  if (written == right || (std::isnan(written) && std::isnan(right))) return;
  // Both are computed: an answer that means the same may differ by what either is off. That is little, or
  // neither is known.
  constexpr double most_off = 0x1p-20;
  const double off = expected.disagreement(at);
  if (off <= most_off * largest && std::abs(answer - expected.value[at]) <= off) return;
  trial.differs = true;
  trial.rejected |= !within_bound(expected, at, written);
}

/// Where a bound is as large as the largest value, nearly anything passes: half of such elements are too
/// many.
void refuse_empty_bounds(CaseFindings& findings, OutputFindings& output, const Expected& expected,
                         double largest) {
  Index empty = 0;
  const Index all = static_cast<Index>(expected.value.size());
  for (Index at = 0; at < all; ++at)
    empty += std::isfinite(expected.value[at]) && !(expected.bound(at) < largest);
  if (empty == 0 || largest == 0) return;
  const std::string text = std::to_string(empty) + " of " + std::to_string(all) + " elements of out/" +
                           expected.output + " have a bound as large as the largest value";
  if (2 * empty < all) {
    findings.remarks.push_back(text);
    return;
  }
  findings.reasons.push_back(text);
  if (output.verdict == Verdict::pass) output.verdict = Verdict::inconclusive;
}

}  // namespace

void judge(CaseFindings& findings, std::span<const Expected> expected, std::span<const Decoy> decoys) {
  const auto findings_of = [&](const std::string& output) -> OutputFindings& {
    return *std::find_if(findings.outputs.begin(), findings.outputs.end(),
                         [&](const OutputFindings& o) { return o.name == output; });
  };

  std::map<std::string, double> largest;
  for (const Expected& e : expected) {
    largest[e.output] = largest_of(e);
    Trial zeros;
    for (std::size_t at = 0; at < e.value.size() && !zeros.rejected; ++at) {
      try_element(zeros, e, largest[e.output], static_cast<Index>(at), 0);
    }
    if (!zeros.differs || zeros.rejected) {
      refuse_empty_bounds(findings, findings_of(e.output), e, largest[e.output]);
      continue;
    }
    findings.reasons.push_back("zeros in place of out/" + e.output + " would pass too");
    OutputFindings& output = findings_of(e.output);
    if (output.verdict == Verdict::pass) output.verdict = Verdict::inconclusive;
  }

  std::map<std::string, Trial> by_name;
  for (const Decoy& decoy : decoys) {
    const auto e = std::find_if(expected.begin(), expected.end(),
                                [&](const Expected& x) { return x.output == decoy.output; });
    Trial& trial = by_name[decoy.name];
    trial.is_subtle = decoy.is_subtle;
    for (std::size_t n = 0; n < decoy.at.size(); ++n)
      try_element(trial, *e, largest[e->output], decoy.at[n], decoy.value[n]);
  }
  for (const auto& [name, trial] : by_name) {
    if (!trial.differs || trial.rejected) continue;
    if (trial.is_subtle) {
      findings.remarks.push_back("these inputs do not tell " + name);
    } else {
      findings.reasons.push_back(name + " would pass too");
    }
  }

  findings.verdict = findings.reasons.empty() ? Verdict::pass : Verdict::inconclusive;
  for (const OutputFindings& output : findings.outputs)
    findings.verdict = std::max(findings.verdict, output.verdict);
}

}  // namespace attest
