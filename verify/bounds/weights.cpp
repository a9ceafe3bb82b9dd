// The weights of one attention row, with the errors that a device makes before it multiplies them with V.
#include "verify/bounds/weights.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "verify/bounds/storage_grid.hpp"

namespace attest::bounds {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double below_one = 1 - 0x1p-53;
constexpr double mean_magnitude = 0.8;  // of normal noise, in standard deviations

ATTEST_VECTORISED
double largest_of(const double* x, Index n) {
  LaneMaximum most(-infinity);
  for_lanes(n, [&](Index c, Index lane) { most.take(lane, x[c]); });
  return most.total();
}

}  // namespace

bool Weights::compute(const AttentionSpec& spec, const AttentionInputs& in, const Head& head,
                      const Arithmetic& arithmetic, Index h, const HeadErrors* errors) {
  scores.bound(spec, in, head, arithmetic, errors);
  if (!normalise(in, arithmetic, h)) return false;
  compute_exponent_errors(in, arithmetic, h);
  compute_stored(arithmetic);
  structure = weight_structure({p.data(), key.size()}, l, arithmetic);
  if (structure.multiplicity > 1.1) {
    for (double& x : variance) x *= structure.multiplicity;
    for (double& x : store_variance) x *= structure.multiplicity;
  }
  spread.resize(key.size());
  std::ranges::transform(variance, spread.begin(), [](double x) { return std::sqrt(x); });
  stored_sum = stored_sum_variance = 0;
  for (Index c = 0; arithmetic.contract.row_sum_takes_stored_weights && c < count(); ++c) {
    stored_sum += store[c];
    stored_sum_variance += store_variance[c];
  }
  return true;
}

bool Weights::compute_exact(const AttentionSpec& spec, const AttentionInputs& in, const Head& head,
                            const Arithmetic& arithmetic, Index h, Index i) {
  scores.compute(spec, in, head, arithmetic, h, i);
  return normalise(in, arithmetic, h);
}

ATTEST_VECTORISED
void Weights::find_keys(const Arithmetic& a, double sink) {
  const double* s = scores.s.data() + scores.first;
  const double most = largest_of(s, span()), reference = std::max(most, sink);
  const double near = reference - least_vanishing;
  vanished = 0;
  LaneSum far;
  for_lanes(span(), [&](Index c, Index lane) { far.part[lane] += s[c] > near ? 0 : 1; });
  if (far.total() == 0) {
    key.resize(span());
    std::iota(key.begin(), key.end(), scores.first);
    return;
  }
  const double top_error = sink < most ? scores.error[std::find(s, s + span(), most) - s + scores.first] : 0;
  key.clear();
  for (Index j = scores.first; j < scores.last; ++j) {
    if (scores.s[j] == -infinity) continue;
    if (vanishes(scores.s[j], scores.error[j], reference, top_error, a.u)) {
      ++vanished;
    } else {
      key.push_back(j);
    }
  }
}

/// p: e^(score - m), without a division; returns their sum.
ATTEST_VECTORISED
double Weights::exponentials() {
  const Index n = count();
  p.resize(padded(n));
  for (Index c = 0; c < n; ++c) p[c] = score[c] - m;
  std::fill(p.begin() + n, p.end(), 0.0);
  vector_kernels().exp(p.data(), p.data(), padded(n));
  std::fill(p.begin() + n, p.end(), 0.0);
  LaneSum sum;
  for_lanes(n, [&](Index c, Index lane) { sum.part[lane] += p[c]; });
  return sum.total();
}

/// The entries of the row's keys: where they are neighbours, in place.
const double* Weights::of_keys(const Lanes& of_all, Lanes& copies) const {
  if (count() == span()) return of_all.data() + scores.first;
  copies.resize(key.size());
  std::ranges::transform(key, copies.begin(), [&](Index j) { return of_all[j]; });
  return copies.data();
}

bool Weights::normalise(const AttentionInputs& in, const Arithmetic& a, Index h) {
  find_keys(a, in.sink ? in.sink(h) : -infinity);
  const Index n = count();
  score = of_keys(scores.s, copies_[0]);
  tangent = of_keys(scores.tangent, copies_[1]);
  drift = of_keys(scores.drift, copies_[2]);
  squares = of_keys(scores.products.squares, copies_[3]);
  m = largest_of(score, n);
  top = std::find(score, score + n, m) - score;
  if (top == n) top = 0;
  if (in.sink) m = std::max(m, in.sink(h));
  if (m == -infinity) return false;

  l = exponentials();
  sink_p = in.sink ? std::exp(in.sink(h) - m) : 0;
  l += sink_p;
  for (double& weight : p) weight /= l;
  sink_p /= l;
  lse = m + std::log(l);
  return true;
}

// Equations (7) and (8).
ATTEST_VECTORISED
void Weights::compute_exponent_errors(const AttentionInputs& in, const Arithmetic& a, Index h) {
  const Index n = count();
  const double tiles = a.tiles(n, span());
  const double per_update = a.exps_per_tile * (a.exp_error + 2 * a.u);
  LaneMaximum magnitude(std::abs(lse));
  for_lanes(n, [&](Index c, Index lane) { magnitude.take(lane, std::abs(score[c])); });
  largest = std::max(magnitude.total(), in.sink ? std::abs(in.sink(h)) : 0) + scores.inherited_worst;
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
  LaneMaximum delta(0);
  const double *error = of_keys(scores.error, copies_[4]), *noise = of_keys(scores.variance, copies_[5]);
  growth.resize(padded(n));
  std::fill(growth.begin() + n, growth.end(), 0.0);
  variance.resize(n);
  for_lanes(n, [&](Index c, Index lane) {
    growth[c] = worst_of(score[c], error[c]);
    variance[c] = variance_of(score[c], noise[c]);
    delta.take(lane, growth[c]);
  });
  sink_delta = in.sink ? worst_of(in.sink(h), 0) : 0;
  sink_variance = in.sink ? variance_of(in.sink(h), 0) : 0;
  delta_max = std::max(delta.total(), sink_delta);
  vector_kernels().expm1(growth.data(), growth.data(), padded(n));
}

