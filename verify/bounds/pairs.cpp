// Blocks of (query row, key) pairs of the backward pass.
#include "verify/bounds/pairs.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace attest::bounds {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

}  // namespace

void PairRows::fill(Index h, Index i, PairRow& row) {
  row.p.assign(head_.keys, {});
  row.ds.assign(head_.keys, {});
  row.gradient.assign(head_.keys, {});
  const double lse = saved_.lse(h, i);
  if (lse == -infinity) {
    fill_empty(row);
    return;
  }
  scores_.compute(spec_, in_, head_, arithmetic_, h, i);
  row.first = scores_.first;
  row.last = scores_.last;
  fill_delta(h, i, row);
  dp_.compute(d_o_.data(), head_.v_width, head_.v_columns.data(), head_.keys, row.first, row.last);
  for (Index j = row.first; j < row.last; ++j) {
    if (!vanishes(scores_.s[j], scores_.error[j], lse, saved_.lse_worst(h, i), arithmetic_.u)) continue;
    scores_.s[j] = -infinity;
    fill_vanished(j, row);
  }
  fill_exponents(lse, saved_.lse_worst(h, i), row);
  if (arithmetic_.score_store) add_stores_to_delta(row);
  for (Index j = row.first; j < row.last; ++j) {
    if (scores_.s[j] != -infinity) fill_pair(lse, saved_.lse_systematic(h, i), j, row);
  }
}

// p = e^(s - lse). Nothing is normalised here, so that the error of the exponent counts in full.
void PairRows::fill_exponents(double lse, double lse_worst, const PairRow& row) {
  const Arithmetic& a = arithmetic_;
  for (auto* x : {&p_, &exponent_worst_, &growth_}) x->assign(padded(head_.keys), 0);
  for (Index j = row.first; j < row.last; ++j) {
    const double s = scores_.s[j];
    if (s == -infinity) continue;
    p_[j] = s - lse;
    exponent_worst_[j] = scores_.error[j] + 4 * a.u * (std::abs(s) + std::abs(lse)) + a.exp_error + lse_worst;
  }
  const Index first = row.first / lanes * lanes, count = padded(row.last) - first;
  vector_kernels().exp(p_.data() + first, p_.data() + first, count);
  vector_kernels().expm1(exponent_worst_.data() + first, growth_.data() + first, count);
}

// Kernels that store do.v form delta from these: as the sum of P do.v.
void PairRows::add_stores_to_delta(PairRow& row) const {
  double worst = 0, variance = 0;
  for (Index j = row.first; j < row.last; ++j) {
    if (scores_.s[j] == -infinity) continue;
    const double dp = dp_.sum[j], p = p_[j], stored_p = arithmetic_.p_unit * p * std::abs(dp);
    worst +=
        p * (1 + growth_[j]) * arithmetic_.score_store_worst(dp, dp_sum_.worst * dp_.magnitude[j]) + stored_p;
    variance += p * p * arithmetic_.score_store_variance(dp) + mean_square_rounding * stored_p * stored_p;
  }
  row.delta_worst += worst;
  row.delta_variance += variance;
  row.delta_rest += variance;
}

// As of a masked key, but for kernels that keep their exponentials above 0.
void PairRows::fill_vanished(Index j, PairRow& row) const {
  const double flush = arithmetic_.flush;
  const double dp = std::abs(dp_.sum[j] - row.delta) + dp_sum_.worst * dp_.magnitude[j] + row.delta_worst;
  row.p[j].worst = row.p[j].systematic = flush;
  row.gradient[j].worst = row.ds[j].worst = row.ds[j].systematic = flush * (1 + dp);
}

// A row that may attend to no key: its scores are constants, so that nothing reaches q and k.
void PairRows::fill_empty(PairRow& row) const {
  row.first = row.last = 0;
  row.delta = row.delta_worst = row.delta_variance = row.delta_shift = row.delta_rest = 0;
  if (spec_.empty_row == EmptyRow::zero) return;
  row.last = head_.keys;
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double keys = static_cast<double>(in_.sequence_keys());
  for (Index j = 0; j < head_.keys; ++j) {
    if (spec_.empty_row == EmptyRow::nan) {
      row.p[j].value = row.ds[j].value = row.gradient[j].value = nan;
    } else {
      const double worst = gamma(keys + 6, arithmetic_.u) / keys;
      row.p[j] = stored({1 / keys, worst, 0, worst}, arithmetic_.p_half_subnormal);
    }
  }
}

void PairRows::fill_delta(Index h, Index i, PairRow& row) {
  const Index width = head_.v_width;
  d_o_.resize(width);
  double magnitude = 0, inherited = 0;  // inherited: from what o may have been when the device formed do . o
  row.delta = row.delta_variance = 0;
  for (Index e = 0; e < width; ++e) {
    const double g = d_o_[e] = saved_.d_o(h, i, e);
    row.delta += g * saved_.o(h, i, e);
    magnitude += std::abs(g * saved_.o(h, i, e));
    inherited += std::abs(g) * saved_.o_worst(h, i, e);
    const double spread = std::hypot(saved_.o_sigma(h, i, e), saved_.o_systematic(h, i, e));
    row.delta_variance += g * g * spread * spread;
  }
  const double n = static_cast<double>(width), u = arithmetic_.u;
  const double additions = mean_square_rounding * u * u * n * magnitude * magnitude / 3;
  row.delta_variance += additions;
  const double shift = saved_.delta_shift(h, i);
  row.delta_shift = std::isnan(shift) ? 0 : shift;
  row.delta_rest = std::isnan(shift) ? row.delta_variance : additions;
  row.delta_worst = gamma(n, u) * (magnitude + inherited) + inherited;
}

