// How far the mean of a tensor's errors may be from its expectation, from their own scatter.
#include "verify/statistics/scatter.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <mutex>
#include <utility>

#include "verify/statistics/student.hpp"

namespace attest {
namespace {

constexpr double least_freedom = 7;  // below, Student's quantile is too large to be of use

/// Elements whose errors may be alike, by cluster: those of a row, of a column.
std::vector<Index> rows_of(std::span<const ErrorPlace> places) {
  std::vector<Index> cluster;
  for (const ErrorPlace& s : places) cluster.push_back(s.row);
  return cluster;
}
std::vector<Index> columns_of(std::span<const ErrorPlace> places) {
  std::vector<Index> cluster;
  for (const ErrorPlace& s : places) cluster.push_back(s.column);
  return cluster;
}
/// Of values that are alike, or so close that they round alike.
std::vector<Index> values_of(std::span<const ErrorPlace> places) {
  // A table with open addresses: sorting takes several times as long.
  struct Slot {
    double value;
    Index cluster = -1;
  };
  const std::size_t size = std::bit_ceil(2 * places.size() + 1);
  const int shift = 64 - std::countr_zero(size);
  std::vector<Slot> slots(size);
  std::vector<Index> cluster;
  cluster.reserve(places.size());
  Index count = 0;
  for (const ErrorPlace& s : places) {
    // Values of few bits differ in the upper bits of their product.
    std::size_t at = std::bit_cast<std::uint64_t>(s.stored) * 0x9E3779B97F4A7C15 >> shift;
    while (slots[at].cluster >= 0 && slots[at].value != s.stored) at = (at + 1) & (size - 1);
    if (slots[at].cluster < 0) slots[at] = {s.stored, count++};
    cluster.push_back(slots[at].cluster);
  }
  return cluster;
}

/// Student's quantile. From 1000 degrees of freedom on it is the normal one, to 1 %.
double quantile(double freedom, double false_alarm) {
  static std::mutex mutex;
  static std::map<std::pair<Index, double>, double> known;
  const auto whole = static_cast<Index>(std::min(freedom, 1000.0));
  const std::lock_guard lock(mutex);
  const auto [it, is_new] = known.try_emplace({whole, false_alarm});
  if (is_new) it->second = student_quantile(whole, false_alarm);
  return it->second;
}

/// A weighted mean of independent clusters of samples, and how far it may be from its expectation. Equations
/// (3) and (4).
double scatter(std::span<const double> weight, std::span<const double> deviation,
               std::span<const Index> cluster, double false_alarm) {
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
  return quantile(freedom, false_alarm) * error;
}

}  // namespace

double weighted_mean(std::span<const double> weight, std::span<const double> x) {
  double sum = 0, total = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    sum += weight[i] * x[i];
    total += weight[i];
  }
  return total > 0 ? sum / total : 0;
}

Scatter::Scatter(std::span<const ErrorPlace> places, double false_alarm)
    : false_alarm_(false_alarm), clusterings_{rows_of(places), columns_of(places), values_of(places)} {}

double Scatter::of(std::span<const double> weight, std::span<const double> x, double mean) const {
  std::vector<double> deviation(x.begin(), x.end());
  for (double& value : deviation) value -= mean;
  double largest = 0;
  for (const auto& clusters : clusterings_) {
    largest = std::max(largest, scatter(weight, deviation, clusters, false_alarm_));
  }
  return largest;
}

}  // namespace attest