// The rounding errors of all weights together, where each is stored as the nearest number to weight / r with
// one r for the row: the largest over r. Only the place of r within a binade matters.
ATTEST_VECTORISED
double Weights::joint_store_variance(const Arithmetic& a) const {
  const StorageGrid grid(a.contract.p_dtype);
  double largest_sum = 0;
  constexpr int places = 8;
  for (int k = 0; k < places; ++k) {
    const double r = std::exp2(static_cast<double>(k) / places), per_r = 1 / r;
    LaneSum squares_of;
    for_lanes(count(), [&](Index c, Index lane) {
      const double spacing = grid.spacing(p[c] * per_r);
      squares_of.part[lane] += store_variance[c] > 0 ? spacing * spacing : 0;
    });
    largest_sum = std::max(largest_sum, r * r / 12 * squares_of.total());
  }
  return largest_sum;
}

ATTEST_VECTORISED
Weights::InRowSum Weights::in_row_sum() const {
  LaneSum up, down, noise, scale, off, truncation;
  for_lanes(count(), [&](Index c, Index lane) {
    const double weight = p[c];
    up.part[lane] += weight * growth[c];
    down.part[lane] += weight / (1 + growth[c]);
    noise.part[lane] += weight * spread[c];
    scale.part[lane] += weight * tangent[c];
    off.part[lane] += weight * drift[c];
    truncation.part[lane] += weight * std::sqrt(squares[c]);
  });
  return {up.total() + sink_p * std::expm1(sink_delta),
          down.total() + sink_p * std::exp(-sink_delta),
          noise.total() + sink_p * std::sqrt(sink_variance),
          scale.total(),
          off.total(),
          truncation.total()};
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
  const StoredWeights stored = a.contract.weights;
  const double u = a.p_unit, eta = a.half_subnormal_of_weights(l), unit = stored.unit, unit_l = unit * l;
  const bool has_one = is_power_of_two(unit);
  const double largest_relative = has_one ? below_one : infinity;
  // Errors of an exponential that all keys share: anything up to the bound is as likely.
  const double common_variance = (shift * shift + a.exp_error * a.exp_error) / 3;

  // What normalisation may be off by, generously: phi of (10).
  const double shared = gamma(static_cast<double>(n) + a.tiles(n, span()), a.u) +
                        2 * (a.u * (2 * std::abs(lse) + 3) + a.log_error + a.exp_error +
                             gamma(a.most_splits, a.u) + a.log_relative * std::log(1 + a.most_splits));
  // Where the keys are visited in halves, the half without the largest score has a maximum of its own.
  const double half_max[2] = {largest_of(score, n / 2), largest_of(score + n / 2, n - n / 2)};
  const Index lower = half_max[0] < half_max[1] ? 0 : 1;
  const double lower_l = std::isfinite(half_max[lower]) ? l * std::exp(m - half_max[lower]) : l;
  const Index lower_first = lower == 0 ? 0 : n / 2, lower_last = lower == 0 ? n / 2 : n;

  LaneSum kept, flips;
  for_lanes(n, [&](Index c, Index lane) {
    const double weight = p[c], relative = weight * l;
    // The row's maximum is stored as 1, exactly: the spacing below 1 counts, however l was rounded.
    const double normalised_spacing = grid.spacing(weight),
                 relative_spacing = grid.spacing(std::min(relative, largest_relative) * unit) / unit_l,
                 spacing = stored.may_be_normalised ? normalised_spacing : relative_spacing;
    // A weight of 1, whether or not it is normalised, is stored as 1 by every kernel. Equation (10a).
    const bool is_one = has_one & (1 - weight <= 0x1p-13 * u) & (std::abs(relative - 1) <= 0x1p-13 * u) &
                        (growth[c] + shared < 0.5 * u);
    const double other = stored.may_be_relative ? relative_spacing : spacing;
    const double independent = std::max(std::max(spacing * spacing, other * other) / 12,
                                        mean_square_rounding * u * u * weight * weight);
    const double error = mean_magnitude * weight * std::sqrt(variance[c] + common_variance),
                 widest = std::max(spacing, other);
    store[c] = is_one ? 1 - weight : std::max(u * weight, eta);
    store_variance[c] = is_one ? 0 : independent;
    kept.part[lane] += is_one ? 0 : independent;
    flips.part[lane] += is_one ? 0 : std::min(widest * widest / 6, widest * error);
    const double if_relative = grid.round(relative * unit) / unit_l - weight,
                 if_normalised = grid.round(weight) - weight;
    predicted[0][c] = is_one ? 0 : stored.may_be_relative ? if_relative : if_normalised;
    predicted[1][c] = is_one ? 0 : stored.may_be_normalised ? if_normalised : if_relative;
  });
  const double all_kept = kept.total();
  flipped = all_kept > 0 ? std::min(1.0, flips.total() / all_kept) : 0;
  joint = all_kept > 0 ? std::min(1.0, joint_store_variance(a) / all_kept) : 1;
  predicted[2] = predicted[0];
  for (Index c = lower_first; stored.may_be_relative && c < lower_last; ++c) {
    predicted[2][c] = grid.round(p[c] * lower_l * unit) / (lower_l * unit) - p[c];
  }
}

}  // namespace attest::bounds