double PairRows::rounded(double x) const {
  return std::abs(x) <= largest_stored_ ? grid_.round(x) : x;
}

Factor PairRows::stored(Factor f, double eta) const {
  if (arithmetic_.p_is_rounded) {
    const double spacing = std::max(grid_.spacing(f.value), 2 * eta);
    // An error before the store may turn a known rounding error into its neighbour.
    const double before = std::sqrt(f.rest) + f.systematic;
    f.rest += std::min(spacing * spacing / 6, spacing * before);
    f.worst += std::max(arithmetic_.p_unit * (std::abs(f.value) + f.worst), eta);
    f.variance += spacing * spacing / 12;
    std::fill_n(f.predicted, store_variants, rounded(f.value) - f.value);
  }
  f.spread = std::sqrt(f.variance);
  return f;
}

// Equations (16) and (17).
void PairRows::fill_pair(double lse, double lse_systematic, Index j, PairRow& row) const {
  const Arithmetic& a = arithmetic_;
  const double u = a.u, c2u2 = mean_square_rounding * u * u;
  const double s = scores_.s[j], x = dp_.sum[j] - row.delta, p = p_[j], scale = std::abs(spec_.scale);
  const ProductSums& qk = scores_.products;

  const double ends = std::abs(s) + std::abs(lse);
  const double exponent_variance = scores_.variance[j] + c2u2 * (2 * s * s + lse * lse);
  // Neighbouring scores have neighbouring tanhs, whose errors may be alike.
  const double capped = spec_.softcap * std::sqrt(std::max(0.0, 1 - scores_.slope[j]));
  const double exponent_systematic = a.exp_error + u * ends + a.tanh_relative * capped +
                                     exponent_variance / 2 +
                                     scale * scores_.slope[j] * qk.truncation(j, head_.qk_width, qk_sum_) +
                                     u * std::abs(scores_.tangent[j]) + lse_systematic;
  const double p_variance = p * p * exponent_variance;  // before its store
  row.p[j] =
      stored({p, p * growth_[j] + a.flush, p_variance, p * exponent_systematic + a.flush, 0, p_variance},
             a.p_half_subnormal);

  // dS = P (dP - delta). P may be the weight as computed or as stored: some kernels keep only the latter.
  const double dp = dp_.sum[j], dp_before = dp_sum_.worst * dp_.magnitude[j];
  const double dp_worst = dp_before + a.score_store_worst(dp, dp_before);
  const double difference = dp_worst + row.delta_worst + 2 * u * (std::abs(x) + dp_worst + row.delta_worst);
  const double dp_variance = dp_.variance(j, head_.v_width, dp_sum_) + a.score_store_variance(dp);
  const double ds = p * x;
  row.gradient[j] = {ds, row.p[j].worst * (std::abs(x) + difference) + p * difference + a.flush};

  // A kernel that stores what it computes does so with dS before the scale, and before every step of the
  // softcap's derivative.
  const int stores = (is_power_of_two(scale) ? 0 : 1) + (spec_.softcap > 0 ? 3 : 0);
  const double slope = scores_.slope[j],
               slope_error = scores_.slope_error[j] + (spec_.softcap > 0 ? 3 * a.score_store_worst(1, 0) : 0);
  const double worst = row.gradient[j].worst * (slope + slope_error) + std::abs(ds) * slope_error +
                       (spec_.softcap > 0 ? 2 * u * (std::abs(ds) + row.gradient[j].worst) : 0) +
                       stores * a.score_store_worst(ds, row.gradient[j].worst);
  const auto variance_with = [&](double of_p, double of_delta) {
    return slope * slope * (of_p * x * x + 2 * c2u2 * ds * ds + p * p * (dp_variance + of_delta)) +
           stores * a.score_store_variance(ds);
  };
  const double systematic =
      slope * (std::abs(ds) * exponent_systematic + p * dp_.truncation(j, head_.v_width, dp_sum_)) +
      std::abs(ds) * slope_error + a.flush * (1 + std::abs(x));
  // A kernel that multiplies by the scale before it stores dS, or by the scale over the softcap as
  // FlashAttention does, meets the subnormals earlier.
  const double unit = spec_.softcap > 0 ? std::min(scale, scale / spec_.softcap) : scale;
  const double eta = a.p_half_subnormal * std::max(1.0, scale > 0 ? 1 / unit : 1.0);
  Factor& stored_ds = row.ds[j] =
      stored({ds * slope, worst, variance_with(row.p[j].variance, row.delta_variance), systematic, 0,
              variance_with(p_variance, row.delta_rest)},
             eta);
  // Seldom is another number of P's format stored than predicted; then dS is that far off.
  stored_ds.rest += slope * slope * x * x * (row.p[j].rest - p_variance);
  if (!a.p_is_rounded || scale == 0) return;
  // As computed or times the scale, from the weight as computed or as stored; or times scale / softcap.
  const double exact = ds * slope, seen = (x - row.delta_shift) * slope;
  const double of_computed = p * seen, of_stored = rounded(p) * seen;
  stored_ds.predicted[0] = rounded(of_computed) - exact;
  stored_ds.predicted[1] = rounded(of_computed * scale) / scale - exact;
  stored_ds.predicted[2] = rounded(of_stored) - exact;
  stored_ds.predicted[3] = spec_.softcap > 0 ? rounded(of_computed * unit) / unit - exact
                                             : rounded(of_stored * scale) / scale - exact;
}

}  // namespace attest::bounds
