// Exact values and bounds of softmax and its gradient, row by row.
#include "verify/bounds/softmax.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "verify/bounds/softmax_gradient.hpp"
#include "verify/bounds/softmax_row.hpp"

namespace attest::bounds {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double nan = std::numeric_limits<double>::quiet_NaN();

/// Every rounding in the compute format.
Contract uniform_contract(DType dtype) {
  return {dtype, dtype, {dtype, 0, 0}, {dtype, 0, 0}};
}

View<const double, 1> column(View<const double, 3> view, Index o, Index i) {
  if (!view) return {};
  return {&view(o, 0, i), {view.extent(1)}, {view.stride(1)}};
}

class Rows {
 public:
  Rows(const ref::SoftmaxSpec& spec, const SoftmaxInputs& in, const SoftmaxTypes& types,
       const SoftmaxOutputs& out)
      : spec_(spec),
        in_(in),
        types_(types),
        out_(out),
        arithmetic_(uniform_contract(types.compute)),
        share_(arithmetic_.reference_share(1, in.x.extent(1))),
        scores_(in.x.extent(1)) {}

  void row(Index o, Index i);

 private:
  enum class Fate { regular, overflows, vanishes, unknown };

  Fate fate(const NaiveOutcome& outcome, Index o, Index i) const;
  void write_empty(Index o, Index i) const;
  void write_weights(const NaiveOutcome& outcome, Index o, Index i);
  void write_statistics(Index o, Index i) const;
  void write_gradient(Index o, Index i) const;
  void write_overflow(Index o, Index i) const;
  void write_vanished(Fate fate, Index o, Index i) const;
  void write_copies(const ExpectedView<3>& view, double value, Index o, Index i) const {
    for (Index r = 0; view && r < view.extent(1); ++r) view.set_exact(value, o, r, i);
  }

