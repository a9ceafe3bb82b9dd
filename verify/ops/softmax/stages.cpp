// A softmax and its gradient, step by step, by a kernel that errs.
#include "verify/ops/softmax/stages.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace attest {
namespace {

using enum SoftmaxStage;
using Values = std::vector<double>;

constexpr double infinity = std::numeric_limits<double>::infinity();

View<const double, 1> view_of(const Values& values) {
  return values.empty() ? View<const double, 1>{}
                        : View<const double, 1>{values.data(), {static_cast<Index>(values.size())}};
}

/// Of the exponentials y, which belong to scores s with the maximum m.
double sum_of(const SoftmaxVariant& kernel, const Values& s, const Values& y, double m) {
  const Index n = static_cast<Index>(s.size()), count = std::max<Index>(kernel.lanes, 1);
  Values sums(count), maxima(count, -infinity);
  if (kernel.padding > 0) sums[0] = static_cast<double>(kernel.padding) * std::exp(-m);
  for (Index j = 0; j < (kernel.summed == 0 ? n : kernel.summed); ++j) {
    const Index lane = kernel.lanes > 0 ? j / kernel.vector % kernel.lanes : 0;
    double& sum = sums[lane];
    if (!kernel.is_online) {
      sum = kernel.at(running_sum, sum + y[j]);
      continue;
    }
    double& highest = maxima[lane];
    double now = s[j];
    if (kernel.tile > 0 && j % kernel.tile == 0)
      for (Index k = j; k < std::min(n, (j / kernel.tile + 1) * kernel.tile); ++k) now = std::max(now, s[k]);
    if (now > highest) {
      const bool is_rescaled = kernel.unscaled_from < 0 || j < kernel.unscaled_from;
      if (is_rescaled) sum *= std::exp(highest - now);
      highest = now;
    }
    if (s[j] > -infinity) sum = kernel.at(running_sum, sum + std::exp(s[j] - highest));
  }
  double all = 0;
  for (Index lane = 0; lane < count; ++lane) {
    const bool is_relative = kernel.is_online && maxima[lane] > -infinity;
    all += is_relative ? sums[lane] * std::exp(maxima[lane] - m) : sums[lane];
  }
  return all;
}

}  // namespace

SoftmaxRow computed_row(const SoftmaxVariant& kernel, Values x, Values mask, const Values& dy, double sum) {
  const Index n = static_cast<Index>(x.size());
  for (double& value : x) value = kernel.at(SoftmaxStage::x, value);
  const Values given_mask = mask;
  if (kernel.ignores_mask || kernel.lowered > 0) mask.clear();
  if (kernel.inverts_mask)
    for (double& kept : mask) kept = 1 - kept;
  Values s(n), y(n), dx(dy.size());
  ref::SoftmaxSpec spec = kernel.spec;
  if (kernel.clamps_scores) spec.clamp = 0;
  ref::softmax_scores(spec, view_of(x), view_of(mask), {s.data(), {n}});
  const double limit = kernel.spec.clamp;
  const auto is_beyond = [&](Index j) { return kernel.clamps_scores && std::abs(spec.scale * x[j]) > limit; };
  for (Index j = 0; kernel.clamps_scores && j < n; ++j)
    if (mask.empty() || mask[j] != 0) s[j] = std::clamp(spec.scale * x[j], -limit, limit);
  if (kernel.passes_clamped) spec.clamp = 0;
  for (Index j = 0; kernel.lowered > 0 && j < n && !given_mask.empty(); ++j)
    if (given_mask[j] == 0) s[j] = round_to(s[j] - kernel.lowered, DType::float32);
  double m = kernel.spec.subtract_max ? -infinity : 0;
  for (double& value : s) {
    value = kernel.at(score, value);
    if (kernel.spec.subtract_max) m = std::max(m, value);
  }
  if (m == -infinity) return {};
  if (kernel.takes_smallest) m = *std::ranges::min_element(s);
  if (kernel.maximum) m = *kernel.maximum;
  for (Index j = 0; j < n; ++j)
    y[j] = s[j] == -infinity ? 0 : kernel.at(exponential, std::exp(kernel.at(difference, s[j] - m)));
  const double l = kernel.at(row_sum, sum > 0 ? sum : sum_of(kernel, s, y, m));
  for (Index j = 0; j < n; ++j) {
    if (s[j] == -infinity) continue;
    const bool has_own = !kernel.maxima_in_y.empty();
    const double once = kernel.at(difference, s[j] - (has_own ? kernel.maxima_in_y[j] : m));
    const double again = kernel.at(difference_in_y, once);
    if (has_own || again != once) y[j] = kernel.at(exponential, std::exp(again));
    y[j] = kernel.at(exponential_in_y, y[j]);
    if (!kernel.sums_in_y.empty()) y[j] *= l / kernel.sums_in_y[j];
  }
  const double inverse = kernel.at(inverse_sum, 1 / l);
  double dot_of_dy = 0, sum_of_dy = 0;
  for (Index j = 0; j < n; ++j) {
    y[j] = kernel.at(weight, inverse == 1 / l ? y[j] / l : y[j] * inverse);
    if (dy.empty()) continue;
    if (kernel.dot_summed == 0 || j < kernel.dot_summed)
      dot_of_dy = kernel.at(running_dot, dot_of_dy + kernel.at(product, y[j] * dy[j]));
    sum_of_dy += dy[j];
  }
  dot_of_dy = kernel.at(dot, dot_of_dy);
  for (Index j = 0; j < static_cast<Index>(dx.size()); ++j) {
    const double slope_of_x =
        is_beyond(j) ? 0 : ref::softmax_score_slope(spec, x[j], mask.empty() ? 1 : mask[j]);
    const double of_score = kernel.at(slope, slope_of_x);
    dx[j] = (kernel.is_logarithm ? dy[j] - y[j] * sum_of_dy : y[j] * (dy[j] - dot_of_dy)) * of_score;
  }
  for (Index j = 0; kernel.is_logarithm && j < n; ++j) y[j] = s[j] - m - std::log(l);
  const double lse = kernel.lse_of_m * m + kernel.lse_of_log * std::log(kernel.at(row_sum_in_lse, l));
  return {m, l, lse, std::move(y), std::move(dx)};
}

}  // namespace attest
