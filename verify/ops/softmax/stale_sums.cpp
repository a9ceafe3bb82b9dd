// Rows of a softmax that hold sums of another row, as a block leaves them in shared memory where a barrier is
// missing: the row sum or a warp's part of it, or the sum of dy y in a warp's columns.
#include <algorithm>
#include <cmath>
#include <iterator>
#include <map>
#include <set>

#include "verify/ops/softmax/problem.hpp"
#include "verify/ops/softmax/stages.hpp"

namespace attest {
namespace {

using Values = std::vector<double>;

constexpr Index warp = 32, most_warps = 32, most_vector = 8, most_rows_apart = 512;
constexpr Index most_elements = 1 << 20;  // of rows before, and as many of rows further on

/// A single row agrees with one of so many candidates by chance.
constexpr std::size_t least_rows = 3;

std::string place_of(Index by) {
  return by == -1  ? "the row before"
         : by == 1 ? "the next row"
                   : "the row " + std::to_string(std::abs(by)) + (by < 0 ? " before" : " further on");
}

/// Columns in chunks of 32 that one of `warps` warps takes, `vector` columns a thread at a time.
struct WarpColumns {
  Index warps, vector, of;
  std::vector<bool> holds;  // chunks

  std::string text(Index width) const {
    const Index first = of * warp * vector, period = warps * warp * vector;
    const std::string range = "columns " + std::to_string(first) + ".." +
                              std::to_string(std::min(first + warp * vector, width) - 1);
    return first + period >= width ? range : range + " of every " + std::to_string(period);
  }
  Index size() const { return std::ranges::count(holds, true); }
};

Index chunks_of(Index width) {
  return (width + warp - 1) / warp;
}

std::vector<WarpColumns> warp_columns(Index width) {
  std::vector<WarpColumns> all;
  std::set<std::vector<bool>> known;
  for (Index vector = 1; vector <= most_vector; vector *= 2) {
    for (Index warps = 2; warps <= most_warps && (warps / 2) * warp * vector < width; warps *= 2) {
      for (Index of = 0; of < warps && of * warp * vector < width; ++of) {
        WarpColumns columns{warps, vector, of, std::vector<bool>(chunks_of(width))};
        for (Index chunk = 0; chunk < chunks_of(width); ++chunk)
          columns.holds[chunk] = chunk / vector % warps == of;
        if (known.insert(columns.holds).second) all.push_back(std::move(columns));
      }
    }
  }
  return all;
}

/// Distances to other rows, the nearest first.
std::vector<Index> distances(Index rows, Index width) {
  const Index apart = std::min({rows - 1, most_rows_apart, std::max<Index>(most_elements / width, 1)});
  std::vector<Index> all;
  for (Index distance = 1; distance <= apart; ++distance) all.insert(all.end(), {-distance, distance});
  return all;
}

}  // namespace

std::vector<Decoy> SoftmaxProblem::parts_of_other_rows(const std::vector<Index>& some_rows) const {
  std::vector<Decoy> all;
  const SoftmaxVariant right{"", spec_};
  std::vector<std::pair<Index, RowSum>> wrong;
  for (const Index row : some_rows)
    if (const auto sum = implied_sum(computed(right, row), row)) wrong.push_back({row, *sum});
  if (wrong.size() < least_rows) return all;
  const std::vector<WarpColumns> sets = warp_columns(n_);
  struct Parts {
    double m = 0, l = 0;
    Values of_set;  // the last: of all columns
  };
  std::map<Index, Parts> known;
  const auto parts_of = [&](Index row) -> const Parts& {
    const auto [place, is_new] = known.try_emplace(row);
    if (!is_new) return place->second;
    const SoftmaxRow r = computed(right, row);
    Parts& parts = place->second;
    parts.m = r.m, parts.l = r.l, parts.of_set.resize(sets.size() + 1);
    if (!(r.l > 0)) return parts;
    Values chunks(chunks_of(n_));
    for (Index j = 0; j < n_; ++j) chunks[j / warp] += r.y[j] * r.l;
    for (std::size_t n = 0; n < sets.size(); ++n)
      for (std::size_t chunk = 0; chunk < chunks.size(); ++chunk)
        if (sets[n].holds[chunk]) parts.of_set[n] += chunks[chunk];
    parts.of_set.back() = r.l;
    return parts;
  };
  const auto sum_with = [&](Index row, Index by, std::size_t n) {
    const Parts &own = parts_of(row), &other = parts_of(row + by);
    return own.l - own.of_set[n] + other.of_set[n] * std::exp(other.m - own.m);
  };
  for (const Index by : distances(rows(), n_)) {
    const auto has_other = [&](Index row) { return row + by >= 0 && row + by < rows(); };
    if (!std::ranges::all_of(wrong, [&](const auto& x) { return has_other(x.first); })) continue;
    for (std::size_t n = 0; n <= sets.size(); ++n) {
      if (n == sets.size() && std::abs(by) == 1) continue;  // see softmax_variants
      const bool agrees = std::ranges::all_of(wrong, [&](const auto& x) {
        return std::abs(sum_with(x.first, by, n) - x.second.value) <= x.second.tolerance;
      });
      if (!agrees) continue;
      const std::string name = n == sets.size()
                                   ? "the row sum of " + place_of(by)
                                   : "a row sum with the part of " + sets[n].text(n_) + " of " + place_of(by);
      std::ranges::move(answers(name, "", false, some_rows,
                                [&](Index row) {
                                  return has_other(row) ? computed(right, row, sum_with(row, by, n))
                                                        : SoftmaxRow{};
                                }),
                        std::back_inserter(all));
    }
  }
  return all;
}

std::optional<SoftmaxProblem::Dot> SoftmaxProblem::implied_dot(const SoftmaxRow& right, Index row,
                                                               const std::vector<bool>& chunks) const {
  if (!(right.l > 0) || may_be_special(row / inner_, row % inner_)) return {};
  const Values dx = row_of_output("dx", row), dy = row_of(like_x(case_.input("dy")->values.data()), row),
               x = row_of(like_x(given().values.data()), row), kept = row_of(mask(), row);
  Dot dot{};
  double squares = 0, products = 0, sizes = 0;
  for (Index j = 0; j < n_; ++j) {
    dot.right += right.y[j] * dy[j];
    if (!chunks.empty() && !chunks[j / warp]) continue;
    // dx = unit (dy - dot)
    const double unit = right.y[j] * ref::softmax_score_slope(spec_, x[j], kept.empty() ? 1 : kept[j]);
    squares += unit * unit, products += unit * (unit * dy[j] - dx[j]);
    sizes += unit * unit * std::abs(dy[j]);
  }
  dot.value = products / squares;
  const double roundings = 8 * unit_roundoff(compute_) + 2 * unit_roundoff(*case_.output("dx")->dtype);
  dot.tolerance = roundings * (sizes / squares + std::abs(dot.right) + std::abs(dot.value));
  const bool is_right = std::abs(dot.value - dot.right) <= dot.tolerance;
  return is_right || !std::isfinite(dot.value) ? std::nullopt : std::optional(dot);
}

std::vector<Decoy> SoftmaxProblem::dots_of_other_rows(const std::vector<Index>& some_rows) const {
  std::vector<Decoy> all;
  const SoftmaxVariant right{"", spec_};
  // Chunks whose elements imply another sum than the row's, in any row.
  std::vector<bool> differs(chunks_of(n_));
  for (const Index row : some_rows) {
    const SoftmaxRow r = computed(right, row);
    if (!implied_dot(r, row, differs) && !implied_dot(r, row, {})) continue;
    for (Index chunk = 0; chunk < chunks_of(n_); ++chunk) {
      if (differs[chunk]) continue;
      std::vector<bool> alone(chunks_of(n_));
      alone[chunk] = true;
      differs[chunk] = implied_dot(r, row, alone).has_value();
    }
  }
  WarpColumns held{1, 1, 0, std::vector<bool>(chunks_of(n_), true)};
  for (const WarpColumns& set : warp_columns(n_)) {
    bool holds_all = true;
    for (Index chunk = 0; chunk < chunks_of(n_); ++chunk) holds_all &= set.holds[chunk] || !differs[chunk];
    if (holds_all && set.size() < held.size()) held = set;
  }
  std::vector<std::pair<Index, Dot>> wrong;
  for (const Index row : some_rows)
    if (const auto dot = implied_dot(computed(right, row), row, held.holds)) wrong.push_back({row, *dot});
  if (wrong.size() < least_rows) return all;
  std::map<Index, double> known;
  const auto dot_of = [&](Index row) {
    const auto [place, is_new] = known.try_emplace(row, 0);
    if (!is_new) return place->second;
    const SoftmaxRow r = computed(right, row);
    const Values dy = row_of(like_x(case_.input("dy")->values.data()), row);
    for (Index j = 0; r.l > 0 && j < n_; ++j) place->second += r.y[j] * dy[j];
    return place->second;
  };
  for (const Index by : distances(rows(), n_)) {
    const auto has_other = [&](Index row) { return row + by >= 0 && row + by < rows(); };
    const bool agrees = std::ranges::all_of(wrong, [&](const auto& x) {
      return has_other(x.first) && std::abs(dot_of(x.first + by) - x.second.value) <= x.second.tolerance;
    });
    if (!agrees) continue;
    const std::string name =
        "the sum of dy y of " + place_of(by) + (held.warps > 1 ? ", in " + held.text(n_) : std::string{});
    std::ranges::move(answers(name, "dx", false, some_rows,
                              [&](Index row) {
                                if (!has_other(row)) return SoftmaxRow{};
                                SoftmaxVariant variant = right;
                                variant.change = [dot = dot_of(row + by)](SoftmaxStage stage, double value) {
                                  return stage == SoftmaxStage::dot ? dot : value;
                                };
                                SoftmaxRow wrong_row = computed(variant, row);
                                const SoftmaxRow right_row = computed(right, row);
                                for (std::size_t j = 0; j < wrong_row.dx.size(); ++j)
                                  if (!held.holds[j / warp]) wrong_row.dx[j] = right_row.dx[j];
                                return wrong_row;
                              }),
                      std::back_inserter(all));
  }
  return all;
}

}  // namespace attest
