// A normalisation, step by step, by a kernel that errs.
#include "verify/ops/norm_stages.hpp"

#include <algorithm>
#include <cmath>

namespace attest {

using enum NormStage;

double NormStages::weight(Index j) const {
  const NormInputs& in = variant_.in;
  return in.weight ? at(NormStage::weight, in.weight(j) + variant_.spec.weight_offset) : 1;
}

double NormStages::mean_of(Index i) const {
  if (!variant_.spec.is_centred) return 0;
  if (variant_.in.mean) return at(mean, variant_.in.mean(i));
  double sum = 0;
  for (Index j = 0; j < variant_.in.width(); ++j) sum = at(running_sum, sum + variant_.in.x(i, j));
  return at(mean, sum / static_cast<double>(variant_.in.width()));
}

double NormStages::rstd_of(Index i) const {
  if (variant_.in.rstd) return at(rstd, variant_.in.rstd(i));
  const Index width = variant_.in.width(), summed = variant_.summed > 0 ? variant_.summed : width;
  const double mu = variant_.spec.is_centred ? at(mean_in_variance, mean_of(i)) : 0;
  double squares = static_cast<double>(variant_.padding) * mu * mu;
  for (Index j = 0; j < summed; ++j) {
    const double c = at(centred, variant_.in.x(i, j) - mu);
    squares = at(running_sum, squares + at(square, c * c));
  }
  const double v = at(variance, at(sum_of_squares, squares) / static_cast<double>(width));
  return at(rstd, 1 / std::sqrt(v + variant_.spec.eps));
}

NormStages::Statistics NormStages::statistics(Index i) const {
  const auto shifted = [&](Index by) { return std::clamp(i + by, Index{0}, variant_.in.rows() - 1); };
  return {at(stored_mean, mean_of(shifted(variant_.mean_row))), rstd_of(shifted(variant_.rstd_row))};
}

void NormStages::row(Index i, const Statistics& s, View<double, 1> y, View<double, 1> dx) const {
  const NormInputs& in = variant_.in;
  const Index width = in.width();
  const double mu = variant_.spec.is_centred ? at(mean_in_y, s.mean) : 0;
  const double factor_of_y = at(rstd_in_y, s.rstd);
  for (Index j = 0; j < width; ++j) {
    double h = at(xhat, (in.x(i, j) - mu) * factor_of_y);
    if (variant_.spec.xhat_dtype) h = round_to(h, *variant_.spec.xhat_dtype);
    y(j) = at(NormStage::y, at(product, weight(j) * h) + (in.bias ? in.bias(j) : 0));
  }
  if (!dx) return;
  double sum_gx = 0, sum_g = 0;
  for (Index j = 0; j < width; ++j) {
    const double of_gx = at(g, at(weight_in_mean_gx, weight(j)) * dy_(i, j));
    sum_gx += of_gx * (in.x(i, j) - s.mean) * s.rstd;
    sum_g += at(g, at(weight_in_mean_g, weight(j)) * dy_(i, j));
  }
  const double n = static_cast<double>(width), of_gx = at(mean_gx, sum_gx / n);
  const double of_g = variant_.spec.is_centred ? at(mean_g, sum_g / n) : 0;
  const double factor = at(rstd_in_dx, s.rstd);
  for (Index j = 0; j < width; ++j) {
    const double h = (in.x(i, j) - s.mean) * s.rstd, direct = at(g, weight(j) * dy_(i, j));
    dx(j) = at(dx_direct, factor * direct) - at(dx_through_means, factor * (of_g + h * of_gx));
  }
}

double NormStages::dweight_term(Index i, Index j, const Statistics& s) const {
  const double mu = variant_.spec.is_centred ? at(mean_in_dweight, s.mean) : 0;
  return dy_(i, j) * at(xhat_in_dweight, (variant_.in.x(i, j) - mu) * at(rstd_in_dweight, s.rstd));
}

}  // namespace attest
