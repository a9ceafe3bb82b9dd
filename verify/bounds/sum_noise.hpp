// How far rounding is expected to carry a plain sum of known terms. Equation numbers: docs/bounds_norm.md.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/dtype.hpp"

namespace attest::bounds {

/// Estimates from the terms themselves, for sums in the format `compute`. Reuse one per thread: it keeps its
/// memory.
class SumNoise {
 public:
  explicit SumNoise(DType compute) : compute_(compute) {}

  /// Variance, in units of u^2, of the error of adding up `terms` where every product and every addition
  /// rounds to nearest: in their order, reversed, at random, or in up to 1024 strided lanes whose totals are
  /// then added. Equation (7).
  double variance(std::span<const double> terms);

  /// The same for terms of one sign, for which no order is worse. Equation (8).
  double variance_of_positive(std::span<const double> terms);

  /// 1 if all magnitudes differ; n if n equal terms make up the sum: equal terms are rounded alike, so that
  /// their errors add up instead of averaging out. Equation (6).
  double multiplicity(std::span<const double> terms);

 private:
  struct Slot {
    double magnitude = 0, mass = 0;
    std::uint32_t generation = 0;
  };
  /// Four standard deviations cover at least that error.
  double at_least_simulated(double variance, std::span<const double> terms);
  /// The largest error of the sum that is seen when it is added up in these orders. Equation (6a).
  double simulated_error(std::span<const double> terms);
  template <class Add>
  double simulated_error(std::span<const double> terms, Add add);

  DType compute_;
  std::vector<Slot> slots_;
  std::uint32_t generation_ = 0;
  std::vector<double> lanes_, errors_;
};

}  // namespace attest::bounds
