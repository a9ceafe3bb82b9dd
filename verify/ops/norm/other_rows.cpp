// Rows that have the statistics or the residual of another row: which one is fitted to the wrong elements.
#include <algorithm>
#include <cmath>

#include "core/array.hpp"
#include "verify/compare.hpp"
#include "verify/ops/norm/places.hpp"
#include "verify/ops/norm/problem.hpp"
#include "verify/ops/norm/stages.hpp"
#include "verify/ops/sample.hpp"

namespace attest {
namespace {

constexpr Index most_rows = 48, most_columns = 12, most_maps = 4096, most_statistics = Index{1} << 24;

/// Rows that have to come from the rows that a map says, of those that are wrong.
constexpr double least_share = 0.8;

/// A kernel that reads row i - by or, with a modulus, row i modulo it.
struct RowMap {
  Index by = 0, modulus = 0;

  /// Its own, where there is no such row.
  Index of(Index i, Index rows) const {
    const Index row = modulus > 0 ? i % modulus : i - by;
    return row < 0 || row >= rows ? i : row;
  }
  std::string text() const {
    if (modulus > 0) return modulus == 1 ? "row 0" : "row i modulo " + std::to_string(modulus);
    if (by == 1 || by == -1) return by > 0 ? "the row before" : "the next row";
    return "the row " + std::to_string(std::abs(by)) + (by > 0 ? " before" : " further on");
  }
};

/// A wrong element of the output.
struct Wrong {
  Index i, j;
};

std::vector<Wrong> wrong_sample(const Expected& e, Index width) {
  std::vector<Wrong> all;
  for (const Index i : wrong_rows(e, width, most_rows)) {
    std::vector<Index> columns;
    for (Index j = 0; j < width; ++j)
      if (!within_bound(e, i * width + j, e.dumped->values[i * width + j])) columns.push_back(j);
    for (const Index n : evenly_spread(static_cast<Index>(columns.size()), most_columns))
      all.push_back({i, columns[n]});
  }
  return all;
}

/// The map that explains most wrong elements, if it explains nearly all. value(i, j, row): what element (i,
/// j) is with row's statistics or residual.
template <class Value>
std::optional<RowMap> best_map(const Expected& e, const std::vector<Wrong>& wrong, Index rows, Index width,
                               Value value) {
  RowMap best;
  std::size_t most = 0;
  const auto attempt = [&](const RowMap& map) {
    std::size_t explained = 0;
    for (const auto& [i, j] : wrong) {
      const Index at = i * width + j, row = map.of(i, rows);
      if (row == i) continue;
      const double answer = round_to(value(i, j, row), e.dtype), got = e.dumped->values[at];
      explained += std::abs(got - answer) <= e.bound(at) + ulp(std::abs(answer), e.dtype) &&
                   2 * std::abs(got - answer) <= std::abs(got - e.value[at]);
    }
    if (explained > most) most = explained, best = map;
  };
  for (Index n = 1; n <= std::min(rows - 1, most_maps); ++n) {
    attempt({n, 0});
    attempt({-n, 0});
    attempt({0, n});
  }
  constexpr std::size_t fewest = 8;
  const bool is_one =
      most >= fewest && static_cast<double>(most) >= least_share * static_cast<double>(wrong.size());
  return is_one ? std::optional(best) : std::nullopt;
}

}  // namespace

std::vector<Decoy> NormProblem::of_other_rows(std::span<const Expected> expected) const {
  const NormInputs& in = norm_.in;
  const Index rows = in.rows(), width = in.width();
  std::vector<Decoy> all;
  if (rows < 2 || rows * width > most_statistics) return all;
  const auto wrong_output = [&](std::string_view output) -> const Expected* {
    const auto e = std::ranges::find(expected, output, &Expected::output);
    return e != expected.end() && has_wrong_elements(*e) ? &*e : nullptr;
  };
  const Expected *y = wrong_output("y"), *sum = wrong_output("sum");

  const auto of_output = [&](const Expected& e, const std::string& name, const RowMap& map, auto value) {
    const std::optional<ColumnPlace> place = place_of_wrong_columns(e, width);
    Decoy answer{name + " of " + map.text() + (place ? place->text : ""), e.output, {}, {}};
    for (const Index i : evenly_spread(rows, most_rows)) {
      const Index row = map.of(i, rows);
      for (Index j = 0; j < width; ++j) {
        const Index at = i * width + j;
        answer.at.push_back(at);
        answer.value.push_back(row == i || (place && !place->holds(j)) ? e.value[at] : value(i, j, row));
      }
    }
    all.push_back(std::move(answer));
  };

  if (const Tensor* x = case_.input("x"), *residual = case_.input("residual"); sum && residual) {
    const auto value = [&](Index i, Index j, Index row) {
      const double s = x->values[i * width + j] + residual->values[row * width + j];
      return norm_.rounds_sum() ? round_to(s, *residual->dtype) : s;
    };
    const auto map = best_map(*sum, wrong_sample(*sum, width), rows, width, value);
    if (!map) return all;
    of_output(*sum, "residual", *map, value);
    std::vector<double> s(rows * width);
    for (Index at = 0; at < rows * width; ++at)
      s[at] = value(at / width, at % width, map->of(at / width, rows));
    NormVariant wrong{"", norm_.spec, in};
    wrong.in.x = {s.data(), {rows, width}};
    const NormStages kernel(wrong, {});
    Array<double, 1> of_row({width});
    Index last = -1;
    if (!y) return all;
    of_output(*y, "residual", *map, [&](Index i, Index j, Index) {
      if (i != last) kernel.row(i, kernel.statistics(i), of_row.view(), {});
      last = i;
      return of_row(j);
    });
    return all;
  }

  if (!y) return all;
  const NormVariant right{"", norm_.spec, in};
  const NormStages kernel(right, {});
  std::vector<NormStages::Statistics> statistics;
  for (Index i = 0; i < rows; ++i) statistics.push_back(kernel.statistics(i));
  const std::vector<Wrong> wrong = wrong_sample(*y, width);
  for (const bool with_mean : {false, true}) {
    if (with_mean && !norm_.spec.is_centred) continue;
    const auto value = [&](Index i, Index j, Index row) {
      double h = (in.x(i, j) - statistics[with_mean ? row : i].mean) * statistics[row].rstd;
      if (norm_.spec.xhat_dtype) h = round_to(h, *norm_.spec.xhat_dtype);
      return (in.weight ? in.weight(j) + norm_.spec.weight_offset : 1) * h + (in.bias ? in.bias(j) : 0);
    };
    const auto map = best_map(*y, wrong, rows, width, value);
    // The row before and the next one are among the variants already.
    const bool is_variant = map && std::abs(map->by) == 1 && !place_of_wrong_columns(*y, width);
    if (map && !is_variant) of_output(*y, with_mean ? "mean and rstd" : "rstd", *map, value);
  }
  return all;
}

}  // namespace attest
