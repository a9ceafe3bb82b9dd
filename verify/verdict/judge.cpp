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

/// What our own value may be off by at most to count as known. All of a gradient may be 0 but for that: it is
/// measured by the other outputs, too.
std::map<std::string, double> known_to(std::span<const Expected> expected) {
  constexpr double share = 0x1p-20;
  double of_all = 0;
  std::map<std::string, double> most;
  for (const Expected& e : expected) of_all = std::max(of_all, most[e.output] = share * largest_of(e));
  for (const Expected& e : expected)
    if (e.output.starts_with('d')) most[e.output] = of_all;
  return most;
}

void try_element(Trial& trial, const Expected& expected, double known_to_within, Index at, double answer) {
  const double written = round_to(answer, expected.dtype);
  const double right = round_to(expected.value[at], expected.dtype);
  if (written == right || (std::isnan(written) && std::isnan(right))) return;
  // Both are computed: an answer that means the same may differ by what either is off.
  const double off = expected.disagreement(at);
  if (off <= known_to_within && std::abs(answer - expected.value[at]) <= off) return;
  trial.differs = true;
  trial.rejected |= !within_bound(expected, at, written);
}

/// Where a bound is as large as the largest value, nearly anything passes: half of such elements are too
/// many.
void refuse_empty_bounds(CaseFindings& findings, OutputFindings& output, const Expected& expected,
                         double known_to_within) {
  const double largest = largest_of(expected);
  Index empty = 0;
  const Index all = static_cast<Index>(expected.value.size());
  for (Index at = 0; at < all; ++at) {
    const double size = std::abs(expected.value[at]), off = expected.disagreement(at);
    const double bound = expected.bound(at);
    const bool is_zero = (off <= known_to_within && size <= off) || (largest == 0 && std::isfinite(bound));
    empty += std::isfinite(size) && !is_zero && !(bound < largest);
  }
  if (empty == 0) return;
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

  const std::map<std::string, double> known = known_to(expected);
  for (const Expected& e : expected) {
    Trial zeros;
    for (std::size_t at = 0; at < e.value.size() && !zeros.rejected; ++at) {
      try_element(zeros, e, known.at(e.output), static_cast<Index>(at), 0);
    }
    if (!zeros.differs || zeros.rejected) {
      refuse_empty_bounds(findings, findings_of(e.output), e, known.at(e.output));
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
      try_element(trial, *e, known.at(e->output), decoy.at[n], decoy.value[n]);
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
