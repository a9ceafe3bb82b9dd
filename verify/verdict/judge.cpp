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

void try_element(Trial& trial, const Expected& expected, Index at, double answer) {
  const double written = round_to(answer, expected.dtype);
  const double right = round_to(expected.value[at], expected.dtype);
  if (written == right || (std::isnan(written) && std::isnan(right))) return;
  // Both are computed: an answer that means the same may differ by what either is off.
  if (std::abs(answer - expected.value[at]) <= expected.disagreement(at)) return;
  trial.differs = true;
  trial.rejected |= !within_bound(expected, at, written);
}

}  // namespace

void judge(CaseFindings& findings, std::span<const Expected> expected, std::span<const Decoy> decoys) {
  const auto findings_of = [&](const std::string& output) -> OutputFindings& {
    return *std::find_if(findings.outputs.begin(), findings.outputs.end(),
                         [&](const OutputFindings& o) { return o.name == output; });
  };

  for (const Expected& e : expected) {
    Trial zeros;
    for (std::size_t at = 0; at < e.value.size() && !zeros.rejected; ++at) {
      try_element(zeros, e, static_cast<Index>(at), 0);
    }
    if (!zeros.differs || zeros.rejected) continue;
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
    for (std::size_t n = 0; n < decoy.at.size(); ++n) try_element(trial, *e, decoy.at[n], decoy.value[n]);
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
