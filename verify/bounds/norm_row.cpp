// One row of a normalisation: exact statistics, and how far a device may be from them.
#include "verify/bounds/norm_row.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "verify/bounds/arithmetic.hpp"

namespace attest::bounds {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

/// Below this a result may become 0 on a device. float16 units keep their subnormals.
double flush_of(DType dtype) {
  const Format& f = format_of(dtype);
  return f.emin > -126 ? ulp(0, dtype) / 2 : std::ldexp(1.0, f.emin);
}

/// 1 / sqrt(a), off by at most 2^-100 relative: one step of Newton squares the error of the start.
DoubleDouble inverse_root(DoubleDouble a) {
  const DoubleDouble start = 1 / std::sqrt(a.hi);
  return start + start * (DoubleDouble(1) - a * start * start) * 0.5;
}

}  // namespace

double Rounding::sum_error(double n, double extra, double magnitude, double sigma) const {
  if (magnitude == 0) return 0;
  const double rigorous = gamma(n + extra, u) * magnitude;
  if (std::isinf(lambda)) return rigorous;
  return std::min(rigorous, lambda * sigma * u + gamma(extra, u) * magnitude);
}

Roundings::Roundings(const NormSpec& spec, const NormContract& contract, Index width, Index elements) {
  const double u = unit_roundoff(contract.compute);
  const double eps_error = std::abs(round_to(spec.eps, contract.compute) - spec.eps);
  worst = {u, infinity, contract.sum_rounding, flush_of(contract.compute), eps_error, true};
  probable = systematic = worst;
  // Where so many roundings meet so few bits, sums stagnate and nothing averages out.
  const bool averages_out = static_cast<double>(width) * u <= 0.125;
  probable.lambda = averages_out ? confidence_multiplier(elements) : infinity;
  systematic.lambda = averages_out ? 0 : infinity;
  const double u64 = unit_roundoff(DType::float64), ours = contract.sum_rounding > 0 ? u64 : 0;
  exact = {0x1p-100, infinity, ours, 0, 0, false};
  reference = {u64, infinity, ours, flush_of(DType::float64), 0, false};
}

NormRows::NormRows(const NormSpec& spec, const NormContract& contract, Index width, Index elements)
    : spec_(spec),
      contract_(contract),
      roundings_(spec, contract, width, elements),
      width_(static_cast<double>(width)) {}

NormRow NormRows::row(std::span<const double> x, SumNoise& noise) const {
  NormRow row;
  const DoubleDouble n = width_;
  DoubleDouble sum, squares;
  double magnitude = 0;
  for (const double value : x) {
    sum = sum + value;
    magnitude += std::abs(value);
  }
  if (spec_.is_centred) row.mean = sum / n;
  std::vector<double> terms(x.size());
  for (std::size_t j = 0; j < x.size(); ++j) {
    const DoubleDouble c = row.centred(x[j]), square = c * c;
    squares = squares + square;
    terms[j] = square.hi;
  }
  const DoubleDouble variance = squares / n, a = variance + spec_.eps;
  row.variance = variance.hi;
  row.mean_magnitude = magnitude / width_;
  const double total = spec_.is_centred ? squares.hi + width_ * row.mean.hi * row.mean.hi : squares.hi;
  const double largest = format_of(contract_.compute).max;
  row.is_in_range = 2 * magnitude < largest && 2 * total < largest && a.hi > 0 && std::isfinite(a.hi);
  if (!row.is_in_range) {
    const bool is_finite = a.hi > 0 && std::isfinite(a.hi);
    row.rstd = is_finite ? inverse_root(a) : DoubleDouble(0);
    row.exact = is_finite ? stats_error(row, roundings_.exact) : StatsError{};
    row.worst = row.probable = row.systematic = {infinity, infinity};
    row.reference = is_finite ? stats_error(row, roundings_.reference) : row.worst;
    return row;
  }
  row.rstd = inverse_root(a);

  if (spec_.is_centred) row.mean_sigma = std::sqrt(noise.variance(x)) / width_;
  if (is_one_pass()) {
    for (std::size_t j = 0; j < x.size(); ++j) terms[j] = x[j] * x[j];
  }
  row.square_sigma = std::sqrt(noise.variance_of_positive(terms)) / width_;
  // What an error of the mean does to the variance: equations (11) and (12).
  const double through_mean = !spec_.is_centred ? 0
                              : is_one_pass()   ? 2 * std::abs(row.mean.hi)
                                                : 2 * std::sqrt(2 * row.variance);
  row.rstd_sigma = 0.5 * std::hypot(row.square_sigma, through_mean * row.mean_sigma) / a.hi;

  row.worst = stats_error(row, roundings_.worst);
  row.probable = stats_error(row, roundings_.probable);
  row.systematic = stats_error(row, roundings_.systematic);
  row.exact = stats_error(row, roundings_.exact);
  row.reference = stats_error(row, roundings_.reference);
  return row;
}

