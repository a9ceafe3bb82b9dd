// What would explain a softmax that failed: kernels that err in a known way, along this axis or another.
#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <utility>

#include "verify/compare.hpp"
#include "verify/ops/sample.hpp"
#include "verify/ops/softmax/problem.hpp"
#include "verify/ops/softmax/stages.hpp"

namespace attest {
namespace {

constexpr Index sampled_elements = 1 << 15, fewest_rows = 4, most_rows = 64;

using Values = std::vector<double>;

/// The slope of ln y over x, by least squares, of normal numbers y; 0 if there is none.
double slope_of_logarithm(const Values& x, const Values& y, double least_normal) {
  double n = 0, sum_x = 0, sum_y = 0, xx = 0, xy = 0;
  for (std::size_t j = 0; j < x.size(); ++j) {
    if (!(y[j] >= least_normal) || !std::isfinite(x[j]) || !std::isfinite(y[j])) continue;
    const double log_y = std::log(y[j]);
    n += 1, sum_x += x[j], sum_y += log_y, xx += x[j] * x[j], xy += x[j] * log_y;
  }
  const double spread = n * xx - sum_x * sum_x;
  return spread > 0 ? (n * xy - sum_x * sum_y) / spread : 0;
}

/// z = a x + b y, by least squares; NaN where that says nothing.
std::pair<double, double> factors_of(const Values& x, const Values& y, const Values& z) {
  double xx = 0, xy = 0, yy = 0, xz = 0, yz = 0;
  for (std::size_t n = 0; n < x.size(); ++n) {
    xx += x[n] * x[n], xy += x[n] * y[n], yy += y[n] * y[n];
    xz += x[n] * z[n], yz += y[n] * z[n];
  }
  const double d = xx * yy - xy * xy;
  if (!(d > std::sqrt(std::numeric_limits<double>::epsilon()) * xx * yy)) return {std::nan(""), std::nan("")};
  return {(xz * yy - yz * xy) / d, (yz * xx - xz * xy) / d};
}

double median(Values all) {
  if (all.empty()) return std::nan("");
  const auto middle = all.begin() + static_cast<std::ptrdiff_t>(all.size() / 2);
  std::ranges::nth_element(all, middle);
  return *middle;
}

}  // namespace

std::vector<Decoy> SoftmaxProblem::other_axes() const {
  std::vector<Decoy> all;
  const std::vector<Index>& shape = given().shape;
  const View<const double, 3> kept = mask();
  if (!case_.out.contains("y")) return all;
  std::vector<double> s(given().size());
  for (Index o = 0; o < outer_; ++o)
    for (Index i = 0; i < inner_; ++i)
      ref::softmax_scores(spec_, column(like_x(given().values.data()), o, i), column(kept, o, i),
                          {&like_x(s.data())(o, 0, i), {n_}, {inner_}});
  Index step = 1;
  for (std::size_t a = shape.size(); a-- > 0; step *= shape[a]) {
    if (step == inner_ && shape[a] == n_) continue;  // its own
    if (shape[a] < 2) continue;
    Decoy decoy{"softmax along axis " + std::to_string(a), "y", {}, {}};
    for (const Index at : evenly_spread(given().size(), std::max<Index>(sampled_elements / shape[a], 64))) {
      double sum = 0;
      for (Index n = 0, other = at - at / step % shape[a] * step; n < shape[a]; ++n, other += step)
        sum += std::exp(s[other] - s[at]);
      decoy.at.push_back(at);
      decoy.value.push_back(1 / sum);
    }
    all.push_back(std::move(decoy));
  }
  return all;
}

std::vector<Index> SoftmaxProblem::telling_rows(std::span<const Expected> expected, Index wanted) const {
  std::vector<bool> is_wrong(rows());
  for (const Expected& e : expected) {
    const Index along = e.dumped->size() / std::max<Index>(rows(), 1);
    for (Index at = 0; at < e.dumped->size(); ++at)
      if (!within_bound(e, at, e.dumped->values[at]))
        is_wrong[at / (along * inner_) * inner_ + at % inner_] = true;
  }
  std::vector<Index> wrong, all = evenly_spread(rows(), wanted);
  for (Index row = 0; row < rows(); ++row)
    if (is_wrong[row]) wrong.push_back(row);
  for (const Index n : evenly_spread(static_cast<Index>(wrong.size()), wanted)) all.push_back(wrong[n]);
  std::ranges::sort(all);
  all.erase(std::unique(all.begin(), all.end()), all.end());
  return all;
}

std::vector<Decoy> SoftmaxProblem::alternatives(std::span<const Expected> expected) const {
  if (n_ == 0) return {};
  std::vector<Decoy> all = other_axes();
  const auto take = [&](std::vector<Decoy> more) { std::ranges::move(more, std::back_inserter(all)); };
  const Index wanted = std::clamp(sampled_elements / n_, fewest_rows, most_rows);
  const View<const double, 3> x = like_x(given().values.data());
  const std::vector<Index> some_rows = telling_rows(expected, wanted);
  const SoftmaxVariant right{"", spec_};
  const double least_normal =
      case_.output("y") ? std::ldexp(1.0, format_of(*case_.output("y")->dtype).emin) : 0;
  Values maxima, logarithms, dumped_lse;  // of rows that have all three
  Values slopes = {0}, exponents, dots;
  for (const Index row : some_rows) {
    const Index o = row / inner_, i = row % inner_;
    const SoftmaxRow r = computed(right, row);
    if (case_.output("y"))
      slopes.push_back(slope_of_logarithm(row_of(x, row), row_of_output("y", row), least_normal));
    if (const Tensor* lse = case_.output("lse"); lse && lse->size() == rows() && r.l > 0) {
      maxima.push_back(r.m), logarithms.push_back(std::log(r.l));
      dumped_lse.push_back(lse->values[row]);
    }
    if (!(r.l > 0) || mask_.size() > 0) continue;
    // To first order l grows by the sum of (s - m) exp(s - m) times what the factor is more than 1.
    double growth = 0;
    for (Index j = 0; j < n_; ++j)
      if (r.y[j] > 0) growth += r.y[j] * (std::log(r.y[j]) + r.lse - r.m);
    if (const Tensor* l = case_.output("l"); l && l->size() == rows())
      exponents.push_back(1 + (l->values[row] / r.l - 1) / growth);
    else if (const Tensor* lse = case_.output("lse"); lse && lse->size() == rows())
      exponents.push_back(1 + std::expm1(lse->values[row] - r.lse) / growth);
    else if (case_.output("y"))
      exponents.push_back(slopes.back() / spec_.scale);
    if (!case_.output("dx") || r.dx.empty()) continue;
    const Values dx = row_of_output("dx", row), of_dy = row_of(like_x(case_.input("dy")->values.data()), row);
    // dx = y slope (dy - factor dot), and right dx with a factor of 1.
    double dot = 0, yy = 0, yd = 0;
    for (Index j = 0; j < n_; ++j) dot += r.y[j] * of_dy[j];
    for (Index j = 0; j < n_; ++j) {
      const double slope = ref::softmax_score_slope(spec_, x(o, j, i), 1), d = r.y[j] * slope * dot;
      yy += d * d, yd += d * (r.y[j] * slope * of_dy[j] - dx[j]);
    }
    const auto of_dx = std::ranges::find(expected, "dx", &Expected::output);
    bool is_wrong = false;
    for (Index j = 0; j < n_; ++j) {
      const Index at = (o * n_ + j) * inner_ + i;
      is_wrong |= !within_bound(*of_dx, at, of_dx->dumped->values[at]);
    }
    if (is_wrong && std::isfinite(yd / yy)) dots.push_back(yd / yy);
  }
  const auto [of_m, of_log] = factors_of(maxima, logarithms, dumped_lse);
  const SoftmaxFits fits{median(slopes), median(exponents), median(dots), of_m, of_log};
  std::vector<SoftmaxVariant> variants = softmax_variants(spec_, fits, n_, !mask_.empty(), compute_);
  if (spec_.subtract_max)
    std::ranges::move(softmax_sum_variants(spec_, n_, compute_), std::back_inserter(variants));
  const bool only_lse_fails = std::ranges::none_of(
      expected, [](const Expected& e) { return e.output != "lse" && has_wrong_elements(e); });
  for (const SoftmaxVariant& variant : variants) {
    if (variant.only == "lse" && !only_lse_fails) continue;
    take(answers(variant.name, variant.only, variant.is_of_whole_call, some_rows, [&](Index row) {
      const Index other = row + variant.row_of_sum;
      if (other < 0 || other >= rows()) return SoftmaxRow{};
      return computed(variant, row, variant.row_of_sum == 0 ? 0 : computed(right, other).l);
    }));
  }
  take(partial_sums(some_rows));
  take(merged_sums(some_rows));
  take(thread_sums(some_rows));
  take(other_reads(some_rows));
  return all;
}

}  // namespace attest
