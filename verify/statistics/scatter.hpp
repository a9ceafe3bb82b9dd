// How far the mean of a tensor's errors may be from its expectation, from their own scatter.
#pragma once

#include <span>
#include <vector>

#include "core/view.hpp"

namespace attest {

/// Where an element stands, and its absolute value, rounded to the element type.
struct ErrorPlace {
  Index row, column;
  double stored;
};

/// sum w x / sum w; 0 where nothing has a weight.
double weighted_mean(std::span<const double> weight, std::span<const double> x);

inline constexpr double statistic_false_alarm = 2e-8;  // of one statistic of one tensor

/// Weighted means over elements whose errors may be alike along rows, along columns, or where values round
/// alike. Equations (3) and (4) of docs/statistics.md.
class Scatter {
 public:
  explicit Scatter(std::span<const ErrorPlace> places, double false_alarm = statistic_false_alarm);

  /// A kernel that keeps its contract deviates further from the expectation of the weighted mean of x with
  /// the probability `false_alarm`. Infinite where too few parts are independent.
  double of(std::span<const double> weight, std::span<const double> x, double mean) const;

 private:
  double false_alarm_;
  std::vector<std::vector<Index>> clusterings_;  // the cluster of each element
};

}  // namespace attest