NormRow NormRows::given_row(double mean, double rstd) {
  NormRow row;
  row.mean = mean;
  row.rstd = rstd;
  return row;
}

StatsError NormRows::stats_error(const NormRow& row, const Rounding& r) const {
  StatsError e;
  const double n = width_, u = r.u, mu = std::abs(row.mean.hi), v = row.variance;
  const bool is_rigorous = std::isinf(r.lambda);
  double square = 0;  // error of the variance
  if (spec_.is_centred) {
    const double extra = (is_rigorous ? 6 * std::log2(n) + 6 : 3) + r.input / u;
    e.mean = r.sum_error(n, extra, row.mean_magnitude, row.mean_sigma) + r.flush;
    const double on_the_way = e.mean * (is_rigorous ? 1 + 6 / std::sqrt(n) : 1);
    if (is_one_pass()) {
      const double raw = v + mu * mu;
      square = r.sum_error(n, 6 + 2 * r.input / u, raw, row.square_sigma) + 2 * mu * e.mean +
               e.mean * e.mean + 2 * u * (raw + mu * mu);
    } else {
      square = r.sum_error(n, 6 + 2 * r.input / u, v + on_the_way * on_the_way, row.square_sigma) +
               2 * std::sqrt(2 * v) * on_the_way + on_the_way * on_the_way;
    }
  } else {
    square = r.sum_error(n, 4 + 2 * r.input / u, v, row.square_sigma);
  }
  const double a = v + spec_.eps;
  const double relative = (square + r.eps_error + 2 * r.flush) / a * (1 + u) + u;
  const double rsqrt = 4 * u;
  const double root = relative < 1 ? std::expm1(-0.5 * std::log1p(-relative)) : infinity;
  e.rstd = root + rsqrt + root * rsqrt;
  return e;
}

double NormRows::xhat_error(const NormRow& row, const StatsError& stats, const Rounding& r, double x) const {
  if (!std::isfinite(stats.rstd)) return infinity;
  const double d = std::abs(row.centred(x).hi), u = r.u, rstd = row.rstd.hi;
  double centred = r.input * std::abs(x);
  // Also for x rstd - mean rstd in place of (x - mean) rstd.
  if (spec_.is_centred)
    centred += stats.mean * (1 + u) + u * d + 2 * u * (std::abs(x) + std::abs(row.mean.hi));
  const double relative = stats.rstd + u + stats.rstd * u;
  return rstd * (relative * d + (1 + relative) * centred) + r.flush;
}

double NormRows::stored_xhat_error(double xhat, double error) const {
  return spec_.xhat_dtype ? rounded_error(xhat, error, *spec_.xhat_dtype) : error;
}

double rounded_error(double x, double error, DType dtype) {
  if (!(error > 0) || !std::isfinite(error)) return error;
  const double spacing = ulp(x, dtype), off = std::abs(round_to(x, dtype) - x);
  // Below a power of two the spacing is half of that above it, and so is the way to the boundary there.
  const double way = std::min(0.5 * spacing - off, 0.25 * spacing + off);
  return error < way ? 0 : error + ulp(std::abs(x) + error, dtype);
}

}  // namespace attest::bounds
