// Spread and gain of the errors of a tensor, with limits from the errors' own scatter over independent parts.
// Equation numbers: docs/statistics.md.
#include "verify/statistics.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <numeric>
#include <span>

#include "verify/student.hpp"

namespace attest {
namespace {

constexpr Index most_elements = Index{1} << 16;  // more would not tell more
constexpr double false_alarm = 2e-8;             // of one statistic
constexpr double least_freedom = 7;              // below, Student's quantile is too large to be of use
// sigma^2 is a model: real and emulated kernels that keep their contract stay below (docs/statistics.md).
constexpr double model_slack = 0.15;

/// One element that takes part.
struct Sample {
  double value, error, variance, systematic;
  double stored;  // |value|, rounded to the element type
  Index row, column;
};

std::vector<Sample> samples_of(const Expected& expected) {
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
        const double stored = round_to(std::abs(value), expected.dtype);
        samples.push_back({value, got - value, sigma * sigma, systematic, stored, row, column});
      }
    }
  }
  if (2 * static_cast<Index>(samples.size()) < looked_at) samples.clear();
  return samples;
}

/// Samples whose errors may be alike, by cluster: those of a row, of a column.
std::vector<Index> rows_of(std::span<const Sample> samples) {
  std::vector<Index> cluster;
  for (const Sample& s : samples) cluster.push_back(s.row);
  return cluster;
}
std::vector<Index> columns_of(std::span<const Sample> samples) {
  std::vector<Index> cluster;
  for (const Sample& s : samples) cluster.push_back(s.column);
  return cluster;
}
/// Of values that are alike, or so close that they round alike.
std::vector<Index> values_of(std::span<const Sample> samples) {
  std::vector<Index> order(samples.size()), cluster(samples.size());
  std::iota(order.begin(), order.end(), Index{0});
  const auto size = [&](Index i) { return samples[i].stored; };
  std::sort(order.begin(), order.end(), [&](Index a, Index b) { return size(a) < size(b); });
  Index last = 0;
  for (std::size_t k = 0; k < order.size(); ++k) {
    if (k > 0 && size(order[k]) != size(order[k - 1])) ++last;
    cluster[order[k]] = last;
  }
  return cluster;
}

/// Student's quantile. From 1000 degrees of freedom on it is the normal one, to 1 %.
double quantile(double freedom) {
  static std::array<std::atomic<double>, 1001> known{};
  std::atomic<double>& q = known[static_cast<std::size_t>(std::min(freedom, 1000.0))];
  if (q == 0) q = student_quantile(static_cast<Index>(std::min(freedom, 1000.0)), false_alarm);
  return q;
}

/// A weighted mean of independent clusters of samples, and how far it may be from its expectation. Equations
/// (3) and (4).
double scatter(std::span<const double> weight, std::span<const double> deviation,
               std::span<const Index> cluster) {
  const Index count = *std::max_element(cluster.begin(), cluster.end()) + 1;
  std::vector<double> weights(count), sums(count);
  for (std::size_t i = 0; i < cluster.size(); ++i) {
    weights[cluster[i]] += weight[i];
    sums[cluster[i]] += weight[i] * deviation[i];
  }
  double total = 0, squares = 0, variance = 0;
  for (Index c = 0; c < count; ++c) {
    total += weights[c];
    squares += weights[c] * weights[c];
    variance += sums[c] * sums[c];
  }
  const double clusters = total * total / squares, freedom = std::floor(clusters) - 1;
  if (!(freedom >= least_freedom)) return std::numeric_limits<double>::infinity();
  const double error = std::sqrt(variance * clusters / (clusters - 1)) / total;
  return quantile(freedom) * error;
}

}  // namespace

std::vector<Statistic> statistics(const Expected& expected) {
  const std::vector<Sample> samples = samples_of(expected);
  if (samples.empty()) return {};
  const std::vector<std::vector<Index>> clusterings = {rows_of(samples), columns_of(samples),
                                                       values_of(samples)};
  const auto mean_of = [&](const std::vector<double>& weight, const std::vector<double>& x) {
    double sum = 0, total = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
      sum += weight[i] * x[i];
      total += weight[i];
    }
    return total > 0 ? sum / total : 0;
  };
  const auto scatter_of = [&](const std::vector<double>& weight, std::vector<double> x, double mean) {
    for (double& value : x) value -= mean;
    double largest = 0;
    for (const auto& clusters : clusterings) largest = std::max(largest, scatter(weight, x, clusters));
    return largest;
  };

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
  const double spread = mean_of(one, square), gain = mean_of(weight, slope);
  const double spread_limit = 1 + model_slack + scatter_of(one, square, spread);
  std::vector<Statistic> all = {{"spread", std::sqrt(spread), std::sqrt(spread_limit)}};
  if (total > 0) all.push_back({"gain", gain, systematic / total + scatter_of(weight, slope, gain)});
  return all;
}

}  // namespace attest
