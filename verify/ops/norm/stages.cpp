// A normalisation, step by step, by a kernel that errs.
#include "verify/ops/norm/stages.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

namespace attest {

using enum NormStage;

double NormStages::weight(Index j) const {
  const NormInputs& in = variant_.in;
  const Index from = variant_.weight_column ? variant_.weight_column(j) : j;
  return in.weight ? at(NormStage::weight, in.weight(from) + variant_.spec.weight_offset) : 1;
}

double NormStages::bias(Index j) const {
  return variant_.in.bias ? variant_.in.bias(variant_.bias_column ? variant_.bias_column(j) : j) : 0;
}

/// y of the normalised x h in column j.
double NormStages::scaled(double h, Index j) const {
  using enum NormVariant::Affine;
  const double offset = variant_.spec.weight_offset;
  if (variant_.affine == bias_then_weight) return weight(j) * (h + bias(j));
  if (variant_.affine == offset_after_weight) return (weight(j) - offset) * h + offset + bias(j);
  return at(product, weight(j) * h) + bias(j);
}

template <class TermOf>
double NormStages::sum(Index count, bool is_exact, TermOf term) const {
  std::vector<double> of_lane(std::max<Index>(variant_.lanes, 1));
  for (Index j = 0; j < count; ++j) {
    double& own = of_lane[variant_.lanes > 0 ? j / variant_.vector % variant_.lanes : 0];
    own = is_exact ? own + term(j) : at(running_sum, own + term(j));
  }
  if (variant_.merge == NormVariant::Merge::in_order)
    return std::accumulate(of_lane.begin(), of_lane.end(), 0.0);
  for (std::size_t n = of_lane.size() / 2; n > 0; n /= 2) {
    for (std::size_t t = 0; t < n; ++t) {
      const auto [a, b] =
          variant_.merge == NormVariant::Merge::halves ? std::pair{t, t + n} : std::pair{2 * t, 2 * t + 1};
      of_lane[t] = is_exact ? of_lane[a] + of_lane[b] : at(merged_sum, of_lane[a] + of_lane[b]);
    }
  }
  return of_lane.front();
}

double NormStages::mean_of(Index i) const {
  if (!variant_.spec.is_centred) return 0;
  if (variant_.in.mean) return at(mean, variant_.in.mean(i));
  const Index width = variant_.in.width();
  if (!variant_.merges_alike)
    return at(mean, sum(width, variant_.rounds_squares_only, [&](Index j) {
                      if (variant_.in_mean && !variant_.in_mean(j)) return 0.0;
                      return variant_.of_mean ? variant_.of_mean(i, j) : x(i, j);
                    }) / static_cast<double>(width));
  std::vector<double> sums(variant_.lanes), counts(variant_.lanes);
  for (Index j = 0; j < width; ++j) {
    const Index lane = j / variant_.vector % variant_.lanes;
    sums[lane] += x(i, j), counts[lane] += 1;
  }
  double mu = 0;
  for (Index lane = 0; lane < variant_.lanes; ++lane)
    if (counts[lane] > 0) mu += sums[lane] / counts[lane] / static_cast<double>(variant_.lanes);
  return at(mean, mu);
}

/// Squares about the mean of each lane, and of those means about theirs, as if the lanes were equally long.
double NormStages::variance_of_equal_lanes(Index i, double mu) const {
  const Index width = variant_.in.width();
  const double n = static_cast<double>(width);
  std::vector<double> sums(variant_.lanes), counts(variant_.lanes);
  double squares = 0;
  for (Index j = 0; j < width; ++j) {
    const Index lane = j / variant_.vector % variant_.lanes;
    const double d = x(i, j) - mu;
    sums[lane] += d, counts[lane] += 1, squares += d * d;
  }
  const double mean_count = n / static_cast<double>(variant_.lanes);
  for (Index lane = 0; lane < variant_.lanes; ++lane)
    if (counts[lane] > 0)
      squares += (mean_count - counts[lane]) * (sums[lane] / counts[lane]) * (sums[lane] / counts[lane]);
  return squares / n;
}

double NormStages::variance_of(Index i) const {
  const Index width = variant_.in.width(), summed = variant_.summed > 0 ? variant_.summed : width;
  const double n = static_cast<double>(width);
  const double mu = variant_.spec.is_centred ? at(mean_in_variance, mean_of(i)) : 0;
  if (variant_.merges_alike) return at(variance, variance_of_equal_lanes(i, mu));
  const double centre = variant_.is_one_pass ? 0 : mu;
  const double squares = static_cast<double>(variant_.padding) * centre * centre +
                         sum(summed, variant_.rounds_x_only, [&](Index j) {
                           if (variant_.in_variance && !variant_.in_variance(j)) return 0.0;
                           const double c = at(centred, x(i, j) - centre);
                           return at(square, c * c);
                         });
  return at(variance, at(sum_of_squares, squares) / n - (mu - centre) * (mu + centre));
}

double NormStages::rstd_of(Index i) const {
  if (variant_.in.rstd) return at(rstd, variant_.in.rstd(i));
  double v = 0;
  if (variant_.tile > 0 && variant_.shared == NormVariant::Shared::variance) {
    const Index first = i / variant_.tile * variant_.tile,
                last = std::min(first + variant_.tile, variant_.in.rows());
    for (Index row = first; row < last; ++row) v += variance_of(row) / static_cast<double>(last - first);
  } else {
    v = variance_of(i);
  }
  return at(rstd, 1 / std::sqrt(at(variance_and_eps, v + variant_.spec.eps)));
}

NormStages::Statistics NormStages::statistics(Index i) const {
  const auto shifted = [&](Index by) { return std::clamp(i + by, Index{0}, variant_.in.rows() - 1); };
  if (variant_.tile > 0 && variant_.shared != NormVariant::Shared::variance) {
    const Index first = i / variant_.tile * variant_.tile;
    const bool is_first = variant_.shared == NormVariant::Shared::first_row;
    const Index row = is_first ? first : std::min(first + variant_.tile, variant_.in.rows()) - 1;
    return {mean_of(i), rstd_of(row)};
  }
  return {at(stored_mean, mean_of(shifted(variant_.mean_row))), rstd_of(shifted(variant_.rstd_row))};
}

void NormStages::row(Index i, const Statistics& s, View<double, 1> y, View<double, 1> dx) const {
  const NormInputs& in = variant_.in;
  const Index width = in.width();
  const double mu = variant_.spec.is_centred ? at(mean_in_y, s.mean) : 0;
  const double factor_of_y = at(rstd_in_y, s.rstd);
  for (Index j = 0; j < width; ++j) {
    double h = at(xhat, ((is_read(j) ? in.x(i, j) : 0) - mu) * factor_of_y);
    if (variant_.spec.xhat_dtype) h = round_to(h, *variant_.spec.xhat_dtype);
    y(j) = at(NormStage::y, scaled(h, j));
  }
  if (!dx) return;
  double sum_gx = 0, sum_g = 0;
  for (Index j = 0; j < width; ++j) {
    const double of_gx = at(g, at(weight_in_mean_gx, weight(j)) * dy_(i, j));
    sum_gx += of_gx * at(xhat_in_dx, (in.x(i, j) - s.mean) * at(rstd_in_mean_gx, s.rstd));
    sum_g += at(g, at(weight_in_mean_g, weight(j)) * dy_(i, j));
  }
  const double n = static_cast<double>(width), of_gx = at(mean_gx, sum_gx / n);
  const double of_g = variant_.spec.is_centred ? at(mean_g, sum_g / n) : 0;
  const double factor = at(rstd_in_dx, s.rstd);
  for (Index j = 0; j < width; ++j) {
    const double h = at(xhat_in_dx, (in.x(i, j) - s.mean) * at(rstd_in_dx_xhat, s.rstd));
    const double direct = at(g, weight(j) * dy_(i, j));
    dx(j) = at(dx_direct, factor * direct) - at(dx_through_means, factor * (of_g + h * of_gx));
  }
}

double NormStages::dweight_term(Index i, Index j, const Statistics& s) const {
  const double mu = variant_.spec.is_centred ? at(mean_in_dweight, s.mean) : 0;
  return dy_(i, j) * at(xhat_in_dweight, (variant_.in.x(i, j) - mu) * at(rstd_in_dweight, s.rstd));
}

}  // namespace attest
