// Exact values and bounds of everything that a normalisation writes: the statistics and y.
#include "verify/bounds/norm.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "verify/bounds/norm_backward.hpp"

namespace attest::bounds {

NormForwardRow::Element NormForwardRow::element(const NormRow& row, double x, Index j) const {
  const NormSpec& spec = rows_.spec();
  const Roundings& roundings = rows_.roundings();
  const DoubleDouble weight = norm_weight(spec, in_, j), xhat = row.xhat(x);
  const DoubleDouble met = spec.xhat_dtype ? DoubleDouble(round_to(xhat.hi, *spec.xhat_dtype)) : xhat;
  const DoubleDouble z = weight * met;
  const double w = std::abs(weight.hi), size = std::abs(met.hi);
  Element e{};
  e.y = in_.bias ? z + in_.bias(j) : z;
  e.y_without_bias = z.hi;
  const double y_size = std::abs(e.y.hi);
  const double products = (in_.weight ? 1 : 0) + (in_.weight && spec.weight_offset != 0 ? 1 : 0);
  // Equation (16).
  const auto error = [&](const StatsError& stats, const Rounding& r) {
    const double before = rows_.stored_xhat_error(xhat.hi, rows_.xhat_error(row, stats, r, x));
    if (!std::isfinite(before)) return before;
    const double g = gamma(products, r.u);
    double product = w * (g * size + (1 + g) * before) + (products > 0 ? r.flush : 0);
    // Of a cast xhat, the product may be stored in that type, too, as ONNX has it.
    if (in_.bias && spec.xhat_dtype && r.is_device)
      product += 0.5 * ulp(w * size + product, *spec.xhat_dtype);
    return in_.bias ? product * (1 + r.u) + r.u * y_size : product;
  };
  e.worst = error(row.worst, roundings.worst);
  e.probable = error(row.probable, roundings.probable);
  e.systematic = error(row.systematic, roundings.systematic);
  e.exact = error(row.exact, roundings.exact);
  e.reference = error(row.reference, roundings.reference);
  e.sigma = spec.xhat_dtype
                ? 0
                : w * roundings.worst.u * std::hypot(xhat.hi * row.rstd_sigma, row.rstd.hi * row.mean_sigma);
  return e;
}

void norm(const NormSpec& spec, const NormInputs& in, View<const double, 2> dy, const NormContract& contract,
          const NormOutputs& out, const std::function<void(double)>& progress) {
  const Index count = in.rows(), width = in.width();
  const NormRows rows(spec, contract, width, count * width);
  const Roundings& roundings = rows.roundings();
  const bool has_columns = out.dweight || out.dbias;
  std::vector<NormRow> all(has_columns ? count : 0);
  const double share = has_columns ? 0.6 : 1;
  const Index batch = std::max(Index{64}, count / 64);
  for (Index first = 0; first < count; first += batch) {
    const Index last = std::min(first + batch, count);
#pragma omp parallel
    {
      SumNoise noise(contract.compute);
      std::vector<double> x(width);
      const NormForwardRow forward(rows, in);
#pragma omp for schedule(dynamic, 4)
      for (Index i = first; i < last; ++i) {
        for (Index j = 0; j < width; ++j) x[j] = in.x(i, j);
        const NormRow row =
            in.rstd ? rows.given_row(spec.is_centred ? in.mean(i) : 0, in.rstd(i)) : rows.row(x, noise);
        if (has_columns) all[i] = row;
        if (out.mean) {
          write(out.mean, row.mean.hi, row.worst.mean, row.probable.mean, row.mean_sigma * roundings.worst.u,
                row.exact.mean, row.reference.mean, i);
        }
        if (out.rstd) {
          const double r = row.rstd.hi;
          write(out.rstd, r, r * row.worst.rstd, r * row.probable.rstd,
                r * row.rstd_sigma * roundings.worst.u, r * row.exact.rstd, r * row.reference.rstd, i);
        }
        for (Index j = 0; out.y && j < width; ++j) {
          const NormForwardRow::Element e = forward.element(row, x[j], j);
          write(out.y, e.y.hi, e.worst, e.probable, e.sigma, e.exact, e.reference, i, j);
        }
        if (out.dx) norm_backward_row(rows, row, in, dy, i, noise, out.dx);
      }
    }
    progress(share * static_cast<double>(last) / static_cast<double>(count));
  }
  if (has_columns) norm_backward_columns(rows, all, in, dy, out);
  progress(1);
}

}  // namespace attest::bounds
