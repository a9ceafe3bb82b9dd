// The weights of one attention row, with the errors that a device makes before it multiplies them with V.
#include "verify/bounds/weights.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "verify/bounds/storage_grid.hpp"

namespace attest::bounds {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double below_one = 1 - 0x1p-53;
constexpr double mean_magnitude = 0.8;  // of normal noise, in standard deviations

}  // namespace

bool Weights::compute(const AttentionSpec& spec, const AttentionInputs& in, const Head& head,
                      const Arithmetic& arithmetic, Index h, Index i, const HeadErrors* errors) {
  scores.compute(spec, in, head, arithmetic, h, i, errors);
  if (!compute_exact(in, h)) return false;
  compute_exponent_errors(in, arithmetic, h);
  compute_stored(arithmetic);
  structure = weight_structure(p, l, arithmetic);
  if (structure.multiplicity > 1.1) {
    for (double& x : variance) x *= structure.multiplicity;
    for (double& x : store_variance) x *= structure.multiplicity;
  }
  stored_sum = stored_sum_variance = 0;
  for (Index c = 0; arithmetic.contract.row_sum_takes_stored_weights && c < count(); ++c) {
    stored_sum += store[c];
    stored_sum_variance += store_variance[c];
  }
  return true;
}

bool Weights::compute_exact(const AttentionInputs& in, Index h) {
  key.clear();
  for (Index j = scores.first; j < scores.last; ++j) {
    if (scores.s[j] != -infinity) key.push_back(j);
  }
  const auto gather = [this](const std::vector<double>& from, std::vector<double>& to) {
    to.resize(key.size());
    for (Index c = 0; c < count(); ++c) to[c] = from[key[c]];
  };
  gather(scores.s, score);
  gather(scores.tangent, tangent);
  gather(scores.drift, drift);
  const Index n = count();
  top = std::max_element(score.begin(), score.end()) - score.begin();
  m = in.sink ? in.sink(h) : -infinity;
  for (const double s : score) m = std::max(m, s);
  if (m == -infinity) return false;

  p.resize(padded(n));
  for (Index c = 0; c < n; ++c) p[c] = score[c] - m;
  std::fill(p.begin() + n, p.end(), 0.0);
  vector_kernels().exp(p.data(), p.data(), padded(n));
  p.resize(n);
  sink_p = in.sink ? std::exp(in.sink(h) - m) : 0;
  l = sink_p;
  for (const double weight : p) l += weight;
  for (double& weight : p) weight /= l;
  sink_p /= l;
  lse = m + std::log(l);
  return true;
}

// Equations (7) and (8).
ATTEST_VECTORISED
void Weights::compute_exponent_errors(const AttentionInputs& in, const Arithmetic& a, Index h) {
  const double tiles = a.tiles(count(), span());
  const double per_update = a.exps_per_tile * (a.exp_error + 2 * a.u);
  largest = std::abs(lse);
  for (const double s : score) largest = std::max(largest, std::abs(s));
  if (in.sink) largest = std::max(largest, std::abs(in.sink(h)));
  largest += scores.inherited_worst;
  shift = 2 * a.u * largest;
  // Rescaling errors of successive tiles partly cancel: the sum grows like ln T (harmonic numbers of new
  // maxima).
  update = std::min(tiles - 1, 3 * std::log(1 + tiles)) * per_update;
  split = 6 * a.u * largest + 2 * (a.log_error + a.log_relative * largest) + 2 * a.exp_error;

  const double common = 2 * shift + split + a.exp_error * a.exps_per_tile + (tiles - 1) * per_update;
  const double u2 = mean_square_rounding * a.u * a.u;
  const auto worst_of = [&](double s, double error) {
    return error + 4 * a.u * (m - s + 2 * scores.inherited_worst) + common;
  };
  const auto variance_of = [&](double s, double noise) {
    return noise + 4 * u2 * (m - s) * (m - s) + a.exp_error * a.exp_error / 3;
  };
  delta.resize(count());
  variance.resize(count());
  delta_max = 0;
  for (Index c = 0; c < count(); ++c) {
    delta[c] = worst_of(score[c], scores.error[key[c]]);
    variance[c] = variance_of(score[c], scores.variance[key[c]]);
    delta_max = std::max(delta_max, delta[c]);
  }
  sink_delta = in.sink ? worst_of(in.sink(h), 0) : 0;
  sink_variance = in.sink ? variance_of(in.sink(h), 0) : 0;
  delta_max = std::max(delta_max, sink_delta);
  growth.resize(padded(count()));
  std::fill(std::copy(delta.begin(), delta.end(), growth.begin()), growth.end(), 0.0);
  vector_kernels().expm1(growth.data(), growth.data(), padded(count()));
}

