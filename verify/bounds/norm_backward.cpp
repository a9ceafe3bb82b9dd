// Exact values and bounds of the gradients of a normalisation.
#include "verify/bounds/norm_backward.hpp"

#include <algorithm>
#include <cmath>

#include "verify/bounds/arithmetic.hpp"

namespace attest::bounds {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

/// What the backward pass reads of the statistics: those of the forward pass, once more rounded if the device
/// keeps them in a narrower type.
StatsError saved(const NormRows& rows, const NormRow& row, StatsError e, const Rounding& r) {
  if (!r.is_device) return e;
  const double rstd = rows.contract().saved_rounding_of_rstd;
  e.rstd += rstd + e.rstd * rstd;
  e.mean += rows.contract().saved_rounding_of_mean * (std::abs(row.mean.hi) + e.mean);
  return e;
}

/// factor * x, 0 for x = 0 even if nothing is promised of the factor.
double times(double factor, double x) {
  return x == 0 ? 0 : factor * x;
}

/// Half the spacing of the type that the gradient of a rounded xhat has; 0 if xhat is not rounded.
double half_store(const NormSpec& spec, double g) {
  return spec.xhat_dtype ? 0.5 * ulp(g, *spec.xhat_dtype) : 0;
}

/// Everything about one row that its elements share.
class BackwardRow {
 public:
  BackwardRow(const NormRows& rows, const NormRow& row, const NormInputs& in, View<const double, 2> dy,
              Index i, SumNoise& noise)
      : rows_(rows), row_(row), in_(in), dy_(dy), i_(i), n_(static_cast<double>(in.width())) {
    const NormSpec& spec = rows.spec();
    const double rstd = row.rstd.hi, mean = std::abs(row.mean.hi);
    std::vector<double> g_terms(in.width()), gx_terms(in.width());
    for (Index j = 0; j < in.width(); ++j) {
      const double x = in.x(i, j);
      const DoubleDouble g = g_of(j), xhat = row.xhat(x), gx = g * xhat;
      const double size = std::abs(g.hi), store = half_store(spec, g.hi);
      mean_g_ = mean_g_ + g;
      c_ = c_ + gx;
      g_magnitude_ += size;
      gx_magnitude_ += rows.is_one_pass() ? size * rstd * (std::abs(x) + mean) : std::abs(gx.hi);
      if (spec.is_centred) folded_ += size * (std::abs(x) + mean);
      stored_ += std::abs(xhat.hi) * store;
      stored_variance_ += xhat.hi * xhat.hi * store * store / 3;
      g_stored_ += store;
      g_stored_variance_ += store * store / 3;
      g_terms[j] = g.hi;
      gx_terms[j] = rows.is_one_pass() ? g.hi * rstd * x : gx.hi;
    }
    c_ = c_ / n_;
    mean_g_ = spec.is_centred ? mean_g_ / n_ : DoubleDouble(0);
    for (double* sum : {&g_magnitude_, &gx_magnitude_, &folded_, &stored_, &g_stored_}) *sum /= n_;
    stored_sigma_ = std::sqrt(stored_variance_) / n_;
    g_stored_sigma_ = std::sqrt(g_stored_variance_) / n_;
    if (!row.is_in_range) return;
    c_sigma_ = std::sqrt(noise.variance(gx_terms)) / n_;
    if (spec.is_centred) g_sigma_ = std::sqrt(noise.variance(g_terms)) / n_;
  }

  DoubleDouble value(Index j) const { return row_.rstd * inner(j); }

  /// Errors that one reader makes in c = mean(g xhat) and in mean(g). Equations (18) and (19).
  struct Means {
    StatsError stats;
    double c, g;
  };
  Means means(const StatsError& of_forward, const Rounding& r) const {
    Means e{saved(rows_, row_, of_forward, r), infinity, infinity};
    if (!std::isfinite(e.stats.rstd)) return e;
    const double rstd = row_.rstd.hi, growth = 1 + e.stats.rstd, c = std::abs(c_.hi),
                 mean_g = std::abs(mean_g_.hi);
    const double shift = rows_.spec().is_centred ? rstd * e.stats.mean : 0;
    e.c = growth * (shift * mean_g + 2 * r.u * rstd * folded_ + average(r, stored_, stored_sigma_) +
                    r.sum_error(n_, 8 + r.input / r.u, gx_magnitude_ + shift * g_magnitude_, c_sigma_)) +
          e.stats.rstd * c;
    e.g = 0;
    if (rows_.spec().is_centred) {
      e.g = average(r, g_stored_, g_stored_sigma_) + r.sum_error(n_, 5, g_magnitude_, g_sigma_);
    }
    return e;
  }

