// Spread and gain of the errors of a tensor, with limits from the errors' own scatter over independent parts.
// Equation numbers: docs/statistics.md.
#include "verify/statistics.hpp"

#include <cmath>

#include "verify/replay_statistics.hpp"
#include "verify/scatter.hpp"

namespace attest {
namespace {

constexpr Index most_elements = Index{1} << 16;  // more would not tell more

/// One element that takes part.
struct Sample {
  double value, error, variance, systematic;
};

std::vector<Sample> samples_of(const Expected& expected, std::vector<ErrorPlace>& places) {
  const Tensor& dumped = *expected.dumped;
  const Index n = dumped.size(), width = dumped.shape.empty() ? 1 : dumped.shape.back();
  const Index rows = width > 0 ? n / width : 0, step = std::max<Index>(1, n / most_elements);
  const double largest = format_of(expected.dtype).max;
  std::vector<Sample> samples;
  Index looked_at = 0;
  for (Index row = 0; row < rows; row += step) {
    for (Index column = 0; column < width; ++column) {
      const Index at = row * width + column;
      const double got = dumped.values[at], value = expected.value[at], sigma = expected.sigma[at];
      const double systematic = expected.systematic[at] + expected.value_error[at];
      ++looked_at;
      const bool takes_part = sigma > 0 && std::isfinite(sigma) && std::isfinite(systematic) &&
                              std::isfinite(got) && std::abs(value) + expected.bound(at) < largest;
      if (takes_part) {
        samples.push_back({value, got - value, sigma * sigma, systematic});
        places.push_back({row, column, round_to(std::abs(value), expected.dtype)});
      }
    }
  }
  if (2 * static_cast<Index>(samples.size()) < looked_at) samples.clear();
  return samples;
}

}  // namespace

std::vector<Statistic> statistics(const Expected& expected) {
  std::vector<ErrorPlace> places;
  const std::vector<Sample> samples = samples_of(expected, places);
  if (samples.empty()) return {};
  const Scatter scatter(places);

  // Equation (1): squares of errors in units of what is predicted.
  std::vector<double> one(samples.size(), 1.0), square, weight, slope;
  double systematic = 0, total = 0;
  for (const Sample& s : samples) {
    const double predicted = s.variance + s.systematic * s.systematic;
    square.push_back(s.error * s.error / predicted);
    // Equation (2): errors in units of the value, weighted by what they tell.
    weight.push_back(s.value * s.value / predicted);
    slope.push_back(s.value == 0 ? 0 : s.error / s.value);
    systematic += std::abs(s.value) * s.systematic / predicted;
    total += weight.back();
  }
  const double spread = weighted_mean(one, square), gain = weighted_mean(weight, slope);
  const double spread_limit = 1 + model_slack + scatter.of(one, square, spread);
  std::vector<Statistic> all = {{"spread", std::sqrt(spread), std::sqrt(spread_limit)}};
  if (total > 0) all.push_back({"gain", gain, systematic / total + scatter.of(weight, slope, gain)});
  for (Statistic& x : replay_statistics(expected)) all.push_back(std::move(x));
  return all;
}

}  // namespace attest