// The rounding errors of all weights together, where each is stored as the nearest number to weight / r with
// one r for the row: the largest over r. Only the place of r within a binade matters.
ATTEST_VECTORISED
double Weights::joint_store_variance(const Arithmetic& a) const {
  const StorageGrid grid(a.contract.p_dtype);
  constexpr int places = 8;
  double largest_sum = 0;
  for (int k = 0; k < places; ++k) {
    const double r = std::exp2(static_cast<double>(k) / places);
    double sum = 0;
    for (Index c = 0; c < count(); ++c) {
      const double spacing = r * grid.spacing(p[c] / r);
      sum += store_variance[c] > 0 ? spacing * spacing / 12 : 0;
    }
    largest_sum = std::max(largest_sum, sum);
  }
  return largest_sum;
}

// A device may store weights normalised (p) or relative to a running maximum (p l); the larger error counts.
ATTEST_VECTORISED
void Weights::compute_stored(const Arithmetic& a) {
  const Index n = count();
  for (auto* x : {&store, &store_variance, &predicted[0], &predicted[1], &predicted[2]}) x->resize(n);
  flipped = 0, joint = 1;
  if (!a.p_is_rounded) {
    for (auto* x : {&store, &store_variance, &predicted[0], &predicted[1], &predicted[2]}) x->assign(n, 0);
    return;
  }
  const StorageGrid grid(a.contract.p_dtype);
  const double u = a.p_unit, eta = a.p_half_subnormal;
  // Errors of an exponential that all keys share: anything up to the bound is as likely.
  const double common_variance = (shift * shift + a.exp_error * a.exp_error) / 3;

  // What normalisation may be off by, generously: phi of (10).
  const double shared = gamma(static_cast<double>(n) + a.tiles(n, span()), a.u) +
                        2 * (a.u * (2 * std::abs(lse) + 3) + a.log_error + a.exp_error +
                             gamma(a.most_splits, a.u) + a.log_relative * std::log(1 + a.most_splits));
  // Where the keys are visited in halves, the half without the largest score has a maximum of its own.
  const auto half = score.begin() + n / 2;
  const double half_max[2] = {half == score.begin() ? -infinity : *std::max_element(score.begin(), half),
                              half == score.end() ? -infinity : *std::max_element(half, score.end())};
  const Index lower = half_max[0] < half_max[1] ? 0 : 1;
  const double lower_l = std::isfinite(half_max[lower]) ? l * std::exp(m - half_max[lower]) : l;
  const Index lower_first = lower == 0 ? 0 : n / 2, lower_last = lower == 0 ? n / 2 : n;

  double kept = 0, flips = 0;
  for (Index c = 0; c < n; ++c) {
    const double weight = p[c], relative = weight * l;
    // The row's maximum is stored as 1, exactly: the spacing below 1 counts, however l was rounded.
    const double spacing = grid.spacing(weight),
                 relative_spacing = grid.spacing(std::min(relative, below_one)) / l;
    // A weight of 1, whether or not it is normalised, is stored as 1 by every kernel. Equation (10a).
    if (1 - weight <= 0x1p-13 * u && std::abs(relative - 1) <= 0x1p-13 * u && growth[c] + shared < 0.5 * u) {
      store[c] = 1 - weight;
      store_variance[c] = predicted[0][c] = predicted[1][c] = 0;
      continue;
    }
    store[c] = std::max(u * weight, eta);
    store_variance[c] = std::max(std::max(spacing * spacing, relative_spacing * relative_spacing) / 12,
                                 mean_square_rounding * u * u * weight * weight);
    const double error = mean_magnitude * weight * std::sqrt(variance[c] + common_variance),
                 widest = std::max(spacing, relative_spacing);
    kept += store_variance[c];
    flips += std::min(widest * widest / 6, widest * error);
    predicted[0][c] = grid.round(relative) / l - weight;
    predicted[1][c] = grid.round(weight) - weight;
  }
  flipped = kept > 0 ? std::min(1.0, flips / kept) : 0;
  joint = kept > 0 ? std::min(1.0, joint_store_variance(a) / kept) : 1;
  predicted[2] = predicted[0];
  for (Index c = lower_first; c < lower_last; ++c) {
    predicted[2][c] = grid.round(p[c] * lower_l) / lower_l - p[c];
  }
}

}  // namespace attest::bounds