  /// Error of dx before the store. Equations (20) and (21).
  double error(const Means& e, const Rounding& r, Index j) const {
    const double u = r.u, x = in_.x(i_, j), xhat = std::abs(row_.xhat(x).hi), g = std::abs(g_of(j).hi);
    if (!std::isfinite(e.c)) return infinity;
    const double xhat_error = rows_.xhat_error(row_, e.stats, r, x);
    const double g_error = gamma(2, u) * g + (r.is_device ? half_store(rows_.spec(), g) : 0);
    const double c = std::abs(c_.hi), product = (xhat + xhat_error) * (c + e.c);
    double inner_error = g_error + e.g + xhat * e.c + xhat_error * (c + e.c) +
                         4 * u * (g + g_error + std::abs(mean_g_.hi) + e.g + product);
    // b x + a with b = -rstd c and a = -b mean in place of (x - mean) b.
    if (rows_.is_one_pass())
      inner_error += 3 * u * row_.rstd.hi * (std::abs(x) + std::abs(row_.mean.hi)) * (c + e.c);
    const double relative = e.stats.rstd + u + e.stats.rstd * u;
    return row_.rstd.hi * (relative * std::abs(inner(j).hi) + (1 + relative) * inner_error) +
           r.flush * (1 + row_.rstd.hi);
  }

  double sigma(Index j) const {
    const double u = rows_.roundings().worst.u, xhat = row_.xhat(in_.x(i_, j)).hi;
    return row_.rstd.hi * u * std::hypot(xhat * c_sigma_, g_sigma_, inner(j).hi * row_.rstd_sigma);
  }

 private:
  DoubleDouble g_of(Index j) const { return norm_weight(rows_.spec(), in_, j) * dy_(i_, j); }
  DoubleDouble inner(Index j) const { return g_of(j) - mean_g_ - row_.xhat(in_.x(i_, j)) * c_; }

  /// The mean of roundings that are at most `worst` on average.
  static double average(const Rounding& r, double worst, double sigma) {
    if (!r.is_device) return 0;
    return std::isinf(r.lambda) ? worst : std::min(worst, r.lambda * sigma);
  }

  const NormRows& rows_;
  const NormRow& row_;
  const NormInputs& in_;
  View<const double, 2> dy_;
  Index i_;
  double n_;
  DoubleDouble c_, mean_g_;
  double g_magnitude_ = 0, gx_magnitude_ = 0, folded_ = 0, stored_ = 0, g_stored_ = 0;
  double stored_variance_ = 0, g_stored_variance_ = 0, stored_sigma_ = 0, g_stored_sigma_ = 0;
  double c_sigma_ = 0, g_sigma_ = 0;
};

/// How many rows share the errors of one: rows with the same statistics may be equal, and err alike.
double repetition(const std::vector<NormRow>& all) {
  std::vector<double> rstd;
  for (const NormRow& row : all) rstd.push_back(row.rstd.hi);
  SumNoise noise(DType::float64);
  return noise.multiplicity(rstd);
}

}  // namespace

void norm_backward_row(const NormRows& rows, const NormRow& row, const NormInputs& in,
                       View<const double, 2> dy, Index i, SumNoise& noise, const NormOutput<2>& dx) {
  const BackwardRow backward(rows, row, in, dy, i, noise);
  const Roundings& r = rows.roundings();
  const auto worst = backward.means(row.worst, r.worst), probable = backward.means(row.probable, r.probable);
  const auto exact = backward.means(row.exact, r.exact),
             reference = backward.means(row.reference, r.reference);
  for (Index j = 0; j < in.width(); ++j) {
    write(dx, backward.value(j).hi, backward.error(worst, r.worst, j),
          backward.error(probable, r.probable, j), backward.sigma(j), backward.error(exact, r.exact, j),
          backward.error(reference, r.reference, j), i, j);
  }
}

