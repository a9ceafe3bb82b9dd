// Draws rows and keys, and says what they are worth.
#include "verify/verdict/row_sample.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "verify/axes/axes.hpp"
#include "verify/axes/layout.hpp"
#include "verify/text.hpp"

namespace attest {
namespace {

/// Products of a query and a key, per column, that two cores judge in about a minute where keys are too many
/// for the caches: bench/rows.py takes 3 ns of one core for each.
constexpr double minute = 3e10;
/// What a key/value head takes before a row of it is judged, in rows: to make or read its keys, to lay them
/// out, and to hold its decoys against it. A query head takes as much, in keys, before a key is.
constexpr double rows_of_head = 12;
/// A row with dq takes as long as so many rows of the forward pass: 1.45 and 0.5 ms with 4000 keys of
/// width 64.
constexpr double gradient_rows = 3;
/// A judged key and any row take as long as so many pairs of the forward pass where query heads share the
/// key, so that their shares are summed as well, and otherwise half as long: 3.7 ns a column, of the few keys
/// that the caches hold.
constexpr double key_rows = 1.25;

/// The `counter`-th number of a sequence: splitmix64 (Steele, Lea and Flood, OOPSLA 2014).
std::uint64_t random_bits(std::uint64_t seed, std::uint64_t counter) {
  std::uint64_t z = seed * 0xD1342543DE82EF95u + (counter + 1) * 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

/// One row or key in each of `count` stretches of equal length.
std::vector<Index> drawn(Index count, Index rows, std::uint64_t seed, std::uint64_t part) {
  std::vector<Index> all;
  for (Index n = 0; n < count; ++n) {
    const Index first = n * rows / count, last = (n + 1) * rows / count;
    const std::uint64_t bits = random_bits(seed, part << 32 | static_cast<std::uint64_t>(n));
    all.push_back(first + static_cast<Index>(bits % static_cast<std::uint64_t>(last - first)));
  }
  return all;
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
  sample.keys_ = extent_of(k, AxisKind::key);
  if (c.input("past_k")) sample.past_ = extent_of(input_axes(op, c, "past_k"), AxisKind::key);
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
    return sample.selection({0, 0, {0}}, "out/" + out.first).has_value() ||
           sample.is_judged_by_keys(out.first);
  });
  if (!has_output) return std::nullopt;

