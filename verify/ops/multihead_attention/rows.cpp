// Multi-head attention that failed: rows that tell why, and the head that is to blame.
#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "verify/compare.hpp"
#include "verify/diagnosis/diagnose.hpp"
#include "verify/ops/multihead_attention/problem.hpp"
#include "verify/ops/sample.hpp"
#include "verify/ops/weighted_sums.hpp"

namespace attest {
namespace {

constexpr Index most_rows = 16, fewest_rows = 4;

/// What a head has to explain of the squared errors of y in the rows that are looked at.
constexpr double least_explained = 0.9;

/// An orthonormal basis of what the columns of w[M, D] span, one vector after the other.
std::vector<std::vector<double>> basis_of(View<const double, 2> w) {
  std::vector<std::vector<double>> basis;
  const auto length = [](const std::vector<double>& x) {
    double squares = 0;
    for (const double value : x) squares += value * value;
    return std::sqrt(squares);
  };
  for (Index d = 0; d < w.extent(1); ++d) {
    std::vector<double> column(w.extent(0));
    for (Index n = 0; n < w.extent(0); ++n) column[n] = w(n, d);
    const double before = length(column);
    for (const std::vector<double>& other : basis) {
      double product = 0;
      for (std::size_t n = 0; n < column.size(); ++n) product += column[n] * other[n];
      for (std::size_t n = 0; n < column.size(); ++n) column[n] -= product * other[n];
    }
    const double rest = length(column);
    if (!(rest > std::sqrt(std::numeric_limits<double>::epsilon()) * before)) continue;  // depends on them
    for (double& value : column) value /= rest;
    basis.push_back(std::move(column));
  }
  return basis;
}

}  // namespace

std::vector<Index> MultiheadProblem::telling_rows(Index b, std::span<const Expected> expected) const {
  std::vector<Index> wrong;
  for (Index i = 0; i < multihead_.queries; ++i) {
    bool is_wrong = false;
    const auto look_at = [&](const Expected& e, const double& place) {
      const Index at = &place - e.value.data();
      is_wrong |= !within_bound(e, at, e.dumped->values[at]);
    };
    for (const Expected& e : expected) {
      if (e.output == "y") {
        const View<const double, 2> y = multihead_.like_y(e.value.data(), b);
        for (Index m = 0; m < y.extent(1); ++m) look_at(e, y(i, m));
      } else {
        const View<const double, 3> weights = multihead_.like_weights(e.value.data(), b);
        for (Index h = 0; h < weights.extent(0); ++h)
          for (Index j = 0; j < weights.extent(2); ++j) look_at(e, weights(h, i, j));
      }
    }
    if (is_wrong) wrong.push_back(i);
  }
  std::vector<Index> rows;
  for (const Index n : evenly_spread(static_cast<Index>(wrong.size()), most_rows)) rows.push_back(wrong[n]);
  for (const Index i : evenly_spread(multihead_.queries, fewest_rows)) rows.push_back(i);
  std::ranges::sort(rows);
  rows.erase(std::unique(rows.begin(), rows.end()), rows.end());
  return rows;
}

Decoy MultiheadProblem::joined(const std::string& name, Index b, const std::vector<Index>& rows,
                               const ref::MultiheadInputs& in, const HeadOutput& o) const {
  const Index width = multihead_.width, d = width / multihead_.heads;
  std::vector<Decoy> answers{{name, "y", {}, {}}};
  Array<double, 2> of_heads({1, width}), y({1, width});
  for (const Index i : rows) {
    for (Index h = 0; h < multihead_.heads; ++h) o(h, i, {&of_heads(0, h * d), {d}});
    ref::linear(std::as_const(of_heads).view(), in.out_weight, in.out_bias, y.view());
    add_row(answers, b, i, y.view().slice(0), {});
  }
  return std::move(answers.front());
}

Index MultiheadProblem::wrong_head(std::span<const Expected> expected) const {
  const auto y = std::ranges::find(expected, "y", &Expected::output);
  const Index heads = multihead_.heads, width = multihead_.width, d = width / heads;
  // Vectors that half of all columns span explain too much of anything.
  if (y == expected.end() || heads < 3 || !has_wrong_elements(*y)) return -1;
  std::vector<std::vector<double>> errors;
  for (const Index b : evenly_spread(multihead_.batch, 2)) {
    const View<const double, 2> want = multihead_.like_y(y->value.data(), b),
                                got = multihead_.like_y(y->dumped->values.data(), b);
    for (const Index i : telling_rows(b, {&*y, 1})) {
      bool is_wrong = false;
      std::vector<double>& error = errors.emplace_back(width);
      for (Index m = 0; m < width; ++m) {
        error[m] = got(i, m) - want(i, m);
        is_wrong |= !within_bound(*y, &want(i, m) - y->value.data(), got(i, m));
        if (!std::isfinite(error[m])) return -1;
      }
      if (!is_wrong) errors.pop_back();
    }
  }
  if (errors.empty()) return -1;
  double most = 0;
  Index best = -1;
  for (Index h = 0; h < heads; ++h) {
    const auto basis = basis_of(multihead_.entry(0).out_weight.narrowed(1, h * d, d));
    double all = 0, explained = 0;
    for (const std::vector<double>& error : errors) {
      for (const double value : error) all += value * value;
      for (const std::vector<double>& direction : basis) {
        double product = 0;
        for (Index m = 0; m < width; ++m) product += error[m] * direction[m];
        explained += product * product;
      }
    }
    if (explained > most * all) most = explained / all, best = h;
  }
  return most >= least_explained ? best : -1;
}

std::vector<DiagnosisEntry> MultiheadProblem::explanations(std::span<const Expected> expected) const {
  std::vector<DiagnosisEntry> all;
  if (const Index h = wrong_head(expected); h >= 0)
    all.push_back({"head " + std::to_string(h) + ", before the output projection", confidence_of_a_place,
                   "the errors of y are what its columns of out_proj_weight can make"});
  const auto is = [&](std::string_view output, bool fails) {
    const auto e = std::ranges::find(expected, output, &Expected::output);
    return e != expected.end() && has_wrong_elements(*e) == fails;
  };
  if (is("y", true) && is("weights", false))
    all.push_back({"v, its product with the weights, or the output projection", confidence_of_a_place,
                   "out/weights is right"});
  return all;
}

}  // namespace attest