void norm_backward_columns(const NormRows& rows, const std::vector<NormRow>& all, const NormInputs& in,
                           View<const double, 2> dy, const NormOutputs& out) {
  const Roundings& r = rows.roundings();
  const double u = r.worst.u, count = static_cast<double>(in.rows()), repeats = repetition(all);
  const double lambda = confidence_multiplier(in.width());
  const bool averages_out = count * u <= 0.125 && std::isfinite(r.probable.lambda);
  struct Sums {
    double worst = 0, systematic = 0, exact = 0, reference = 0;  // of the errors of the terms
  };
#pragma omp parallel
  {
    SumNoise noise(rows.contract().compute);
    std::vector<double> weight_terms(in.rows()), bias_terms(in.rows());
#pragma omp for schedule(dynamic, 8)
    for (Index j = 0; j < in.width(); ++j) {
      DoubleDouble dweight, dbias;
      Sums errors;
      double magnitude = 0, bias_magnitude = 0, variance = 0, stored = 0;
      bool is_in_range = true;
      for (Index i = 0; i < in.rows(); ++i) {
        const NormRow& row = all[i];
        const double x = in.x(i, j), d = std::abs(dy(i, j));
        const DoubleDouble xhat = row.xhat(x), term = xhat * dy(i, j);
        is_in_range = is_in_range && row.is_in_range;
        dweight = dweight + term;
        dbias = dbias + dy(i, j);
        magnitude += std::abs(term.hi);
        bias_magnitude += d;
        weight_terms[i] = term.hi;
        bias_terms[i] = dy(i, j);
        const auto error = [&](const StatsError& stats, const Rounding& rounding) {
          return times(rows.xhat_error(row, saved(rows, row, stats, rounding), rounding, x), d);
        };
        errors.worst += error(row.worst, r.worst);
        errors.systematic += error(row.systematic, r.systematic);
        errors.exact += error(row.exact, r.exact);
        errors.reference += error(row.reference, r.reference);
        variance += repeats * d * d * u * u *
                    (xhat.hi * xhat.hi * row.rstd_sigma * row.rstd_sigma +
                     row.rstd.hi * row.rstd.hi * row.mean_sigma * row.mean_sigma);
        // A kernel may multiply dy with the rounded xhat, and round the product to that type.
        if (rows.spec().xhat_dtype) {
          const double store = d * half_store(rows.spec(), xhat.hi) + half_store(rows.spec(), term.hi);
          stored += store;
          variance += repeats * store * store / 3;
        }
      }
      if (out.dweight) {
        const double sum = gamma(count + 2, u);
        const double worst =
            times(1 + sum, errors.worst + stored) + times(sum, magnitude) + r.worst.flush * count;
        const double sigma = is_in_range ? std::sqrt(variance + u * u * noise.variance(weight_terms)) : 0;
        const double probable = averages_out && is_in_range
                                    ? std::min(worst, errors.systematic + gamma(2, u) * magnitude +
                                                          lambda * sigma + r.worst.flush * count)
                                    : worst;
        const double exact = errors.exact * 2 + gamma(count + 2, 0x1p-100) * magnitude;
        const double reference = errors.reference * 2 + gamma(count + 2, 0x1p-53) * magnitude;
        write(out.dweight, dweight.hi, worst, probable, sigma, exact, reference, j);
      }
      if (out.dbias) {
        const double worst = times(gamma(count + 2, u), bias_magnitude);
        const double sigma = u * std::sqrt(noise.variance(bias_terms));
        const double probable =
            averages_out ? std::min(worst, gamma(2, u) * bias_magnitude + lambda * sigma) : worst;
        write(out.dbias, dbias.hi, worst, probable, sigma, gamma(count + 2, 0x1p-100) * bias_magnitude,
              gamma(count + 2, 0x1p-53) * bias_magnitude, j);
      }
    }
  }
}

}  // namespace attest::bounds
