// Draws rows, and says what they are worth.
#include "verify/row_sample.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "verify/axes.hpp"
#include "verify/layout.hpp"
#include "verify/text.hpp"

namespace attest {
namespace {

/// Products of a query and a key, per column, that two cores judge in about a minute where keys are too many
/// for the caches: bench/rows.py takes 3 ns of one core for each.
constexpr double minute = 3e10;
/// What a key/value head takes before a row of it is judged, in rows: to make or read its keys, to lay them
/// out, and to hold its decoys against it.
constexpr double rows_of_head = 12;
/// A row with dq takes as long as so many rows of the forward pass: 1.45 and 0.5 ms with 4000 keys of
/// width 64.
constexpr double gradient_rows = 3;

/// The `counter`-th number of a sequence: splitmix64 (Steele, Lea and Flood, OOPSLA 2014).
std::uint64_t random_bits(std::uint64_t seed, std::uint64_t counter) {
  std::uint64_t z = seed * 0xD1342543DE82EF95u + (counter + 1) * 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

/// One row in each of `count` stretches of equal length.
std::vector<Index> drawn_rows(Index count, Index rows, std::uint64_t seed, std::uint64_t part) {
  std::vector<Index> drawn;
  for (Index n = 0; n < count; ++n) {
    const Index first = n * rows / count, last = (n + 1) * rows / count;
    const std::uint64_t bits = random_bits(seed, part << 32 | static_cast<std::uint64_t>(n));
    drawn.push_back(first + static_cast<Index>(bits % static_cast<std::uint64_t>(last - first)));
  }
  return drawn;
}

Index extent_of(const std::vector<Axis>& axes, AxisKind kind) {
  const auto axis = std::ranges::find(axes, kind, &Axis::kind);
  return axis == axes.end() ? 1 : axis->extent;
}

bool has_rows(const std::vector<Axis>& axes) {
  return std::ranges::any_of(axes, [](const Axis& axis) { return axis.kind == AxisKind::row; });
}

std::vector<Index> range(Index first, Index count) {
  std::vector<Index> all(count);
  std::iota(all.begin(), all.end(), first);
  return all;
}

std::string percent(double share) {
  return share >= 0.9995 ? "100 %" : number_text(100 * share, share < 0.1 ? 2 : 3) + " %";
}

}  // namespace

double meeting_probability(double faulty, double rows, double drawn) {
  return -std::expm1(drawn * std::log1p(-std::min(faulty / rows, 1.0)));
}

std::optional<RowSample> RowSample::of(const Op& op, const Case& c, const RowsWanted& wanted) {
  if (!op.judges_rows || wanted.all) return std::nullopt;
  const auto layout = c.spec.find("layout");
  if (layout != c.spec.end() && layout->second == Attribute("thd")) return std::nullopt;
  if (!c.input("q") || !c.input("k") || !c.input("v")) return std::nullopt;

  RowSample sample(op, c);
  const std::vector<Axis> q = input_axes(op, c, "q"), k = input_axes(op, c, "k"), v = input_axes(op, c, "v");
  sample.batch_ = extent_of(q, AxisKind::batch);
  sample.q_heads_ = extent_of(q, AxisKind::head);
  sample.kv_heads_ = extent_of(k, AxisKind::head);
  sample.sequence_ = extent_of(q, AxisKind::row);
  sample.seed_ = wanted.seed;
  // What does not fit together gets its message where all of it is read.
  const auto fits = [&](const std::vector<Axis>& axes) {
    return std::ranges::all_of(axes, [&](const Axis& axis) {
      const Index n = axis.extent;
      return axis.kind != AxisKind::unknown &&
             (n == 1 || axis.kind != AxisKind::batch || n == sample.batch_) &&
             (n == 1 || axis.kind != AxisKind::row || n == sample.sequence_) &&
             (n == 1 || axis.kind != AxisKind::head || n == sample.q_heads_ || n == sample.kv_heads_);
    });
  };
  for (const auto& [name, tensor] : c.in)
    if (!fits(input_axes(op, c, name))) return std::nullopt;
  for (const auto& [name, tensor] : c.out)
    if (!fits(output_axes(op, c, name))) return std::nullopt;
  if (sample.q_heads_ % sample.kv_heads_ != 0) return std::nullopt;
  const bool has_output = std::ranges::any_of(c.out, [&](const auto& out) {
    return sample.selection({0, 0, {0}}, "out/" + out.first).has_value();
  });
  if (!has_output) return std::nullopt;

  if (wanted.count) {
    sample.count_ = *wanted.count;
  } else {
    // Not without being asked for: outputs would go without a verdict.
    for (const auto& [name, tensor] : c.out)
      if (!sample.selection({0, 0, {0}}, "out/" + name)) return std::nullopt;
    const double heads = static_cast<double>(sample.batch_ * sample.q_heads_),
                 keys = static_cast<double>(extent_of(k, AxisKind::key)),
                 columns =
                     static_cast<double>(extent_of(q, AxisKind::column) + extent_of(v, AxisKind::column));
    const double row = heads * keys * columns * (c.out.contains("dq") ? gradient_rows : 1);
    const double before =
        rows_of_head * static_cast<double>(sample.batch_ * sample.kv_heads_) * keys * columns;
    sample.count_ = static_cast<Index>(std::clamp((minute - before) / row, 1.0, 1e15));
    sample.is_chosen_ = true;
  }
  // As many rows as heads would leave open which axis of lse is which.
  if (sample.count_ == sample.q_heads_ / sample.kv_heads_) ++sample.count_;
  if (sample.count_ >= sample.sequence_) return std::nullopt;
  for (Index b = 0; b < sample.batch_; ++b) {
    for (Index head = 0; head < sample.kv_heads_; ++head) {
      const auto part = static_cast<std::uint64_t>(b * sample.kv_heads_ + head);
      sample.parts_.push_back({b, head, drawn_rows(sample.count_, sample.sequence_, wanted.seed, part)});
    }
  }
  return sample;
}

std::optional<Selection> RowSample::selection(const RowPart& part, const std::string& path) const {
  const bool is_input = path.starts_with("in/");
  const std::string name = path.substr(path.find('/') + 1);
  const std::vector<Axis> axes = is_input ? input_axes(op_, case_, name) : output_axes(op_, case_, name);
  if (!is_input && (!has_rows(axes) || name == "dbias")) return std::nullopt;
  Selection selection;
  for (const Axis& axis : axes) {
    if (axis.kind == AxisKind::batch && axis.extent > 1) {
      selection.push_back({part.b});
    } else if (axis.kind == AxisKind::head && axis.extent > 1) {
      const Index group = axis.extent / kv_heads_;
      selection.push_back(range(part.head * group, group));
    } else if (axis.kind == AxisKind::row && axis.extent > 1) {
      selection.push_back(part.rows);
    } else {
      selection.push_back(range(0, axis.extent));
    }
  }
  const std::size_t rank = (is_input ? case_.in : case_.out).at(name).shape.size();
  if (selection.size() == rank) return selection;
  // Heads and columns share the last axis.
  const std::vector<Index> columns = selection.back();
  selection.pop_back();
  std::vector<Index> merged;
  for (const Index head : selection.back())
    for (const Index column : columns) merged.push_back(head * std::ssize(columns) + column);
  selection.back() = merged;
  return selection;
}

Case RowSample::finished(Case selected, const RowPart& part) const {
  selected.row = part.rows;
  selected.rows = sequence_;
  selected.parts = std::ssize(parts_);
  if (selected.spec.contains("heads_q")) selected.spec["heads_q"] = std::int64_t{q_heads_ / kv_heads_};
  if (selected.spec.contains("heads_kv")) selected.spec["heads_kv"] = std::int64_t{1};
  return selected;
}

std::string RowSample::text() const {
  const double rows = static_cast<double>(sequence_), drawn = static_cast<double>(count_);
  const double parts = static_cast<double>(batch_ * kv_heads_);
  std::string text = "judged: " + std::to_string(count_) + " of " + std::to_string(sequence_) +
                     " rows in each of " + std::to_string(batch_ * q_heads_) + " heads, seed " +
                     std::to_string(seed_) +
                     (is_chosen_ ? " (what a minute allows; --rows all judges all)" : "");
  text += "; they meet a fault of 1 % of all rows with probability " +
          percent(meeting_probability(0.01 * rows, rows, drawn * parts)) +
          (parts > 1
               ? ", of 1 % of the rows of one head " + percent(meeting_probability(0.01 * rows, rows, drawn))
               : "");
  for (const double tile : {64.0, 128.0})
    if (tile < rows)
      text += ", of one tile of " + number_text(tile, 3) + " rows in one head " +
              percent(meeting_probability(tile, rows, drawn));
  return text;
}

std::vector<std::string> RowSample::not_judged() const {
  std::vector<std::string> names;
  for (const auto& [name, tensor] : case_.out)
    if (!selection(parts_.front(), "out/" + name)) names.push_back(name);
  return names;
}

}  // namespace attest
