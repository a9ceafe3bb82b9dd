// The product of layer_norm_qkv is a sum over columns: which of them a kernel has lost or counted twice, or
// normalised with the rstd of another token.
#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <vector>

#include "ref/norm.hpp"
#include "verify/compare.hpp"
#include "verify/ops/layer_norm_qkv/problem.hpp"
#include "verify/ops/weighted_sums.hpp"

namespace attest {
namespace {

constexpr Index most_tokens = 48, most_outputs = 64, fewest_tokens = 8;
/// What a range of columns has to explain of the squared errors.
constexpr double least_explained = 0.9;

std::string columns_text(const WrongRange& range) {
  return "columns " + std::to_string(range.first) + ".." + std::to_string(range.last - 1);
}

/// How many rows before or further on the one is whose rstd most rows seem to have; 0: there is none.
Index shift_of(const std::vector<Index>& rows, const std::vector<double>& got,
               const std::vector<double>& rstd) {
  constexpr Index most_shift = 4096;
  constexpr double near = 0.1, least_share = 0.8;
  const Index all = static_cast<Index>(rstd.size());
  Index best = 0, most = 0;
  for (Index n = 2; n < 2 * std::min(all, most_shift); ++n) {
    const Index by = n % 2 == 0 ? n / 2 : -(n / 2);
    Index count = 0;
    for (std::size_t r = 0; r < rows.size(); ++r) {
      const Index row = rows[r] - by;
      if (row < 0 || row >= all) continue;
      count += std::abs(got[r] - rstd[row]) <= near * std::abs(got[r] - rstd[rows[r]]);
    }
    if (count > most) most = count, best = by;
  }
  const bool is_one =
      most >= fewest_tokens && static_cast<double>(most) >= least_share * static_cast<double>(rows.size());
  return is_one ? best : 0;
}

}  // namespace

std::vector<DiagnosisEntry> LayerNormQkvProblem::explanations(std::span<const Expected> expected) const {
  std::array<const Expected*, 3> outputs{};
  for (std::size_t n = 0; n < 3; ++n) {
    const auto e = std::ranges::find(expected, qkv_names[n], &Expected::output);
    if (e != expected.end() && has_wrong_elements(*e)) outputs[n] = &*e;
  }
  std::vector<Index> columns;
  for (const Index o : evenly_spread(3 * width_, most_outputs))
    if (outputs[o / width_]) columns.push_back(o);
  const Index count = static_cast<Index>(columns.size());
  std::vector<Index> wrong, tokens;
  for (Index i = 0; i < batch_ * tokens_; ++i) {
    const bool is_wrong = std::ranges::any_of(columns, [&](Index o) {
      const Expected& e = *outputs[o / width_];
      return !within_bound(e, place(i, o), e.dumped->values[place(i, o)]);
    });
    if (is_wrong) wrong.push_back(i);
  }
  for (const Index n : evenly_spread(static_cast<Index>(wrong.size()), most_tokens))
    tokens.push_back(wrong[n]);
  std::vector<double> weights(width_ * count);  // [N, outputs]
  for (Index j = 0; j < width_; ++j)
    for (Index n = 0; n < count; ++n) weights[j * count + n] = in_.qkv_weight(columns[n], j);
  /// What the product sees, and the part of it that rstd is a factor of.
  std::vector<WeightedSum> sums, of_rstd;
  std::vector<double> rstd;
  for (Index i = 0; i < batch_ * tokens_; ++i)
    rstd.push_back(ref::norm_stats(spec_, in_.norm.x.slice(i)).rstd);
  for (const Index i : tokens) {
    const ref::NormStats s = ref::norm_stats(spec_, in_.norm.x.slice(i));
    WeightedSum sum;
    sum.places = width_;
    for (const Index o : columns) {
      const Expected& e = *outputs[o / width_];
      sum.exact.push_back(e.value[place(i, o)]);
      sum.got.push_back(e.dumped->values[place(i, o)]);
    }
    WeightedSum scaled = sum;
    for (Index j = 0; j < width_; ++j) {
      const double h = (in_.norm.x(i, j) - s.mean) * s.rstd * (in_.norm.weight ? in_.norm.weight(j) : 1);
      double y = h + (in_.norm.bias ? in_.norm.bias(j) : 0);
      if (contract_.stored) y = round_to(y, *contract_.stored);
      sum.terms.push_back({j, y, &weights[j * count], y});
      scaled.terms.push_back({j, h, &weights[j * count], h});
    }
    sums.push_back(std::move(sum));
    of_rstd.push_back(std::move(scaled));
  }

  const auto evidence = [](const WrongRange& range) {
    return "explains " + percent(range.explained) + " of the squared errors";
  };
  const WrongRange lost = best_range(sums, false);
  for (const auto& [x, how] : {std::pair{-1.0, " missing in"}, std::pair{1.0, " twice in"}}) {
    if (lost.explained >= least_explained && !lost.spans_all(width_) && lost.changes_by(x))
      return {{columns_text(lost) + how + " the product", lost.explained, evidence(lost)}};
  }
  const WrongRange off = best_range(of_rstd, false);
  if (off.explained < least_explained) return {};
  std::vector<Index> rows;
  std::vector<double> got;
  for (std::size_t n = 0; n < off.sum.size(); ++n) {
    rows.push_back(tokens[off.sum[n]]);
    got.push_back((1 + off.change[n]) * rstd[rows.back()]);
  }
  const Index by = shift_of(rows, got, rstd);
  if (by == 0) return {};
  const std::string of =
      by == 1    ? "the token before"
      : by == -1 ? "the next token"
                 : "the token " + std::to_string(std::abs(by)) + (by > 0 ? " before" : " further on");
  return {{"rstd of " + of + (off.spans_all(width_) ? "" : " in " + columns_text(off) + " of the norm"),
           off.explained, evidence(off)}};
}

}  // namespace attest
