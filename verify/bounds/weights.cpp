// The weights of one attention row, with the errors that a device makes before it multiplies them with V.
#include "verify/bounds/weights.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace attest::bounds {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

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
  return true;
}

bool Weights::compute_exact(const AttentionInputs& in, Index h) {
  top = 0;
  key.clear();
  tangent.clear();
  p.clear();
  m = in.sink ? in.sink(h) : -infinity;
  for (Index j = scores.first; j < scores.last; ++j) {
    if (scores.s[j] == -infinity) continue;
    if (key.empty() || scores.s[j] > scores.s[key[top]]) top = count();
    key.push_back(j);
    tangent.push_back(scores.tangent[j]);
    m = std::max(m, scores.s[j]);
  }
  if (m == -infinity) return false;

  sink_p = in.sink ? std::exp(in.sink(h) - m) : 0;
  l = sink_p;
  for (const Index j : key) {
    p.push_back(std::exp(scores.s[j] - m));
    l += p.back();
  }
  for (double& weight : p) weight /= l;
  sink_p /= l;
  lse = m + std::log(l);
  return true;
}

// Equations (7) and (8).
void Weights::compute_exponent_errors(const AttentionInputs& in, const Arithmetic& a, Index h) {
  const double tiles = a.tiles(count(), span());
  const double per_update = a.exps_per_tile * (a.exp_error + 2 * a.u);
  largest = std::abs(lse);
  for (const Index j : key) largest = std::max(largest, std::abs(scores.s[j]));
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
  delta.clear();
  variance.clear();
  drift.clear();
  delta_max = 0;
  for (const Index j : key) {
    delta.push_back(worst_of(scores.s[j], scores.error[j]));
    variance.push_back(variance_of(scores.s[j], scores.variance[j]));
    drift.push_back(scores.drift[j]);
    delta_max = std::max(delta_max, delta.back());
  }
  sink_delta = in.sink ? worst_of(in.sink(h), 0) : 0;
  sink_variance = in.sink ? variance_of(in.sink(h), 0) : 0;
  delta_max = std::max(delta_max, sink_delta);
}

// A device may store weights normalised (p) or relative to a running maximum (p l); the larger error counts.
void Weights::compute_stored(const Arithmetic& a) {
  const Index n = count();
  store.assign(n, 0);
  store_variance.assign(n, 0);
  for (auto& x : predicted) x.assign(n, 0);
  if (!a.p_is_rounded) return;
  const DType stored = a.contract.p_dtype;
  const double u = a.p_unit, eta = a.p_half_subnormal;

  // Where the keys are visited in halves, the half without the largest score has a maximum of its own.
  double half_max[2] = {-infinity, -infinity};
  for (Index c = 0; c < n; ++c) half_max[c >= n / 2] = std::max(half_max[c >= n / 2], scores.s[key[c]]);
  const Index lower_half = half_max[0] < half_max[1] ? 0 : 1;
  const double lower_l = std::isfinite(half_max[lower_half]) ? l * std::exp(m - half_max[lower_half]) : l;

  const auto spacing_variance = [&](double x) {
    const double spacing = ulp(x, stored);
    return spacing * spacing / 12;
  };
  for (Index c = 0; c < n; ++c) {
    const double weight = p[c];
    store[c] = std::max(u * weight, eta);
    store_variance[c] = std::max({spacing_variance(weight), spacing_variance(weight * l) / (l * l),
                                  mean_square_rounding * u * u * weight * weight});
    const double in_half = (c >= n / 2) == (lower_half == 1) ? lower_l : l;
    const double units[3] = {l, 1, in_half};
    for (int k = 0; k < 3; ++k) predicted[k][c] = round_to(weight * units[k], stored) / units[k] - weight;
  }
}

}  // namespace attest::bounds
