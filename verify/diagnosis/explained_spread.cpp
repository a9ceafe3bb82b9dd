// Answers that explain errors none of which is beyond its bound, and which spread too far all the same.
#include "verify/diagnosis/explained_spread.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <string>

#include "verify/compare.hpp"

namespace attest {
namespace {

constexpr double least_share = 0.7;

/// Of fewer elements, chance can change the spread by as much.
constexpr Index least_elements = 256;

/// Answers that leave no more than this times what the best one leaves are as good: the first given counts.
constexpr double as_good = 1.05;

struct Squares {
  std::string name, output;
  double right = 0, answer = 0;  // of errors over their predicted standard deviation
  Index count = 0;

  /// Of the excess over 1 that is gone.
  double share() const {
    const double n = static_cast<double>(count);
    return count >= least_elements && right > n ? (right - std::max(answer, n)) / (right - n) : 0;
  }
};

}  // namespace

std::vector<DiagnosisEntry> explained_spread(std::span<const Expected> expected,
                                             std::span<const Decoy> answers) {
  if (std::ranges::any_of(expected, [](const Expected& e) { return has_wrong_elements(e); })) return {};
  std::map<std::string, double> limits;  // of outputs whose errors spread too far
  for (const Expected& e : expected)
    for (const Statistic& s : statistics(e))
      if (s.name == "spread" && s.exceeds()) limits[e.output] = s.limit;
  std::vector<Squares> all;
  for (const Decoy& answer : answers) {
    const auto e = std::ranges::find(expected, answer.output, &Expected::output);
    if (e == expected.end() || !limits.contains(e->output)) continue;
    auto place = std::ranges::find_if(
        all, [&](const Squares& s) { return s.name == answer.name && s.output == answer.output; });
    if (place == all.end()) place = all.insert(all.end(), {answer.name, answer.output});
    Squares& squares = *place;
    for (std::size_t n = 0; n < answer.at.size(); ++n) {
      const Index at = answer.at[n];
      const double got = e->dumped->values[at], sigma = e->sigma_of_many(at);
      if (!(sigma > 0) || !std::isfinite(got) || !std::isfinite(answer.value[n])) continue;
      squares.right += std::pow((got - e->value[at]) / sigma, 2);
      squares.answer += std::pow((got - answer.value[n]) / sigma, 2);
      ++squares.count;
    }
  }
  const auto best = std::ranges::max_element(all, {}, &Squares::share);
  if (best == all.end() || !(best->share() >= least_share)) return {};
  const Squares& squares = *std::ranges::find_if(all, [&](const Squares& s) {
    return s.output == best->output && s.count == best->count && s.answer <= as_good * best->answer;
  });
  // Chance leaves the spread of so many elements below its limit.
  const auto spread_of = [&](double sum) { return std::sqrt(sum / static_cast<double>(squares.count)); };
  if (!(spread_of(squares.answer) <= limits[squares.output]) ||
      !(spread_of(squares.right) > limits[squares.output]))
    return {};
  return {{squares.name, squares.share(),
           "the errors of " + squares.output + " spread " +
               std::to_string(std::lround(100 * spread_of(squares.answer))) +
               " % as far as predicted with it, " +
               std::to_string(std::lround(100 * spread_of(squares.right))) + " % without"}};
}

}  // namespace attest
