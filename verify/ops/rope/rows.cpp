// Rows of a rotary embedding that are turned as at other positions than their own: which, as their pairs
// tell.
#include <algorithm>
#include <cmath>
#include <functional>
#include <optional>
#include <utility>

#include "verify/axes/runs.hpp"
#include "verify/compare.hpp"
#include "verify/ops/rope/problem.hpp"
#include "verify/ops/rope/sample.hpp"
#include "verify/ops/rope/turns.hpp"
#include "verify/ops/sample.hpp"
#include "verify/text.hpp"

namespace attest {
namespace {

constexpr Index most_rows = 32;            // that a position is looked for
constexpr double most_distance = 1 << 14;  // of a position from the row's own
constexpr double most_from_zero = 1 << 10;
constexpr double least_agreement = 0.95;  // of the elements of a row
constexpr Index least_elements = 16;      // of a row, lest chance find a position
constexpr Index least_lawful = 2;         // rows
constexpr std::size_t most_listed = 3;    // rows, one by one

double position_of(const bounds::RopeSource& source, Index row) {
  return source.has_table() ? static_cast<double>(source.table_rows[row]) : source.positions[row];
}

void set_position(bounds::RopeSource& source, Index row, double position) {
  if (source.has_table()) {
    source.table_rows[row] = static_cast<Index>(position);
  } else {
    source.positions[row] = position;
  }
}

/// Is there such a row of the table?
bool exists(const bounds::RopeSource& source, double position) {
  return !source.has_table() || (0 <= position && position < static_cast<double>(source.cos.extent(0)));
}

/// Rows that have an element that does not pass among the columns that turn.
std::vector<Index> rows_turned_wrongly(const RopeCase& rope, const Expected& e) {
  std::vector<Index> wrong;
  const AxisSizes& sizes = rope.shape.sizes;
  const double* const all = e.dumped->values.data();
  for (Index row = 0; row < rope.rows(); ++row) {
    const View<const double, 3> of_row =
        sequence_view(all, rope.shape.order, sizes, row / sizes.s, row % sizes.s, 1);
    bool is_wrong = false;
    for (Index h = 0; h < sizes.h && !is_wrong; ++h) {
      for (Index d = 0; d < rope.spec.rotary_dim && !is_wrong; ++d) {
        const double* const element = &of_row(h, 0, d);
        is_wrong = !within_bound(e, element - all, *element);
      }
    }
    if (is_wrong) wrong.push_back(row);
  }
  return wrong;
}

/// Nearly all elements of row s of the sample are as if it stood at the position that `source` gives it.
bool is_turned_as(const bounds::RopeSource& source, const RopeSpec& spec, const RopeSample& sample, Index s,
                  bool backward) {
  const Index rows = sample.shape.sizes.s, heads = sample.shape.sizes.h, all = heads * spec.rotary_dim;
  const double allowed = (1 - least_agreement) * static_cast<double>(all);
  const double roundings = 4 * unit_roundoff(*sample.dumped.dtype);
  Index off = 0;
  for (Index k = 0; k < spec.pairs(); ++k) {
    Coefficients c = right_coefficients(source, spec, s, k);
    if (backward) c = turned_back(c);
    double freedom = roundings;
    if (!source.has_table()) {
      // Angles are in float32, and of inverse frequencies whose last places are open.
      const double position = source.positions[s];
      freedom += bounds::angle_freedom(source.frequencies[k], position) +
                 4 * unit_roundoff(DType::float32) * std::abs(position * source.frequencies[k].exact.hi);
    }
    freedom *= std::max({1.0, std::abs(c.cos_i), std::abs(c.sin_i)});
    for (Index h = 0; h < heads; ++h) {
      const Index row = (h * rows + s) * sample.shape.sizes.width;
      const Index i = row + spec.first(k), j = row + spec.second(k);
      const double a = sample.input[i], b = sample.input[j];
      const double tolerance = freedom * (std::abs(a) + std::abs(b));
      off += !(std::abs(sample.dumped.values[i] - (a * c.cos_i - b * c.sin_i)) <= tolerance);
      off += !(std::abs(sample.dumped.values[j] - (b * c.cos_j + a * c.sin_j)) <= tolerance);
    }
    if (static_cast<double>(off) > allowed) return false;
  }
  return true;
}

struct Found {
  Index row;  // of the tensor
  double own, position;
};

/// Where row s of the sample stands instead, the nearest to its own position or to 0; nothing if nowhere.
std::optional<Found> position_found(const RopeSpec& spec, const RopeSample& sample, Index s, bool backward) {
  bounds::RopeSource source = sample.source;
  const double own = position_of(source, s);
  const auto fits = [&](double position) {
    if (!exists(source, position)) return false;
    set_position(source, s, position);
    return is_turned_as(source, spec, sample, s, backward);
  };
  if (fits(own)) return {};  // its error is a small one
  for (double by = 1; by <= most_distance; ++by) {
    for (const double p : {own - by, own + by})
      if (fits(p)) return Found{sample.row[s], own, p};
  }
  for (double p = 0; p <= most_from_zero; ++p)
    if (std::abs(p - own) > most_distance && fits(p)) return Found{sample.row[s], own, p};
  return {};
}

/// Which position a row has instead of its own.
struct Law {
  std::string name;
  std::function<double(Index row, double own)> of;
};

/// Those that the positions found could follow, the simplest first.
std::vector<Law> laws_of(const Found& one, const RopeCase& rope) {
  std::vector<Law> all;
  const Index length = rope.shape.sizes.s, rows = rope.rows();
  const auto own_of = [&rope](Index row) { return position_of(rope.source, row); };
  const auto add = [&](const std::string& name, auto of) { all.push_back({name, of}); };
  const double by = one.position - one.own;
  add("positions " + number_text(std::abs(by), 9) + (by > 0 ? " too high" : " too low"),
      [by](Index, double own) { return own + by; });
  add("position " + number_text(one.position, 9) + " for each row",
      [p = one.position](Index, double) { return p; });
  add("the position of the row before",
      [=](Index row, double) { return own_of(std::max<Index>(row - 1, 0)); });
  add("the position of the next row", [=](Index row, double) { return own_of(std::min(row + 1, rows - 1)); });
  add("the position after that of the row before",
      [=](Index row, double own) { return row > 0 ? own_of(row - 1) + 1 : own; });
  add("positions of the " + std::string(rows == 2 * length ? "other" : "next") + " batch entry",
      [=](Index row, double) { return own_of((row + length) % rows); });
  add("positions of the batch entry before",
      [=](Index row, double) { return own_of((row + rows - length) % rows); });
  add("positions in the order of the rows reversed",
      [=](Index row, double) { return own_of(row / length * length + length - 1 - row % length); });
  add("positions of 64 bits read as if they had 32: half of them, and zeros between",
      [=](Index row, double) { return row % 2 == 0 ? own_of(row / 2) : 0; });
  for (double n = 2; n <= 4096; n *= 2) {
    const std::string text = number_text(n, 9);
    add("positions divided by " + text + " without remainder",
        [n](Index, double own) { return std::floor(own / n); });
    add("positions rounded down to multiples of " + text,
        [n](Index, double own) { return n * std::floor(own / n); });
    add("positions times " + text, [n](Index, double own) { return n * own; });
    add("positions modulo " + text, [n](Index, double own) { return std::fmod(own, n); });
    add("positions clamped to " + number_text(n - 1, 9),
        [n](Index, double own) { return std::min(own, n - 1); });
  }
  return all;
}

/// ", in rows from 64 on of batch entry 1"; "" if these are nearly all rows.
std::string place_of(const std::vector<Index>& wrong, const RopeCase& rope, const Tensor* starts) {
  const auto is_start = [&](Index row) {
    return std::ranges::find(starts->values, static_cast<double>(row)) != starts->values.end();
  };
  if (starts && std::ranges::all_of(wrong, is_start))
    return std::string(", in the first row of ") +
           (wrong.size() + 1 == starts->values.size()                        ? "every sequence"
            : wrong.size() + 2 == starts->values.size() && wrong.front() > 0 ? "every sequence but the first"
                                                                             : "some sequences");
  const Index length = rope.shape.sizes.s;
  std::vector<bool> touched(length), entries(rope.shape.sizes.b);
  for (const Index row : wrong) touched[row % length] = entries[row / length] = true;
  const auto text_of = [](const std::vector<IndexRun>& runs) {
    std::string list;
    for (const IndexRun& run : runs)
      list += (list.empty() ? "" : ", ") + std::to_string(run.first) +
              (run.first == run.last ? "" : ".." + std::to_string(run.last));
    return list;
  };
  std::string text;
  if (const auto runs = runs_of(entries); std::ranges::find(entries, false) != entries.end())
    text = runs.size() > most_runs                  ? " of some batch entries"
           : std::ranges::count(entries, true) == 1 ? " of batch entry " + text_of(runs)
                                                    : " of batch entries " + text_of(runs);
  const std::vector<IndexRun> runs = runs_of(touched);
  const Index first = runs.front().first, last = runs.back().last, count = std::ranges::count(touched, true);
  // A few between may be right by chance.
  const auto are_most = [&](Index step) { return 10 * count >= 9 * ((last - first) / step + 1); };
  if (are_most(1)) {
    if (first == last) return ", in row " + std::to_string(first) + text;
    if (first <= 1 && last == length - 1) return text.empty() ? text : ", in all rows" + text;
    if (last == length - 1) return ", in rows from " + std::to_string(first) + " on" + text;
    return ", in rows " + text_of({{first, last}}) + text;
  }
  for (Index step = 2; step <= (last - first) / 2; ++step) {
    if (are_most(step) && std::ranges::all_of(runs, [&](const IndexRun& run) {
          return run.first == run.last && (run.first - first) % step == 0;
        }))
      return ", in every " + ordinal(step) + " row from " + std::to_string(first) + " on" + text;
  }
  return ", in " + (runs.size() > most_runs ? "some rows" : "rows " + text_of(runs)) + text;
}

}  // namespace

std::vector<Decoy> RopeProblem::rows_elsewhere(const Expected& e, const RopeDirection& direction) const {
  const std::vector<Index> wrong = rows_turned_wrongly(rope_, e);
  std::vector<Index> rows;
  // Two by two: of rows that are evenly spread, all may be odd.
  for (const Index n : evenly_spread((std::ssize(wrong) + 1) / 2, most_rows / 2)) {
    rows.push_back(wrong[2 * n]);
    if (2 * n + 1 < std::ssize(wrong)) rows.push_back(wrong[2 * n + 1]);
  }
  RopeSample sample(rope_, case_.input(direction.input)->values, *e.dumped, rows);
  if (sample.shape.sizes.h * rope_.spec.rotary_dim < least_elements) return {};
  std::vector<Found> found;
  for (Index s = 0; s < std::ssize(rows); ++s) {
    // A kernel that errs otherwise has its rows nowhere.
    if (s >= 6 && 2 * std::ssize(found) < s) return {};
    if (const auto at = position_found(rope_.spec, sample, s, direction.backward)) found.push_back(*at);
  }
  if (found.empty() || 5 * found.size() < 4 * rows.size()) return {};

  Law best{"", nullptr};
  Index most = 0;
  for (const Law& law : laws_of(found.back(), rope_)) {
    const Index count =
        std::ranges::count_if(found, [&](const Found& f) { return law.of(f.row, f.own) == f.position; });
    if (count > most) best = law, most = count;
  }
  std::string name = best.name + place_of(wrong, rope_, case_.input("cu_seqlens"));
  if (most < least_lawful || 10 * most < 9 * std::ssize(found)) {
    name = "other positions:";
    for (std::size_t n = 0; n < std::min(found.size(), most_listed); ++n)
      name += (n > 0 ? ", row " : " row ") + std::to_string(found[n].row) + " at " +
              number_text(found[n].position, 9) + ", not " + number_text(found[n].own, 9);
    if (found.size() > most_listed) name += ", and so on";
    best.of = [&](Index row, double own) {
      const auto at = std::ranges::find(found, row, &Found::row);
      return at == found.end() ? own : at->position;
    };
  }
  for (std::size_t s = 0; s < rows.size(); ++s) {
    const double to = best.of(rows[s], position_of(sample.source, static_cast<Index>(s)));
    if (exists(sample.source, to)) set_position(sample.source, static_cast<Index>(s), to);
  }
  Expected other(e.output, sample.dumped);
  bounds::expect_rope(rope_.spec, sample.source, arithmetic(direction), direction.backward, sample.shape,
                      sample.input, other);
  return {{name, e.output, sample.at, other.value}};
}

}  // namespace attest
