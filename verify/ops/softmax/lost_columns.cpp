// Which columns the row sum of a softmax, or the sum of dy y of its gradient, has lost or counted twice.
#include <algorithm>
#include <cmath>
#include <iterator>

#include "verify/compare.hpp"
#include "verify/ops/lost_terms.hpp"
#include "verify/ops/sample.hpp"
#include "verify/ops/softmax/problem.hpp"

namespace attest {
namespace {

constexpr Index most_rows = 64;

}  // namespace

std::vector<DiagnosisEntry> SoftmaxProblem::explanations(std::span<const Expected> expected) const {
  std::vector<DiagnosisEntry> all = lost_columns(expected);
  std::ranges::move(coarse_exp(expected), std::back_inserter(all));
  return all;
}

std::vector<DiagnosisEntry> SoftmaxProblem::lost_columns(std::span<const Expected> expected) const {
  std::vector<DiagnosisEntry> all;
  const auto wrong = [&](std::string_view output) -> const Expected* {
    const auto e = std::ranges::find(expected, output, &Expected::output);
    return e != expected.end() && has_wrong_elements(*e) ? &*e : nullptr;
  };
  const Expected *y = wrong("y"), *dx = wrong("dx");
  const Tensor* given_dy = case_.input("dy");
  if (n_ == 0 || (!y && !(dx && given_dy))) return all;
  const View<const double, 3> x = like_x(given().values.data());
  std::vector<std::vector<double>> terms;  // of each row
  WeightedSum sum;
  sum.places = n_;
  std::vector<double> s(n_), p(n_);
  for (const Index row : evenly_spread(rows(), most_rows)) {
    const Index o = row / inner_, i = row % inner_;
    if (may_be_special(o, i)) continue;
    ref::softmax_scores(spec_, column(x, o, i), column(mask(), o, i), {s.data(), {n_}});
    const ref::SoftmaxState state = ref::online_softmax({s.data(), {n_}});
    if (!(state.l > 0)) continue;
    ref::softmax({s.data(), {n_}}, state, spec_.empty_row, {p.data(), {n_}});
    double gg = 0, gw = 0, exact = 0;
    std::vector<double> of_row(n_);
    for (Index j = 0; j < n_; ++j) {
      const Index at = (o * n_ + j) * inner_ + i;
      if (y) {  // y is too large by as much as its sum is too small
        of_row[j] = p[j];
        const double got = y->dumped->values[at];
        gg += got * got, gw += got * p[j];
      } else {  // what is subtracted is p slope times the sum
        const double dy = given_dy->values[at];
        of_row[j] = p[j] * dy;
        const double slope = ref::softmax_score_slope(spec_, x(o, j, i), mask_.empty() ? 1 : mask()(o, j, i));
        const double unit = p[j] * slope;
        gg += unit * unit, gw += unit * (unit * dy - dx->dumped->values[at]);
      }
      exact += of_row[j];
    }
    if (!std::isfinite(gw / gg)) continue;
    sum.exact.push_back(exact);
    sum.got.push_back(gw / gg);
    terms.push_back(std::move(of_row));
  }
  if (terms.empty()) return all;
  const Index count = static_cast<Index>(terms.size());
  std::vector<double> by_column(n_ * count);
  for (Index j = 0; j < n_; ++j) {
    for (Index n = 0; n < count; ++n) by_column[j * count + n] = terms[n][j];
    sum.terms.push_back({j, 1, &by_column[j * count], 1});
  }
  if (const auto entry = lost_or_doubled(sum, "column", y ? "the row sum" : "the sum of dy y"))
    all.push_back(*entry);
  return all;
}

}  // namespace attest
