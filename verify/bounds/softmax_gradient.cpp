// Bounds of the gradient of one row of softmax.
#include "verify/bounds/softmax_gradient.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace attest::bounds {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

/// Half an ulp of x as stored: 0 if the format is no narrower than what it was computed in.
double half_ulp(double x, DType stored, DType compute) {
  const bool is_rounded = format_of(stored).precision < format_of(compute).precision;
  return is_rounded ? 0.5 * ulp(std::min(std::abs(x), format_of(stored).max), stored) : 0;
}

Arithmetic with_stored_weights(const Arithmetic& a, DType stored) {
  Contract contract = a.contract;
  contract.p_dtype = stored;
  return Arithmetic(contract);
}

}  // namespace

SoftmaxGradient::SoftmaxGradient(const SoftmaxRow& row, const std::vector<WeightError>& weights,
                                 View<const double, 1> dy, const SoftmaxTypes& types, const Arithmetic& a)
    : row_(row), weights_(weights), dy_(dy), types_(types), arithmetic_(a) {
  const WeightStructure stored = weight_structure(row.p, row.l, with_stored_weights(a, types.y));
  is_structured_ = row.sum_is_coherent || stored.few_stored_values;

  const double n = static_cast<double>(row.count());
  const bool weights_round = format_of(types.y).precision < format_of(types.compute).precision;
  const bool products_round = format_of(types.dy).precision < format_of(types.compute).precision;
  double magnitude = 0, squares = 0, prefix = 0, prefix_sum = 0, weight_shift = 0, product_shift = 0;
  for (Index c = 0; c < row.count(); ++c) {
    const double p = row.p[c], g = dy(row.key[c]), t = g * p;
    const Entry e = entry(c);
    sum_ += t;
    magnitude += e.product;
    squares += t * t;
    prefix += sum_ * sum_;
    prefix_sum += sum_;
    sum_worst_ += std::abs(g) * e.weight_worst + e.product_store;
    sum_systematic_ += std::abs(g) * weights[c].systematic;
    sum_variance_ += g * g * e.weight_variance + e.product_store * e.product_store / 3;
    // The exact weights are known, so the rounding errors of their store can be foretold.
    const double stored_p = weights_round ? round_to(p, types.y) : p;
    const double stored_t = products_round ? round_to(g * stored_p, types.dy) : g * stored_p;
    weight_shift += g * (stored_p - p);
    product_shift += stored_t - g * stored_p;
  }
  const double additions = gamma(n + 1, a.u);
  sum_worst_ = sum_worst_ * (1 + additions) + additions * magnitude;
  sum_systematic_ += std::abs(weight_shift) + std::abs(product_shift);
  const double mean_square = mean_square_running_sum(sum_, squares, prefix, prefix_sum, n);
  sum_variance_ += mean_square_rounding * a.u * a.u * (n * mean_square + squares);
}

SoftmaxGradient::Entry SoftmaxGradient::entry(Index c) const {
  const double p = row_.p[c];
  const WeightError& w = weights_[c];
  const double store = half_ulp(p + std::min(w.worst, p), types_.y, types_.compute);
  const double product = std::abs(dy_(row_.key[c])) * p;
  const double largest_product = product + std::abs(dy_(row_.key[c])) * std::min(w.worst + store, p);
  return {w.worst + store, w.systematic + store, w.variance + store * store / 3, product,
          half_ulp(largest_product, types_.dy, types_.compute)};
}

GradientError SoftmaxGradient::at(Index c, double slope) const {
  const double u = arithmetic_.u, p = row_.p[c], r = dy_(row_.key[c]) - sum_;
  const Entry e = entry(c);
  const double value = slope * p * r, factor = std::abs(slope);
  const double roundings = 4 * u * (e.product + std::abs(sum_) * p) + e.product_store;
  double worst = factor * (std::abs(r) * e.weight_worst + sum_worst_ * (p + e.weight_worst) + roundings);
  worst = worst * (1 + 8 * u) + 2 * u * std::abs(value) + arithmetic_.flush * (1 + std::abs(r));
  if (std::isnan(worst)) worst = infinity;  // 0 times an infinite bound
  if (is_structured_) return {value, worst, worst, worst / std::sqrt(3.0)};

  const double systematic =
      factor * (std::abs(r) * e.weight_systematic + sum_systematic_ * (p + e.weight_systematic) + roundings) +
      2 * u * std::abs(value) + arithmetic_.flush * (1 + std::abs(r));
  const double variance = slope * slope * (r * r * weights_[c].variance + p * p * sum_variance_);
  return {value, worst, std::isnan(systematic) ? infinity : systematic, std::sqrt(variance)};
}

}  // namespace attest::bounds
