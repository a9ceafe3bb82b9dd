// Do the errors of y follow the fraction of (score - max) log2(e)? An exp that is a polynomial or a table for
// that fraction errs so, whatever its coefficients are.
#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "verify/diagnosis/diagnose.hpp"
#include "verify/ops/sample.hpp"
#include "verify/ops/softmax/problem.hpp"

namespace attest {
namespace {

constexpr std::size_t bins = 16;
constexpr Index most_elements = 1 << 20, fewest_rows = 4, least_elements = 512;

/// How many times larger the variance between bins has to be than chance makes it: with 15 degrees of freedom
/// 6 is never reached.
constexpr double least_ratio = 6;

/// The errors of an exp that keeps its promise of 2 units in the last place follow the fraction, too; means
/// of a bin are no larger than this many roundings.
constexpr double honest_roundings = 4;

/// Errors in bins of a fraction.
struct Errors {
  std::array<double, bins> sum{}, count{};
  double squares = 0, all = 0;

  void add(double x, double error) {
    const std::size_t bin = std::min(static_cast<std::size_t>((x - std::floor(x)) * bins), bins - 1);
    sum[bin] += error, count[bin] += 1;
    squares += error * error, all += 1;
  }
  /// The largest of the bins' means.
  double largest_mean() const {
    double largest = 0;
    for (std::size_t b = 0; b < bins; ++b)
      if (count[b] > 0) largest = std::max(largest, std::abs(sum[b] / count[b]));
    return largest;
  }
  /// Variance between bins over that within.
  double ratio() const {
    double between = 0;
    for (std::size_t b = 0; b < bins; ++b)
      if (count[b] > 0) between += sum[b] * sum[b] / count[b];
    const double within = squares - between;
    return within > 0 ? between / (bins - 1) / (within / (all - bins)) : 0;
  }
};

struct Element {
  double exponent, log_y, error;  // exponents of 2; relative error
};

/// Takes out what a wrong row sum or scale does to a row: a constant, and a multiple of the exponent.
void take_out_line(std::vector<Element>& row) {
  double n = 0, x = 0, y = 0, xx = 0, xy = 0;
  for (const Element& e : row)
    n += 1, x += e.exponent, y += e.error, xx += e.exponent * e.exponent, xy += e.exponent * e.error;
  const double spread = n * xx - x * x, slope = spread > 0 ? (n * xy - x * y) / spread : 0;
  for (Element& e : row) e.error -= (y - slope * x) / n + slope * e.exponent;
}

}  // namespace

std::vector<DiagnosisEntry> SoftmaxProblem::coarse_exp(std::span<const Expected> expected) const {
  const auto y = std::ranges::find(expected, "y", &Expected::output);
  if (y == expected.end() || n_ == 0) return {};
  Errors by_fraction, by_digits;
  std::vector<double> s(n_);
  for (const Index row : evenly_spread(rows(), std::max(most_elements / n_, fewest_rows))) {
    const Index o = row / inner_, i = row % inner_;
    ref::softmax_scores(spec_, column(like_x(given().values.data()), o, i), column(mask(), o, i),
                        {s.data(), {n_}});
    const double m = *std::ranges::max_element(s);
    std::vector<Element> elements;
    for (Index j = 0; j < n_; ++j) {
      const Index at = (o * n_ + j) * inner_ + i;
      const double want = y->value[at], error = y->dumped->values[at] / want - 1;
      // Where y is subnormal its store errs by more than exp does.
      if (!(want >= std::ldexp(1.0, format_of(y->dtype).emin)) || !std::isfinite(error)) continue;
      elements.push_back({(s[j] - m) * std::numbers::log2e, std::log2(want), error});
    }
    take_out_line(elements);
    for (const Element& e : elements) {
      by_fraction.add(e.exponent, e.error);
      by_digits.add(e.log_y, e.error);
    }
  }
  // A store that cuts off errs with the digits of y, which in rows that are alike follow the fraction, too.
  const double ratio = by_fraction.ratio();
  if (by_fraction.largest_mean() <= honest_roundings * unit_roundoff(compute_)) return {};
  if (by_fraction.all < least_elements || ratio < least_ratio || ratio < 2 * by_digits.ratio()) return {};
  return {{"exp, by a polynomial or a table for the fraction of its exponent", confidence_of_a_place,
           "the errors of y follow the fraction of (score - max) log2(e)"}};
}

}  // namespace attest
