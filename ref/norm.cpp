// RMSNorm and LayerNorm, forward and backward, in plain loops.
#include "ref/norm.hpp"

#include <cmath>

#include "core/array.hpp"

namespace attest::ref {
namespace {

double weight_at(const NormSpec& spec, const NormInputs& in, Index j) {
  return in.weight ? in.weight(j) + spec.weight_offset : 1;
}

double normalised(const NormInputs& in, const NormStats& stats, Index i, Index j) {
  return (in.x(i, j) - stats.mean) * stats.rstd;
}

}  // namespace

NormStats norm_stats(const NormSpec& spec, View<const double, 1> x) {
  const Index width = x.extent(0);
  const double n = static_cast<double>(width);
  double mean = 0;
  if (spec.is_centred) {
    for (Index j = 0; j < width; ++j) mean += x(j);
    mean /= n;
  }
  double squares = 0;
  for (Index j = 0; j < width; ++j) squares += (x(j) - mean) * (x(j) - mean);
  return {mean, 1 / std::sqrt(squares / n + spec.eps)};
}

NormStats norm_stats(const NormSpec& spec, const NormInputs& in, Index i) {
  if (!in.rstd) return norm_stats(spec, in.x.slice(i));
  return {spec.is_centred && in.mean ? in.mean(i) : 0, in.rstd(i)};
}

void norm_row(const NormSpec& spec, const NormInputs& in, const NormStats& stats, Index i,
              View<double, 1> y) {
  for (Index j = 0; j < in.width(); ++j) {
    double xhat = normalised(in, stats, i, j);
    if (spec.xhat_dtype) xhat = round_to(xhat, *spec.xhat_dtype);
    y(j) = weight_at(spec, in, j) * xhat;
    if (in.bias) y(j) += in.bias(j);
  }
}

void norm_backward_row(const NormSpec& spec, const NormInputs& in, View<const double, 2> dy,
                       const NormStats& stats, Index i, View<double, 1> dx) {
  const double n = static_cast<double>(in.width());
  double mean_g = 0, mean_gx = 0;
  for (Index j = 0; j < in.width(); ++j) {
    const double g = weight_at(spec, in, j) * dy(i, j);
    if (spec.is_centred) mean_g += g;
    mean_gx += g * normalised(in, stats, i, j);
  }
  mean_g /= n;
  mean_gx /= n;
  for (Index j = 0; j < in.width(); ++j) {
    const double g = weight_at(spec, in, j) * dy(i, j);
    dx(j) = stats.rstd * (g - mean_g - normalised(in, stats, i, j) * mean_gx);
  }
}

NormWeightGradient norm_backward_column(const NormInputs& in, View<const double, 2> dy,
                                        View<const double, 1> mean, View<const double, 1> rstd, Index j) {
  NormWeightGradient sum{0, 0};
  for (Index i = 0; i < in.rows(); ++i) {
    sum.dweight += dy(i, j) * normalised(in, {mean(i), rstd(i)}, i, j);
    sum.dbias += dy(i, j);
  }
  return sum;
}

void norm(const NormSpec& spec, const NormInputs& in, View<const double, 2> dy, const NormOutputs& out) {
  Array<double, 1> mean({in.rows()}), rstd({in.rows()});
  for (Index i = 0; i < in.rows(); ++i) {
    const NormStats stats = norm_stats(spec, in, i);
    mean(i) = stats.mean;
    rstd(i) = stats.rstd;
    if (out.mean) out.mean(i) = stats.mean;
    if (out.rstd) out.rstd(i) = stats.rstd;
    if (out.y) norm_row(spec, in, stats, i, out.y.slice(i));
    if (out.dx) norm_backward_row(spec, in, dy, stats, i, out.dx.slice(i));
  }
  for (Index j = 0; j < in.width() && (out.dweight || out.dbias); ++j) {
    const NormWeightGradient sum = norm_backward_column(in, dy, mean.view(), rstd.view(), j);
    if (out.dweight) out.dweight(j) = sum.dweight;
    if (out.dbias) out.dbias(j) = sum.dbias;
  }
}

}  // namespace attest::ref
