// The sums over a row that dx needs: warps that go on with their own part of them, and sums in a narrow
// format.
#include <algorithm>
#include <cmath>

#include "verify/compare.hpp"
#include "verify/ops/norm/problem.hpp"
#include "verify/ops/norm/stages.hpp"
#include "verify/ops/norm/warps.hpp"
#include "verify/ops/sample.hpp"

namespace attest {
namespace {

constexpr Index most_rows = 32, most_lanes = 1024, most_vector = 8;
/// What may be tried on how many elements.
constexpr Index most_in_narrow_sums = 1 << 16, most_in_answers = 1 << 15;

Index rows_for(Index elements, Index width) {
  return std::clamp(elements / width, Index{2}, most_rows);
}

/// A row of dx as rstd (direct - mean_g - xhat mean_gx), and the terms of both means.
struct RowOfDx {
  double rstd;
  std::vector<double> direct, xhat;
  double mean_g = 0, mean_gx = 0;

  RowOfDx(const NormCase& norm, View<const double, 2> dy, Index i) {
    const NormInputs& in = norm.in;
    const NormVariant right{"", norm.spec, in};
    const NormStages::Statistics s = NormStages(right, dy).statistics(i);
    rstd = s.rstd;
    for (Index j = 0; j < in.width(); ++j) {
      direct.push_back((in.weight ? in.weight(j) + norm.spec.weight_offset : 1) * dy(i, j));
      xhat.push_back((in.x(i, j) - s.mean) * s.rstd);
    }
    const double n = static_cast<double>(in.width());
    for (Index j = 0; j < in.width(); ++j) {
      mean_gx += direct[j] * xhat[j] / n;
      if (norm.spec.is_centred) mean_g += direct[j] / n;
    }
  }
  double value(Index j, double of_g, double of_gx) const {
    return rstd * (direct[j] - of_g - xhat[j] * of_gx);
  }
};

/// How threads put their sums together, each sum rounded: not at all, the block by halves, or warps by halves
/// and then one after the other.
enum class Merge { exact, halves, warps };

struct NarrowSum {
  Index lanes, vector;
  Merge merge;
  DType narrow;

