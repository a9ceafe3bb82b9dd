// Softmax, its partial results, its gradient, and the range of scores in which the maximum may be left out.
#include "ref/softmax.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

namespace attest::ref {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

/// A NaN on either side stays one.
double max_or_nan(double a, double b) {
  return std::isnan(a) || a >= b ? a : b;
}

double maximum(View<const double, 1> x) {
  double m = -infinity;
  for (Index j = 0; j < x.extent(0); ++j) m = max_or_nan(m, x(j));
  return m;
}

double clamped(const SoftmaxSpec& spec, double x) {
  if (spec.clamp == 0 || std::isnan(x)) return x;
  return std::clamp(x, -spec.clamp, spec.clamp);
}

}  // namespace

SoftmaxState merge(SoftmaxState a, SoftmaxState b) {
  if (a.l == 0) return b;
  if (b.l == 0) return a;
  const double m = max_or_nan(a.m, b.m);
  return {m, a.l * std::exp(a.m - m) + b.l * std::exp(b.m - m)};
}

SoftmaxState merge(SoftmaxState a, View<double, 1> o_a, SoftmaxState b, View<const double, 1> o_b) {
  const SoftmaxState both = merge(a, b);
  for (Index e = 0; e < o_a.extent(0); ++e) {
    const double of_a = a.l == 0 ? 0 : o_a(e) * std::exp(a.m - both.m);
    const double of_b = b.l == 0 ? 0 : o_b(e) * std::exp(b.m - both.m);
    o_a(e) = of_a + of_b;
  }
  return both;
}

SoftmaxState naive_softmax(View<const double, 1> x) {
  double l = 0;
  for (Index j = 0; j < x.extent(0); ++j) l += std::exp(x(j));
  return {0, l};
}

SoftmaxState safe_softmax(View<const double, 1> x) {
  const double m = maximum(x);
  if (m == -infinity) return empty_softmax;
  double l = 0;
  for (Index j = 0; j < x.extent(0); ++j) l += std::exp(x(j) - m);
  return {m, l};
}

SoftmaxState split_softmax(View<const double, 1> x, Index block) {
  SoftmaxState all = empty_softmax;
  for (Index first = 0; first < x.extent(0); first += block) {
    all = merge(all, safe_softmax(x.narrowed(0, first, std::min(block, x.extent(0) - first))));
  }
  return all;
}

SoftmaxState online_softmax(View<const double, 1> x) {
  double m = -infinity, l = 0;
  for (Index j = 0; j < x.extent(0); ++j) {
    const double grown = max_or_nan(m, x(j));
    if (grown == -infinity) continue;  // nothing but -inf so far
    l = l * std::exp(m - grown) + std::exp(x(j) - grown);
    m = grown;
  }
  return {m, l};
}

double log_sum_exp(SoftmaxState state) {
  return state.l == 0 ? -infinity : state.m + std::log(state.l);
}

void softmax(View<const double, 1> x, SoftmaxState state, double empty_row, View<double, 1> y) {
  for (Index j = 0; j < x.extent(0); ++j) {
    y(j) = state.l == 0 ? empty_row : std::exp(x(j) - state.m) / state.l;
  }
}

void softmax_backward(View<const double, 1> y, View<const double, 1> dy, View<double, 1> dx) {
  double sum = 0;
  for (Index j = 0; j < y.extent(0); ++j) sum += dy(j) * y(j);
  for (Index j = 0; j < y.extent(0); ++j) dx(j) = y(j) * (dy(j) - sum);
}

void softmax_scores(const SoftmaxSpec& spec, View<const double, 1> x, View<const double, 1> mask,
                    View<double, 1> s) {
  for (Index j = 0; j < x.extent(0); ++j) {
    const double value = clamped(spec, x(j));
    const bool is_absent = (mask && mask(j) == 0) || value == -infinity;
    s(j) = is_absent ? -infinity : spec.scale * value;
  }
}

double softmax_score_slope(const SoftmaxSpec& spec, double x, double mask) {
  const bool is_constant = mask == 0 || (spec.clamp > 0 && std::abs(x) > spec.clamp);
  return is_constant ? 0 : spec.scale;
}

NaiveRange range_without_maximum(DType format, Index n) {
  const Format& f = format_of(format);
  const double u = unit_roundoff(format), exp_error = 4 * u;  // 2 ulp
  const double terms = static_cast<double>(std::max(n, Index{1}));
  const double ln_smallest_normal = f.emin * std::log(2.0), ln_max = std::log(f.max);
  // What rounds to infinity begins half an ulp above max = 2^(emax + 1) (1 - u).
  NaiveRange range{ln_smallest_normal - std::log1p(-exp_error), -infinity,
                   ln_max + std::log1p(u / 2 / (1 - u)) - std::log(terms)};
  if (terms * u < 1) {
    const double sum_error = (terms - 1) * u / (1 - (terms - 1) * u);
    range.highest = std::min(ln_max, -ln_smallest_normal) - std::log(terms) - std::log1p(exp_error) -
                    std::log1p(sum_error);
  }
  return range;
}

Omissible omissible(const SoftmaxSpec& spec, View<const double, 1> x, View<const double, 1> mask,
                    DType format) {
  const Index n = x.extent(0);
  std::vector<double> limited(n), unlimited(n);
  const View<double, 1> s(limited.data(), {n}), without_clamp(unlimited.data(), {n});
  softmax_scores(spec, x, mask, s);
  SoftmaxSpec no_clamp = spec;
  no_clamp.clamp = 0;
  softmax_scores(no_clamp, x, mask, without_clamp);
  const double m = maximum(s), m_without = maximum(without_clamp);
  if (m == -infinity) return {true, m_without == -infinity};

  Index count = 0;
  for (const double score : limited) count += score != -infinity;
  const NaiveRange range = range_without_maximum(format, count);
  // exp is 0 in the format, with or without subnormals, one unit below where half the smallest one begins.
  const double vanishes = std::log(ulp(0, format) / 2) - 1;
  Omissible result{m <= range.highest, m_without < infinity};
  for (Index j = 0; j < n; ++j) {
    const bool may_underflow = s(j) < range.lowest && m < 0 && s(j) - m >= vanishes;
    if (s(j) > -infinity && may_underflow) result.maximum = false;
    const double distance = m - s(j), distance_without = m_without - without_clamp(j);
    const bool is_same =
        distance == distance_without || (-distance < vanishes && -distance_without < vanishes);
    if (!is_same) result.clamp = false;
  }
  return result;
}

}  // namespace attest::ref
