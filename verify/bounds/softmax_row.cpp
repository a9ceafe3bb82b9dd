// One row of softmax with the errors that a device makes in its exponentials and in their sum.
#include "verify/bounds/softmax_row.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace attest::bounds {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

/// How often a running maximum grows, from the first score to the last or back.
struct Records {
  double count = 0;     // growths after the first score
  double weighted = 0;  // sum over scores of p times the growths that follow it
};

template <class ScoreAt>
Records records_of(const SoftmaxRow& row, ScoreAt at) {
  Records r;
  double m = -infinity, weight = 0;
  for (Index n = 0; n < row.count(); ++n) {
    const Index c = at(n);
    if (row.s[c] > m) {
      r.count += n > 0;
      r.weighted += weight;
      m = row.s[c];
    }
    weight += row.p[c];
  }
  return r;
}

/// Mean number of scores that a score is equal to, itself included, up to rounding errors: their exponentials
/// are added with the same rounding error again and again.
double mean_group_size(std::vector<double> s, double m, double u) {
  std::sort(s.begin(), s.end());
  double squares = 0, size = 0, previous = s.front();
  for (const double score : s) {
    if (score - previous > 4 * u * (1 + m - score)) {
      squares += size * size;
      size = 0;
    }
    previous = score;
    ++size;
  }
  return (squares + size * size) / static_cast<double>(s.size());
}

}  // namespace

bool SoftmaxRow::compute(const ref::SoftmaxSpec& spec, View<const double, 1> scores, const Arithmetic& a) {
  for (auto* columns : {&key, &vanished}) columns->clear();
  for (auto* values : {&s, &p}) values->clear();
  m = -infinity;
  largest = 0;
  for (Index j = 0; j < scores.extent(0); ++j) m = std::max(m, scores(j));
  for (Index j = 0; j < scores.extent(0); ++j) {
    if (scores(j) == -infinity) continue;
    if (vanishes(scores(j), 0, m, 0, a.u)) {
      vanished.push_back(j);
      continue;
    }
    key.push_back(j);
    s.push_back(scores(j));
    largest = std::max(largest, std::abs(scores(j)));
  }
  if (key.empty()) return false;
  l = 0;
  for (const double score : s) l += std::exp(score - m);
  for (const double score : s) p.push_back(std::exp(score - m) / l);
  lse = m + std::log(l);
  kernel_sum = spec.subtract_max ? l : std::exp(lse);
  structure = weight_structure(p, std::isfinite(kernel_sum) && kernel_sum > 0 ? kernel_sum : l, a);
  group_size = mean_group_size(s, m, a.u);
  sum_is_coherent = structure.row_sum_is_coherent || structure.scores_repeat || group_size > 16;
  compute_exponent_errors(spec, a);
  compute_sum_errors(a);
  return true;
}

// Equations (S1) and (S8).
void SoftmaxRow::compute_exponent_errors(const ref::SoftmaxSpec& spec, const Arithmetic& a) {
  const double per_update = a.exp_error + 2 * a.u;
  double updates = 0, weighted = 0;
  if (spec.subtract_max) {
    const Records forward = records_of(*this, [](Index n) { return n; });
    const Records backward = records_of(*this, [this](Index n) { return count() - 1 - n; });
    updates = std::max({a.tiles(count()) - 1, forward.count, backward.count}) +
              std::ceil(std::log2(static_cast<double>(count())));
    weighted = std::max(forward.weighted, backward.weighted);
  }
  // The mean number of growths that a weight sees; in an order that nobody declared it grows like ln T.
  update = std::min(updates, std::max(weighted, 3 * std::log(1 + updates))) * per_update;
  scaling = spec.scale == 1 ? 0 : 2 * a.u * largest;

  const double common = a.exp_error + updates * per_update + scaling;
  const double u2 = mean_square_rounding * a.u * a.u;
  delta.clear();
  variance.clear();
  for (const double score : s) {
    const double z = spec.subtract_max ? m - score : std::abs(score);
    const double scaled = spec.scale == 1 ? 0 : 2 * a.u * std::abs(score);
    delta.push_back(4 * a.u * z + common + scaled);
    variance.push_back(3 * u2 * z * z + a.exp_error * a.exp_error / 3);
  }
  // Terms and rescaled sums below the smallest normal number may become 0.
  const double unit = kernel_sum > 0 ? 1 / kernel_sum : infinity;
  flushed = (updates + static_cast<double>(vanished.size())) * a.flush * unit;
  for (const double weight : p) {
    if (weight < 2 * a.flush * unit) flushed += weight;
  }
}

// Equations (S2), (S3), (S9) and (S10).
void SoftmaxRow::compute_sum_errors(const Arithmetic& a) {
  terms_worst = flushed;
  terms_noise = 0;
  double squares = 0, running = 0, prefix = 0, prefix_sum = 0;
  for (Index c = 0; c < count(); ++c) {
    terms_worst += p[c] * std::expm1(delta[c]);
    terms_noise += p[c] * std::sqrt(variance[c]);
    squares += p[c] * p[c];
    running += p[c];
    prefix += running * running;
    prefix_sum += running;
  }
  const double n = static_cast<double>(count());
  addition_worst = gamma(n + a.tiles(count()), a.u);
  const double mean_square = mean_square_running_sum(running, squares, prefix, prefix_sum, n);
  sum_variance = mean_square_rounding * a.u * a.u * (group_size * n * mean_square + 6);
}

double SoftmaxRow::log_sum_worst() const {
  if (!(terms_worst < 1 && addition_worst < 1)) return infinity;
  return std::max(std::log1p(terms_worst), -std::log1p(-terms_worst)) - std::log1p(-addition_worst);
}

double SoftmaxRow::log_sum_systematic(const Arithmetic& a) const {
  return a.exp_error + update + flushed + 2 * scaling + structure.stagnation +
         (sum_is_coherent ? addition_worst : 0);
}

// Equation (S7).
NaiveOutcome SoftmaxRow::naive_outcome(const Arithmetic& a) const {
  const Format& format = format_of(a.contract.softmax_dtype);
  const double ln_max = std::log(format.max);
  const double ln_over = ln_max + std::log1p(a.u / 2 / (1 - a.u));  // half an ulp above it
  const double ln_normal = format.emin * std::log(2.0);
  const double ln_vanished = std::log(ulp(0, format.dtype) / 2);
  const double error = log_sum_worst();
  NaiveOutcome outcome{lse + error >= ln_max, lse - error >= ln_over, lse - error <= ln_normal, true,
                       lse + error >= -ln_normal};
  for (Index c = 0; c < count(); ++c) {
    outcome.may_overflow |= s[c] + delta[c] >= ln_max;
    outcome.must_overflow |= s[c] - delta[c] >= ln_over;
    outcome.must_vanish &= s[c] + delta[c] < ln_vanished;
  }
  outcome.may_vanish |= outcome.must_vanish;
  return outcome;
}

}  // namespace attest::bounds