  const ref::SoftmaxSpec& spec_;
  const SoftmaxInputs& in_;
  const SoftmaxTypes& types_;
  const SoftmaxOutputs& out_;
  const Arithmetic arithmetic_;
  const double share_;
  std::vector<double> scores_;
  std::vector<WeightError> errors_;  // per score, before the store
  SoftmaxRow row_;
};

void Rows::row(Index o, Index i) {
  const Index n = in_.x.extent(1);
  ref::softmax_scores(spec_, column(in_.x, o, i), column(in_.mask, o, i), {scores_.data(), {n}});
  if (!row_.compute(spec_, {scores_.data(), {n}}, arithmetic_)) {
    write_empty(o, i);
    return;
  }
  const NaiveOutcome outcome = spec_.subtract_max ? NaiveOutcome{} : row_.naive_outcome(arithmetic_);
  switch (const Fate f = fate(outcome, o, i)) {
    case Fate::regular:
      write_weights(outcome, o, i);
      write_statistics(o, i);
      if (out_.dx) write_gradient(o, i);
      break;
    case Fate::overflows:
      write_overflow(o, i);
      break;
    default:
      write_vanished(f, o, i);
  }
}

Rows::Fate Rows::fate(const NaiveOutcome& outcome, Index o, Index i) const {
  if (outcome.must_overflow) return Fate::overflows;
  if (outcome.must_vanish) return Fate::vanishes;
  if (outcome.may_vanish) return Fate::unknown;
  if (!outcome.may_overflow) return Fate::regular;
  if (out_.device_l && out_.device_l(o, 0, i) == infinity) return Fate::overflows;
  if (out_.device_lse && out_.device_lse(o, 0, i) == infinity) return Fate::overflows;
  if (out_.device_y) {  // NaN where exp overflowed, 0 everywhere where only the sum did
    bool all_zero = true;
    for (const Index j : row_.key) {
      if (std::isnan(out_.device_y(o, j, i))) return Fate::overflows;
      all_zero &= out_.device_y(o, j, i) == 0;
    }
    if (all_zero) return Fate::overflows;
  }
  return Fate::regular;
}

void Rows::write_empty(Index o, Index i) const {
  for (Index j = 0; j < in_.x.extent(1); ++j) {
    if (out_.y) out_.y.set_exact(spec_.empty_row, o, j, i);
    if (out_.dx) out_.dx.set_exact(spec_.empty_row, o, j, i);
  }
  write_copies(out_.lse, -infinity, o, i);
  write_copies(out_.m, spec_.subtract_max ? -infinity : 0, o, i);
  write_copies(out_.l, 0, o, i);
}

// Equations (S4) and (S12).
void Rows::write_weights(const NaiveOutcome& outcome, Index o, Index i) {
  const Arithmetic& a = arithmetic_;
  const SoftmaxRow& r = row_;
  const double terms = r.terms_worst, additions = r.addition_worst;
  const bool is_bounded = terms < 1 && additions < 1;
  const double normalisation = (1 + 3 * a.u) / (1 - additions) - 1;
  const double flush = a.flush * std::max(1.0, 1 / r.kernel_sum);
  const double systematic = 2 * a.exp_error + r.update + 2 * r.scaling + 3 * a.u + r.structure.stagnation +
                            r.flushed + (r.sum_is_coherent ? additions : 0);
  if (out_.y) {
    for (Index j = 0; j < in_.x.extent(1); ++j) out_.y.set_exact(0, o, j, i);
    for (const Index j : r.vanished) out_.y.set_bound(0, flush, flush, 0, share_, o, j, i);
  }
  errors_.resize(r.count());
  for (Index c = 0; c < r.count(); ++c) {
    const double p = r.p[c];
    WeightError& e = errors_[c];
    const double ratio = (std::expm1(r.delta[c]) + terms) / (1 - terms);
    e.worst = is_bounded ? p * (ratio * (1 + normalisation) + normalisation) + flush : infinity;
    e.systematic = p * systematic + flush;
    if (outcome.reciprocal_is_lost) {
      e.worst += p;
      e.systematic += p;
    }
    e.variance = p * p * (r.variance[c] + r.terms_noise * r.terms_noise + r.sum_variance);
    if (out_.y) {
      out_.y.set_bound(p, e.worst, e.systematic, std::sqrt(e.variance), share_, o, r.key[c], i);
    }
  }
}

// Equations (S5), (S6) and (S11).
void Rows::write_statistics(Index o, Index i) const {
  const Arithmetic& a = arithmetic_;
  const SoftmaxRow& r = row_;
  const double worst = r.log_sum_worst(), systematic = r.log_sum_systematic(a);
  const double sigma = std::sqrt(r.terms_noise * r.terms_noise + r.sum_variance);
  const double m = spec_.subtract_max ? r.m : 0;
  const double m_error = spec_.scale == 1 ? 0 : 2 * a.u * std::abs(m);
  const double ends = a.log_error + a.log_relative * std::abs(std::log(r.kernel_sum)) +
                      a.u * (2 * std::abs(m) + 2 * std::abs(r.lse)) + m_error;
  const double sum_worst = std::expm1(worst + m_error), sum_systematic = std::expm1(systematic + m_error);
  for (Index k = 0; out_.lse && k < out_.lse.extent(1); ++k) {
    out_.lse.set_bound(r.lse, worst + ends, systematic + ends, sigma, share_, o, k, i);
  }
  for (Index k = 0; out_.m && k < out_.m.extent(1); ++k) {
    out_.m.set_bound(m, m_error, m_error, 0, share_, o, k, i);
  }
  for (Index k = 0; out_.l && k < out_.l.extent(1); ++k) {
    out_.l.set_bound(r.kernel_sum, r.kernel_sum * sum_worst, r.kernel_sum * sum_systematic,
                     r.kernel_sum * sigma, share_, o, k, i);
  }
}

void Rows::write_gradient(Index o, Index i) const {
  const View<const double, 1> dy = column(in_.dy, o, i);
  double largest_dy = 0;
  for (Index j = 0; j < in_.x.extent(1); ++j) {
    out_.dx.set_exact(0, o, j, i);
    largest_dy = std::max(largest_dy, std::abs(dy(j)));
  }
  const double flush = arithmetic_.flush * (1 + 2 * largest_dy) * std::max(1.0, 1 / row_.kernel_sum);
  for (const Index j : row_.vanished) out_.dx.set_bound(0, flush, flush, 0, share_, o, j, i);
  SoftmaxGradient gradient(row_, errors_, dy, types_, arithmetic_);
  for (Index c = 0; c < row_.count(); ++c) {
    const Index j = row_.key[c];
    const double slope = ref::softmax_score_slope(spec_, in_.x(o, j, i), 1);
    if (slope == 0) continue;
    const GradientError e = gradient.at(c, slope);
    out_.dx.set_bound(e.value, e.worst, e.systematic, e.sigma, share_, o, j, i);
  }
}

// exp / inf is 0, inf / inf is NaN; where exp itself is at the edge, the device tells which.
void Rows::write_overflow(Index o, Index i) const {
  const double ln_max = std::log(format_of(types_.compute).max);
  const double ln_over = ln_max + std::log1p(arithmetic_.u / 2 / (1 - arithmetic_.u));
  bool is_nan = false;
  for (Index j = 0; out_.y && j < in_.x.extent(1); ++j) out_.y.set_exact(0, o, j, i);
  for (Index c = 0; c < row_.count(); ++c) {
    const Index j = row_.key[c];
    const bool must = row_.s[c] - row_.delta[c] >= ln_over, may = row_.s[c] + row_.delta[c] >= ln_max;
    const bool device_says_so = out_.device_y && std::isnan(out_.device_y(o, j, i));
    const bool overflows = must || (may && device_says_so);
    is_nan |= overflows || (may && !out_.device_y);
    if (out_.y && overflows) out_.y.set_exact(nan, o, j, i);
  }
  for (Index j = 0; out_.dx && j < in_.x.extent(1); ++j) {
    // Kernels that skip absent and clamped entries write 0 there.
    const bool is_constant =
        scores_[j] == -infinity || ref::softmax_score_slope(spec_, in_.x(o, j, i), 1) == 0;
    const bool is_zero = !is_nan || (is_constant && out_.device_dx(o, j, i) == 0);
    out_.dx.set_exact(is_zero ? 0 : nan, o, j, i);
  }
  write_copies(out_.lse, infinity, o, i);
  write_copies(out_.m, 0, o, i);
  write_copies(out_.l, infinity, o, i);
}

// A sum of 0 gives 0 / 0. Between that and the normal numbers nothing is promised: any finite number passes,
// and so does what is none.
void Rows::write_vanished(Fate fate, Index o, Index i) const {
  const auto write = [&](const ExpectedView<3>& view, View<const double, 3> device, double exact,
                         double certain, Index j) {
    const double got = device(o, j, i);
    if (fate == Fate::vanishes) {
      view.set_exact(certain, o, j, i);
    } else if (std::isfinite(got)) {
      view.set({exact, 0, infinity, infinity, 0, infinity}, o, j, i);
    } else {
      view.set_exact(got, o, j, i);
    }
  };
  Index next = 0;  // entry of the row
  for (Index j = 0; j < in_.x.extent(1); ++j) {
    const bool is_absent = scores_[j] == -infinity;
    const double p = is_absent ? 0 : row_.p[next++];
    const auto write_entry = [&](const ExpectedView<3>& view, View<const double, 3> device) {
      // Kernels that skip absent entries write 0 there.
      if (view) write(view, device, p, is_absent && device(o, j, i) == 0 ? 0 : nan, j);
    };
    write_entry(out_.y, out_.device_y);
    write_entry(out_.dx, out_.device_dx);
  }
  for (Index k = 0; out_.lse && k < out_.lse.extent(1); ++k)
    write(out_.lse, out_.device_lse, row_.lse, -infinity, k);
  for (Index k = 0; out_.l && k < out_.l.extent(1); ++k) write(out_.l, out_.device_l, row_.kernel_sum, 0, k);
  write_copies(out_.m, 0, o, i);
}

}  // namespace

void softmax(const ref::SoftmaxSpec& spec, const SoftmaxInputs& in, const SoftmaxTypes& types,
             const SoftmaxOutputs& out) {
  if (in.x.extent(1) == 0) return;
#pragma omp parallel
  {
    Rows rows(spec, in, types, out);
#pragma omp for collapse(2) schedule(dynamic, 4)
    for (Index o = 0; o < in.x.extent(0); ++o) {
      for (Index i = 0; i < in.x.extent(2); ++i) rows.row(o, i);
    }
  }
}

}  // namespace attest::bounds
