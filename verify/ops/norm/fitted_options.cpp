// Options of a normalisation that are fitted to what was dumped: another eps, the width that a kernel divides
// by, and a factor of a gradient.
#include <algorithm>
#include <cmath>
#include <set>
#include <string>

#include "verify/compare.hpp"
#include "verify/ops/norm/problem.hpp"
#include "verify/ops/norm/row_statistics.hpp"
#include "verify/ops/norm/variants.hpp"
#include "verify/ops/sample.hpp"
#include "verify/ops/widths.hpp"
#include "verify/statistics/median.hpp"
#include "verify/text.hpp"

namespace attest {
namespace {

constexpr Index most_rows = 256, most_elements = 4096;
constexpr double most_padding = 4;  // times the width

/// A number as a program may have it: to fewer and fewer digits.
constexpr int most_digits = 4;

const Expected* wrong_output(std::span<const Expected> expected, std::string_view output) {
  const auto e = std::ranges::find(expected, output, &Expected::output);
  return e != expected.end() && has_wrong_elements(*e) ? &*e : nullptr;
}

/// The factor of most elements, as far as they tell it: those of a size.
double factor_of(const Expected& e) {
  std::vector<double> sizes, factors;
  for (const double value : e.value) sizes.push_back(std::abs(value));
  const double typical = median(sizes);
  for (Index at = 0; at < e.dumped->size(); ++at)
    if (e.value[at] != 0 && std::abs(e.value[at]) >= typical)
      factors.push_back(e.dumped->values[at] / e.value[at]);
  return median(factors);
}

/// No program has a larger one.
constexpr double most_eps = 0.125;

bool is_near(double a, double b) {
  constexpr double nearly = 1e-3;
  return std::abs(a - b) <= nearly * std::abs(b);
}

}  // namespace

std::vector<NormVariant> NormProblem::fitted_variants(std::span<const Expected> expected) const {
  std::vector<NormVariant> all;
  const Expected *rstd = wrong_output(expected, "rstd"), *y = wrong_output(expected, "y"),
                 *mean = wrong_output(expected, "mean");
  if (norm_.in.rstd || !(rstd || y || mean)) return all;
  const double n = static_cast<double>(norm_.in.width());
  const std::vector<Index> rows = evenly_spread(norm_.in.rows(), most_rows);
  const auto add = [&](const std::string& name) -> NormVariant& {
    return all.emplace_back(NormVariant{name, norm_.spec, norm_.in});
  };

  std::set<Index> widths;
  const auto add_width = [&](const std::vector<double>& shares) {
    const double padded = std::nearbyint(n / median(shares));
    if (padded > n && padded <= most_padding * n && is_near(n / median(shares), padded))
      widths.insert(static_cast<Index>(padded));
  };
  if (rstd || y) {
    const RowSums sums = sums_of_squares(norm_, rstd, y, rows);
    // rstd has as many digits in every row: small variances tell more of eps. d: by how much a variance and
    // eps are off; with a share of the variance v, as of another width, it follows v.
    double weights = 0, sum_d = 0, sum_dd = 0, sum_vv = 0, sum_vd = 0;
    std::vector<double> shares;
    for (std::size_t i = 0; i < sums.rows.size(); ++i) {
      const double v = sums.exact[i] / n, d = (sums.got[i] - sums.exact[i]) / n,
                   size = v + d + norm_.spec.eps, weight = 1 / (size * size);
      weights += weight;
      sum_d += weight * d, sum_dd += weight * d * d, sum_vv += weight * v * v, sum_vd += weight * v * d;
      shares.push_back(sums.got[i] / sums.exact[i]);
    }
    const bool is_share = sum_vd * sum_vd * weights > sum_d * sum_d * sum_vv;
    if (is_share) add_width(shares);
    double eps = is_share ? 0 : norm_.spec.eps + sum_d / weights;
    if (eps > most_eps) {
      // Columns of padding that are 1 add as much to each row.
      for (const Index padded : padded_widths(norm_.in.width())) {
        const double more = (static_cast<double>(padded) - n) / n;
        if (!norm_.spec.is_centred && is_near(sum_d / weights, more))
          add("columns of padding as 1 in the mean square, up to " + std::to_string(padded)).spec.eps += more;
      }
      eps = 0;
    }
    // None, or nearly so, has another name.
    constexpr double least_eps = 1e-3;
    std::set<std::string> texts;
    for (int digits = 1;
         eps > 0 && eps >= least_eps * norm_.spec.eps && std::isfinite(eps) && digits <= most_digits;
         ++digits)
      texts.insert(number_text(eps, digits));
    for (const std::string& text : texts) {
      const double other = number_of(text);
      if (std::isfinite(other) && !is_near(other, norm_.spec.eps)) add("eps = " + text).spec.eps = other;
    }
  }
  if (mean) {
    std::vector<double> shares;
    for (const Index i : rows)
      if (mean->value[i] != 0) shares.push_back(mean->dumped->values[i] / mean->value[i]);
    add_width(shares);
  }
  for (const Index padded : widths)
    for (NormVariant& v : over_padded_width(norm_.spec, norm_.in, padded)) all.push_back(std::move(v));
  return all;
}

std::vector<Decoy> NormProblem::multiplied_gradients(std::span<const Expected> expected) const {
  std::vector<Decoy> all;
  // Gradients of other statistics may be off by about a factor, too.
  for (const char* forward : {"y", "mean", "rstd", "sum"})
    if (wrong_output(expected, forward)) return all;
  for (const std::string name : {"dweight", "dbias", "dx"}) {
    const Expected* e = wrong_output(expected, name);
    if (!e) continue;
    const double factor = factor_of(*e), rows = static_cast<double>(norm_.in.rows());
    // One so near to 1 is no other than rounding.
    constexpr double roundings = 4;
    if (!std::isfinite(factor) || std::abs(factor - 1) <= roundings * unit_roundoff(e->dtype)) continue;
    const auto add = [&](const std::string& cause, double by) {
      Decoy& answer =
          all.emplace_back(Decoy{cause, name, evenly_spread(e->dumped->size(), most_elements), {}});
      answer.is_of_whole_call = true;
      for (const Index at : answer.at) answer.value.push_back(by * e->value[at]);
    };
    if (name != "dx" && rows > 1 && is_near(factor * rows, 1)) {
      add(name + " as a mean over the rows, not a sum", 1 / rows);
      continue;
    }
    const double divisor = std::nearbyint(1 / factor);
    if (divisor > 1 && is_near(1 / factor, divisor)) {
      add(name + " divided by " + number_text(divisor, 9), 1 / divisor);
      continue;
    }
    std::set<std::string> texts;
    for (int digits = 1; digits <= most_digits; ++digits) texts.insert(number_text(factor, digits));
    for (const std::string& text : texts) {
      const double by = number_of(text);
      if (std::isfinite(by) && by != 0 && by != 1) add(name + " times " + text, by);
    }
  }
  return all;
}

}  // namespace attest