  if (wanted.count) {
    sample.count_ = *wanted.count;
  } else {
    // Not without being asked for: outputs would go without a verdict.
    if (!sample.not_judged().empty()) return std::nullopt;
    const double heads = static_cast<double>(sample.batch_ * sample.q_heads_),
                 keys = static_cast<double>(sample.keys_), rows = static_cast<double>(sample.sequence_),
                 columns =
                     static_cast<double>(extent_of(q, AxisKind::column) + extent_of(v, AxisKind::column));
    const double key = sample.judges_keys() ? heads * rows * columns * key_rows : 0;
    const double row = heads * keys * columns * (c.out.contains("dq") ? gradient_rows : 1) + key;
    const double before =
        rows_of_head * (static_cast<double>(sample.batch_ * sample.kv_heads_) * keys * columns + key);
    sample.count_ = static_cast<Index>(std::clamp((minute - before) / row, 1.0, 1e15));
    sample.is_chosen_ = true;
  }
  // As many rows as heads would leave open which axis of lse is which.
  if (sample.count_ == sample.q_heads_ / sample.kv_heads_) ++sample.count_;
  if (sample.count_ >= sample.sequence_) return std::nullopt;
  const auto parts = static_cast<std::uint64_t>(sample.batch_ * sample.kv_heads_);
  for (Index b = 0; b < sample.batch_; ++b) {
    for (Index head = 0; head < sample.kv_heads_; ++head) {
      const auto part = static_cast<std::uint64_t>(b * sample.kv_heads_ + head);
      RowPart& drawn_part =
          sample.parts_.emplace_back(b, head, drawn(sample.count_, sample.sequence_, wanted.seed, part));
      if (sample.judges_keys())
        drawn_part.keys =
            drawn(std::min(sample.count_, sample.keys_), sample.keys_, wanted.seed, parts + part);
    }
  }
  return sample;
}

bool RowSample::is_judged_by_keys(const std::string& output) const {
  return case_.output(output) && op_.read_keys && (output == "dk" || output == "dv") && !lacks(output);
}

bool RowSample::judges_keys() const {
  return is_judged_by_keys("dk") || is_judged_by_keys("dv");
}

/// Sums over all rows need of each row what only the whole row gives.
std::optional<std::string> RowSample::lacks(const std::string& gradient) const {
  const bool lacks_o = gradient == "dk" && !case_.output("o"), lacks_lse = !case_.output("lse");
  if (!lacks_o && !lacks_lse) return std::nullopt;
  return lacks_o && lacks_lse ? "out/o and out/lse" : lacks_o ? "out/o" : "out/lse";
}

/// pick(axis) is what is wanted along an axis of more than one element.
template <class Pick>
Selection RowSample::picked(const std::string& path, const Pick& pick) const {
  const bool is_input = path.starts_with("in/");
  const std::string name = path.substr(path.find('/') + 1);
  Selection selection;
  for (const Axis& axis : is_input ? input_axes(op_, case_, name) : output_axes(op_, case_, name))
    selection.push_back(axis.extent > 1 ? pick(axis) : range(0, 1));
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

std::optional<Selection> RowSample::selection(const RowPart& part, const std::string& path) const {
  const std::string name = path.substr(path.find('/') + 1);
  if (path.starts_with("out/") && (!has_rows(output_axes(op_, case_, name)) || name == "dbias"))
    return std::nullopt;
  return picked(path, [&](const Axis& axis) {
    if (axis.kind == AxisKind::batch) return std::vector{part.b};
    const Index heads = axis.extent / kv_heads_;
    if (axis.kind == AxisKind::head) return range(part.head * heads, heads);
    return axis.kind == AxisKind::row ? part.rows : range(0, axis.extent);
  });
}

std::optional<Selection> RowSample::selection(const RowPart& part, const RowBlock& block,
                                              const std::string& path) const {
  const std::string name = path.substr(path.find('/') + 1);
  const bool is_saved = name == "lse" || name == "o";
  if (path.starts_with("out/") && !is_saved && !is_judged_by_keys(name)) return std::nullopt;
  if (name == "past_k" || name == "past_v") return std::nullopt;
  return picked(path, [&](const Axis& axis) {
    if (axis.kind == AxisKind::batch) return std::vector{part.b};
    if (axis.kind == AxisKind::head)
      return std::vector{axis.extent == kv_heads_ ? part.head : part.head * group() + block.head};
    if (axis.kind == AxisKind::row) return block.rows;
    if (axis.kind != AxisKind::key) return range(0, axis.extent);
    std::vector<Index> keys = part.keys;
    if (axis.extent != keys_)  // past ones counted in
      for (Index& key : keys) key += past_;
    return keys;
  });
}

Selection RowSample::place(const RowPart& part, const std::string& output) const {
  const std::string path = "out/" + output;
  return is_judged_by_keys(output) ? *selection(part, RowBlock{0, {0}}, path) : *selection(part, path);
}

Case RowSample::finished(Case selected, const RowPart& part) const {
  selected.row = part.rows;
  selected.rows = sequence_;
  selected.parts = std::ssize(parts_);
  if (selected.spec.contains("heads_q")) selected.spec["heads_q"] = std::int64_t{group()};
  if (selected.spec.contains("heads_kv")) selected.spec["heads_kv"] = std::int64_t{1};
  return selected;
}

Case RowSample::finished(Case selected, const RowPart& part, const RowBlock& block) const {
  selected = finished(std::move(selected), part);
  selected.row = block.rows;
  selected.key = part.keys;
  for (Index& key : selected.key) key += past_;
  selected.keys = past_ + keys_;
  selected.past = past_;
  selected.heads = group();
  if (selected.spec.contains("heads_q")) selected.spec["heads_q"] = std::int64_t{1};
  return selected;
}

RowPart RowSample::with_rows(RowPart part, const std::vector<Index>& rows) const {
  Index last = -1;
  for (const Index row : rows) {
    // The stretches of drawn().
    Index n = row * count_ / sequence_;
    while ((n + 1) * sequence_ / count_ <= row) ++n;
    if (n != last) part.rows[n] = row;
    last = n;
  }
  return part;
}

std::string RowSample::text() const {
  const double rows = static_cast<double>(sequence_), drawn_rows = static_cast<double>(count_);
  const double parts = static_cast<double>(batch_ * kv_heads_);
  std::string text = "judged: " + std::to_string(count_) + " of " + std::to_string(sequence_) +
                     " rows in each of " + std::to_string(batch_ * q_heads_) + " heads, ";
  const Index keys = std::min(count_, keys_);
  std::string gradients;
  for (const std::string name : {"dk", "dv"})
    if (is_judged_by_keys(name)) gradients += (gradients.empty() ? "" : " and ") + name;
  if (judges_keys()) {
    text += "of " + gradients + " " + std::to_string(keys) + " of " + std::to_string(keys_) +
            " keys in each of " + std::to_string(batch_ * kv_heads_) + ", ";
  }
  text +=
      "seed " + std::to_string(seed_) + (is_chosen_ ? " (what a minute allows; --rows all judges all)" : "");
  const std::string they = judges_keys() && keys == count_ ? "rows or keys" : "rows";
  text += "; they meet a fault of 1 % of all " + they + " with probability " +
          percent(meeting_probability(0.01 * rows, rows, drawn_rows * parts)) +
          (parts > 1 ? ", of 1 % of the " + they + " of one head " +
                           percent(meeting_probability(0.01 * rows, rows, drawn_rows))
                     : "");
  const auto add_tiles = [&](double of, const std::string& what) {
    for (const double tile : {64.0, 128.0})
      if (tile < of)
        text += ", of one tile of " + number_text(tile, 3) + " " + what + " in one head " +
                percent(meeting_probability(tile, of, drawn_rows));
  };
  add_tiles(rows, keys_ == sequence_ ? they : "rows");
  if (judges_keys() && keys_ != sequence_ && keys < keys_) add_tiles(static_cast<double>(keys_), "keys");
  return text;
}

std::vector<std::string> RowSample::not_judged() const {
  std::string without_rows;
  std::vector<std::string> sentences;
  for (const auto& [name, tensor] : case_.out) {
    if (selection(parts_.empty() ? RowPart{0, 0, {0}} : parts_.front(), "out/" + name)) continue;
    if (is_judged_by_keys(name)) continue;
    if (op_.read_keys && (name == "dk" || name == "dv"))
      sentences.push_back("not judged: " + name + ", which is judged by keys where the dump has " +
                          *lacks(name) + "; --rows all does");
    else
      without_rows += (without_rows.empty() ? "" : ", ") + name;
  }
  if (!without_rows.empty())
    sentences.push_back("not judged: " + without_rows + ", which have no rows of their own; --rows all does");
  return sentences;
}

}  // namespace attest
