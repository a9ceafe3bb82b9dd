// Pairs of a rotary embedding that turn with other inverse frequencies than their own: which, and what they
// have in common.
#include <algorithm>
#include <cmath>
#include <set>
#include <string>

#include "verify/axes/runs.hpp"
#include "verify/compare.hpp"
#include "verify/diagnosis/diagnose.hpp"
#include "verify/ops/rope/problem.hpp"
#include "verify/ops/rope/sample.hpp"
#include "verify/ops/rope/turns.hpp"
#include "verify/text.hpp"

namespace attest {
namespace {

/// Factors that a fit may stand for, in words: "times 2.5", "divided by 3".
std::set<std::pair<double, std::string>> likely_factors(double fitted) {
  std::set<std::pair<double, std::string>> all;
  for (int digits = 1; digits <= 4; ++digits) {
    const std::string text = number_text(fitted, digits), of_inverse = number_text(1 / fitted, digits);
    all.insert({number_of(text), "times " + text});
    if (std::abs(fitted) < 1) all.insert({1 / number_of(of_inverse), "divided by " + of_inverse});
  }
  return all;
}

/// " of pairs 3, 8..15"
std::string text_of(const std::vector<bool>& pairs) {
  const std::vector<IndexRun> runs = runs_of(pairs);
  if (runs.size() > most_runs) return " of some pairs";
  std::string list;
  for (const IndexRun& run : runs)
    list += (list.empty() ? "" : ", ") + std::to_string(run.first) +
            (run.first == run.last ? "" : ".." + std::to_string(run.last));
  return (std::ranges::count(pairs, true) == 1 ? " of pair " : " of pairs ") + list;
}

}  // namespace

std::vector<Decoy> RopeProblem::frequencies_found(const Expected& e, const RopeDirection& direction) const {
  if (rope_.source.has_table()) return {};
  const RopeSpec& spec = rope_.spec;
  const std::vector<double>& input = case_.input(direction.input)->values;
  const RopeSample sample(rope_, input, *e.dumped);
  const Index width = sample.shape.sizes.width;
  std::vector<bool> is_wrong(static_cast<std::size_t>(spec.pairs()));
  for (std::size_t n = 0; n < sample.at.size(); ++n) {
    const Index d = static_cast<Index>(n) % width;
    if (d >= spec.rotary_dim || within_bound(e, sample.at[n], sample.dumped.values[n])) continue;
    is_wrong[spec.style == RopeStyle::half ? d % spec.pairs() : d / 2] = true;
  }
  // Of fast pairs the fit says most.
  const std::vector<double> fitted = fitted_frequencies(spec, rope_, input, *e.dumped, direction.backward);
  const auto first = std::ranges::find(is_wrong, true) - is_wrong.begin();
  if (first == spec.pairs() || fitted[first] == 0) return {};

  const auto with = [&](const std::string& name, const auto& frequency) {
    bounds::RopeSource wrong = sample.source;
    for (Index k = 0; k < spec.pairs(); ++k) wrong.frequencies[k].exact = frequency(k);
    return computed(name, spec, sample, direction,
                    [&](Index s, Index k) { return right_coefficients(wrong, spec, s, k); });
  };
  const auto own = [&](Index k) { return sample.source.frequencies[k].exact.hi; };
  std::vector<Decoy> all;
  for (const auto& [factor, text] : likely_factors(fitted[first] / own(first))) {
    if (factor == 1 || !std::isfinite(factor)) continue;
    // Slow pairs may be right for all that their rows tell.
    all.push_back(with("inverse frequencies " + text, [&, by = factor](Index k) { return by * own(k); }));
    const Decoy some = with("inverse frequencies" + text_of(is_wrong) + " " + text,
                            [&, by = factor](Index k) { return is_wrong[k] ? by * own(k) : own(k); });
    if (explained_share(e, some) > explained_share(e, all.back())) all.back() = some;
  }
  constexpr Index most_listed = 3;
  std::string list;
  Index listed = 0;
  for (Index k = 0; k < spec.pairs(); ++k) {
    if (!is_wrong[k] || ++listed > most_listed) continue;
    list += (listed == 1 ? " that of pair " : ", of pair ") + std::to_string(k) + " is about " +
            number_text(fitted[k], 3) + ", not " + number_text(own(k), 3);
  }
  all.push_back(with("other inverse frequencies:" + list + (listed > most_listed ? ", and so on" : ""),
                     [&](Index k) { return is_wrong[k] ? fitted[k] : own(k); }));
  return all;
}

}  // namespace attest