  std::string text() const {
    return lanes == 1 ? "one by one,"
                      : "of each of " + std::to_string(lanes) + " threads" +
                            (vector == 1 ? "" : ", " + std::to_string(vector) + " columns at a time,") +
                            (merge == Merge::exact    ? ""
                             : merge == Merge::halves ? " and as merged"
                                                      : " and as merged, within warps first,");
  }
  template <class Term>
  double of(Index width, Term term) const {
    std::vector<double> sums(lanes);
    for (Index j = 0; j < width; ++j) {
      double& own = sums[j / vector % lanes];
      own = round_to(own + term(j), narrow);
    }
    const Index group = merge == Merge::halves ? lanes : merge == Merge::warps ? Index{32} : Index{1};
    double total = 0;
    for (Index first = 0; first < lanes; first += group) {
      for (Index half = group / 2; half > 0; half /= 2)
        for (Index t = first; t < first + half; ++t) sums[t] = round_to(sums[t] + sums[t + half], narrow);
      total += sums[first];
      if (merge == Merge::warps) total = round_to(total, narrow);
    }
    return total;
  }
};

std::vector<NarrowSum> narrow_sums(Index width, DType compute) {
  std::vector<NarrowSum> all;
  for (const DType narrow : narrow_formats(compute)) {
    all.push_back({1, 1, Merge::exact, narrow});
    for (Index lanes = 32; lanes <= most_lanes && lanes < width; lanes *= 2) {
      for (Index vector = 1; vector <= most_vector && lanes * vector < 2 * width; vector *= 2) {
        all.push_back({lanes, vector, Merge::exact, narrow});
        all.push_back({lanes, vector, Merge::halves, narrow});
        if (lanes > 32) all.push_back({lanes, vector, Merge::warps, narrow});
      }
    }
  }
  return all;
}

}  // namespace

// Warps that never read the sum of all of them go on with their own.
std::vector<Decoy> NormProblem::unshared_sums(std::span<const Expected> expected) const {
  std::vector<Decoy> all;
  const auto dx = std::ranges::find(expected, "dx", &Expected::output);
  if (dx == expected.end() || !has_wrong_elements(*dx)) return all;
  const Index width = norm_.in.width();
  const double n = static_cast<double>(width);
  const std::string what = norm_.spec.is_centred ? "means of dx" : "the mean of dy weight xhat";
  for (const Index i : evenly_spread(norm_.in.rows(), rows_for(most_in_answers, width))) {
    const RowOfDx row(norm_, norm_.dy, i);
    std::size_t next = 0;
    for (const Warps& warps : divisions_among_warps(width)) {
      std::vector<double> of_gx(warps.count), of_g(warps.count);
      for (Index j = 0; j < width; ++j) {
        of_gx[warps.of(j)] += row.direct[j] * row.xhat[j] / n;
        if (norm_.spec.is_centred) of_g[warps.of(j)] += row.direct[j] / n;
      }
      for (const bool but_for_first : {true, false}) {
        if (next == all.size())
          all.push_back(
              {what + " not shared among " + std::to_string(warps.count) + " warps: each" +
                   (but_for_first ? " but the first" : "") + " has its own part" +
                   (warps.vector == 1 ? "" : ", " + std::to_string(warps.vector) + " columns at a time"),
               "dx",
               {},
               {}});
        Decoy& answer = all[next++];
        for (Index j = 0; j < width; ++j) {
          const Index w = warps.of(j);
          const bool is_right = but_for_first && w == 0;
          answer.at.push_back(i * width + j);
          answer.value.push_back(
              row.value(j, is_right ? row.mean_g : of_g[w], is_right ? row.mean_gx : of_gx[w]));
        }
      }
    }
  }
  for (Decoy& answer : narrow_sums_of_dx(*dx)) all.push_back(std::move(answer));
  return all;
}

// The means that a row of dx was made with are fitted to it: xhat adds up to 0 if the norm is centred.
std::vector<Decoy> NormProblem::narrow_sums_of_dx(const Expected& dx) const {
  const Index width = norm_.in.width();
  const double n = static_cast<double>(width);
  const std::vector<Index> rows = evenly_spread(norm_.in.rows(), rows_for(most_in_narrow_sums, width));
  const std::vector<NarrowSum> sums = narrow_sums(width, norm_.contract.compute);
  std::vector<double> left(sums.size()), means(sums.size() * rows.size() * 2);
  std::vector<RowOfDx> parts;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    const RowOfDx& row = parts.emplace_back(norm_, norm_.dy, rows[r]);
    double of_gx = 0, of_g = 0, hh = 0;
    for (Index j = 0; j < width; ++j) {
      const double rest = row.direct[j] - dx.dumped->values[rows[r] * width + j] / row.rstd;
      of_gx += rest * row.xhat[j], hh += row.xhat[j] * row.xhat[j], of_g += rest / n;
    }
    of_gx /= hh;
    for (std::size_t k = 0; k < sums.size(); ++k) {
      const double gx = sums[k].of(width, [&](Index j) { return row.direct[j] * row.xhat[j]; }) / n;
      const double g =
          norm_.spec.is_centred ? sums[k].of(width, [&](Index j) { return row.direct[j]; }) / n : 0;
      means[2 * (k * rows.size() + r)] = g, means[2 * (k * rows.size() + r) + 1] = gx;
      left[k] += (gx - of_gx) * (gx - of_gx) + (norm_.spec.is_centred ? (g - of_g) * (g - of_g) : 0);
    }
  }
  const auto best = std::ranges::min_element(left);
  if (best == left.end() || !std::isfinite(*best)) return {};
  const std::size_t k = best - left.begin();
  Decoy answer{"sums over the columns for dx, " + sums[k].text() + in_format(sums[k].narrow), "dx", {}, {}};
  answer.is_of_whole_call = true;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    for (Index j = 0; j < width; ++j) {
      answer.at.push_back(rows[r] * width + j);
      answer.value.push_back(
          parts[r].value(j, means[2 * (k * rows.size() + r)], means[2 * (k * rows.size() + r) + 1]));
    }
  }
  return {answer};
}

}  // namespace attest
