// Mean and variance are sums over columns: which columns a kernel has lost or counted twice; and whether it
// formed the variance in one pass.
#include <algorithm>
#include <cmath>

#include "verify/compare.hpp"
#include "verify/ops/lost_terms.hpp"
#include "verify/ops/norm/problem.hpp"
#include "verify/ops/norm/row_statistics.hpp"
#include "verify/ops/norm/stages.hpp"
#include "verify/ops/sample.hpp"

namespace attest {
namespace {

constexpr Index most_rows = 64;

/// Of rows whose variance has to be a multiple of a number; by chance half of them have one.
constexpr double least_share = 0.9;

}  // namespace

std::vector<DiagnosisEntry> NormProblem::lost_columns(std::span<const Expected> expected) const {
  std::vector<DiagnosisEntry> all;
  const NormInputs& in = norm_.in;
  const Index width = in.width();
  const double n = static_cast<double>(width);
  if (in.rstd) return all;
  const auto wrong = [&](std::string_view output) -> const Expected* {
    const auto e = std::ranges::find(expected, output, &Expected::output);
    return e != expected.end() && has_wrong_elements(*e) ? &*e : nullptr;
  };
  const NormVariant right{"", norm_.spec, in};
  const NormStages kernel(right, {});
  const auto explain = [&](const RowSums& sums, const std::string& of, auto term) {
    if (sums.rows.empty()) return;
    std::vector<double> terms;
    for (Index j = 0; j < width; ++j)
      for (const Index i : sums.rows) terms.push_back(term(i, j));
    WeightedSum sum;
    sum.exact = sums.exact, sum.got = sums.got, sum.places = width;
    const Index count = static_cast<Index>(sums.rows.size());
    for (Index j = 0; j < width; ++j) sum.terms.push_back({j, 1, &terms[j * count], 1});
    if (const auto entry = lost_or_doubled(sum, "column", of)) all.push_back(*entry);
  };
  const std::vector<Index> rows = evenly_spread(in.rows(), most_rows);
  if (const Expected* mean = wrong("mean")) {
    RowSums sums;
    for (const Index i : rows) {
      sums.rows.push_back(i);
      sums.exact.push_back(n * mean->value[i]);
      sums.got.push_back(n * mean->dumped->values[i]);
    }
    explain(sums, "the mean", [&](Index i, Index j) { return in.x(i, j); });
    return all;
  }
  const Expected *rstd = wrong("rstd"), *y = wrong("y");
  if (!rstd && !y) return all;
  const RowSums sums = sums_of_squares(norm_, rstd, y, rows);
  std::vector<double> mean(in.rows());
  for (const Index i : sums.rows) mean[i] = norm_.spec.is_centred ? kernel.statistics(i).mean : 0;
  explain(sums, norm_.spec.is_centred ? "the variance" : "the mean square",
          [&](Index i, Index j) { return (in.x(i, j) - mean[i]) * (in.x(i, j) - mean[i]); });
  return all;
}

// Of E[x^2] - mean^2 the first number is rounded, and if the second is, too, their difference is exact: it is
// a multiple of the spacing of numbers near E[x^2]. Where mean^2 is not rounded, the sum with it is.
// Variances that are formed otherwise are so by chance only.
std::vector<DiagnosisEntry> NormProblem::one_pass(std::span<const Expected> expected) const {
  const auto rstd = std::ranges::find(expected, "rstd", &Expected::output),
             mean = std::ranges::find(expected, "mean", &Expected::output);
  const bool may_be =
      norm_.spec.is_centred && !norm_.in.rstd && norm_.contract.variance == bounds::Variance::two_pass;
  if (!may_be || rstd == expected.end() || !has_wrong_elements(*rstd)) return {};
  // A variance is known from rstd to a few units in its last place.
  constexpr double units = 4, quarter = 0.25;
  Index rows = 0, differences = 0, sums = 0;
  for (Index i = 0; i < norm_.in.rows(); ++i) {
    const double got = rstd->dumped->values[i], v = 1 / (got * got) - norm_.spec.eps;
    const double mu = mean != expected.end() ? mean->dumped->values[i] : 0;
    const double of_squares = v + mu * mu;
    if (mean == expected.end() || !std::isfinite(of_squares) || !(of_squares > 0)) continue;
    const double spacing = ulp(of_squares, norm_.contract.compute);
    if (!(units * ulp(v + norm_.spec.eps, rstd->dtype) < quarter * spacing)) continue;
    const auto is_multiple = [&](double x) {
      return std::abs(x - std::nearbyint(x / spacing) * spacing) <= quarter * spacing;
    };
    ++rows;
    differences += is_multiple(v), sums += is_multiple(of_squares);
  }
  // Half of all numbers are as near to a multiple.
  constexpr Index fewest_rows = 20;
  const double share =
      static_cast<double>(std::max(differences, sums)) / static_cast<double>(std::max(rows, Index{1}));
  if (rows < fewest_rows || share < least_share) return {};
  return {{"variance as the mean square less the square of the mean: contract key variance", share,
           std::to_string(std::max(differences, sums)) + " of " + std::to_string(rows) +
               " variances are multiples of the spacing near the mean square"}};
}

}  // namespace attest
