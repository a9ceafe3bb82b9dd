// Rows of a softmax case, what their outputs imply of their sums, and answers made of rows, for diagnoses.
#include <algorithm>
#include <cmath>

#include "verify/ops/softmax/problem.hpp"
#include "verify/ops/softmax/stages.hpp"

namespace attest {
namespace {

using Values = std::vector<double>;

/// Sums in another order differ by this many roundings or so, and an exp adds a few.
constexpr double roundings_of_a_sum = 32;

}  // namespace

Values SoftmaxProblem::row_of(View<const double, 3> tensor, Index row) const {
  Values copy;
  for (Index j = 0; tensor && j < n_; ++j) copy.push_back(tensor(row / inner_, j, row % inner_));
  return copy;
}

Values SoftmaxProblem::row_of_output(const std::string& output, Index row) const {
  return row_of(like_x(case_.out.at(output).values.data()), row);
}

SoftmaxRow SoftmaxProblem::computed(const SoftmaxVariant& variant, Index row, double sum) const {
  const Tensor* dy = case_.input("dy");
  return computed_row(variant, row_of(like_x(given().values.data()), row), row_of(mask(), row),
                      dy ? row_of(like_x(dy->values.data()), row) : Values{}, sum);
}

std::vector<double> SoftmaxProblem::scores_of(Index row) const {
  std::vector<double> s(n_);
  const Index o = row / inner_, i = row % inner_;
  ref::softmax_scores(spec_, column(like_x(given().values.data()), o, i), column(mask(), o, i),
                      {s.data(), {n_}});
  return s;
}

std::optional<SoftmaxProblem::RowSum> SoftmaxProblem::implied_sum(const SoftmaxRow& right, Index row) const {
  if (!(right.l > 0) || may_be_special(row / inner_, row % inner_)) return {};
  const double of_sum = roundings_of_a_sum * unit_roundoff(compute_);
  const auto differs = [&](RowSum sum) -> std::optional<RowSum> {
    const bool is_right = std::abs(sum.value - right.l) <= sum.tolerance;
    return is_right || !std::isfinite(sum.value) || !(sum.value > 0) ? std::nullopt : std::optional(sum);
  };
  // An lse or an l in a wide type says it to more digits than weights do.
  if (const Tensor* l = case_.output("l"); l && l->size() == rows())
    if (const auto sum = differs({l->values[row], (of_sum + unit_roundoff(*l->dtype)) * right.l})) return sum;
  if (const Tensor* lse = case_.output("lse"); lse && lse->size() == rows()) {
    const double stored = unit_roundoff(*lse->dtype) * (std::abs(right.lse) + std::abs(right.m));
    if (const auto sum = differs({std::exp(lse->values[row] - right.m), (of_sum + 2 * stored) * right.l}))
      return sum;
  }
  if (!case_.output("y")) return {};
  const Values y = row_of_output("y", row);
  double pp = 0, py = 0;
  for (Index j = 0; j < n_; ++j) pp += right.y[j] * right.y[j], py += right.y[j] * y[j];
  return differs({right.l * pp / py, (of_sum + unit_roundoff(*case_.output("y")->dtype)) * right.l});
}

bool SoftmaxProblem::has_statistics_of(const SoftmaxRow& candidate, Index row) const {
  const double compute = unit_roundoff(compute_), of_sum = roundings_of_a_sum * compute;
  const auto is = [&](const char* output, double value, double relative, double absolute) {
    const Tensor* dumped = case_.output(output);
    if (!dumped || dumped->size() != rows()) return true;
    const double got = dumped->values[row], stored = unit_roundoff(*dumped->dtype);
    return got == value || std::abs(got - value) <= (relative + 2 * stored) * std::abs(value) + absolute;
  };
  return is("m", candidate.m, 2 * compute, 0) && is("l", candidate.l, of_sum, 0) &&
         is("lse", candidate.lse, 2 * compute, of_sum + 2 * compute * std::abs(candidate.m));
}

bool SoftmaxProblem::has_weights_of(const SoftmaxRow& candidate, Index row) const {
  const Tensor* dumped = case_.output("y");
  if (!dumped) return true;
  if (candidate.y.empty()) return false;
  // Rounding takes a few where the bounds are wider.
  constexpr double least_share = 0.9;
  const double stored = unit_roundoff(*dumped->dtype), compute = unit_roundoff(compute_);
  const double least_normal = std::ldexp(1.0, format_of(*dumped->dtype).emin);
  const Values y = row_of_output("y", row);
  double right = 0;
  for (Index j = 0; j < n_; ++j) {
    const double want = candidate.y[j], exponent = want > 0 ? std::abs(std::log(want)) : 0;
    const double relative = 2 * stored + roundings_of_a_sum * compute * (2 + exponent);
    right += std::abs(y[j] - want) <= relative * std::abs(want) + 2 * stored * least_normal;
  }
  return right >= least_share * static_cast<double>(n_);
}

std::vector<Decoy> SoftmaxProblem::answers(const std::string& name, std::string_view only,
                                           bool is_of_whole_call, const std::vector<Index>& some_rows,
                                           const std::function<SoftmaxRow(Index)>& row_with) const {
  std::vector<Decoy> all;
  for (const auto& [output, tensor] : case_.out) {
    if (!only.empty() && only != output) continue;
    all.push_back({name, output, {}, {}});
    all.back().is_of_whole_call = is_of_whole_call;
  }
  for (const Index row : some_rows) {
    const Index o = row / inner_, i = row % inner_;
    if (may_be_special(o, i)) continue;
    const SoftmaxRow r = row_with(row);
    if (!(r.l > 0)) continue;
    for (Decoy& decoy : all) {
      const auto add = [&](Index at, double value) {
        decoy.at.push_back(at);
        decoy.value.push_back(value);
      };
      if (decoy.output == "y" || decoy.output == "dx") {
        const Values& of = decoy.output == "y" ? r.y : r.dx;
        for (Index j = 0; j < static_cast<Index>(of.size()); ++j) add((o * n_ + j) * inner_ + i, of[j]);
        continue;
      }
      const double value = decoy.output == "m" ? r.m : decoy.output == "l" ? r.l : r.lse;
      const Index copies = case_.out.at(decoy.output).size() / rows();
      for (Index copy = 0; copy < copies; ++copy) add((o * copies + copy) * inner_ + i, value);
    }
  }
  return all;
}

}  // namespace attest
