// Rows of q, in/mask or in/bias that are read in place of a row's own: found among all that there are, then
// called by the rule that they follow.
#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "ref/attention.hpp"
#include "verify/ops/attention_device.hpp"

namespace attest {
namespace {

constexpr std::size_t most_rows = 12, most_examples = 3;
constexpr double most_operations = 1e9, least_share_of_rows = 0.9, preference_for_rules = 0.75;
constexpr double least_explained_of_row = 0.97;  // places are many

constexpr double infinity = std::numeric_limits<double>::infinity();

struct Place {
  Index n, h, i;  // sequence, query head, row
  bool operator==(const Place&) const = default;
};

enum class Operand { mask, bias, q };
constexpr const char* name_of(Operand x) {
  return x == Operand::mask ? "in/mask" : x == Operand::bias ? "in/bias" : "in/q";
}

/// A row whose scores may have been formed with an operand of another place.
class RowElsewhere {
 public:
  RowElsewhere(const AttentionCase& attention, const AttentionRow& row, Operand operand)
      : attention_(attention), row_(row), operand_(operand), p_(row.in->keys()), s_(row.in->keys()) {
    const auto own =
        std::ranges::find_if(attention.sequences, [&](const Sequence& s) { return &s.in == row.in; });
    own_ = {own - attention.sequences.begin(), row.h, row.i};
  }

  const Place& own() const { return own_; }

  bool exists(const Place& at) const {
    const AttentionInputs& in = attention_.sequences[at.n].in;
    return at.h < in.q_heads() && at.i < in.queries() &&
           (operand_ == Operand::q || in.keys() == row_.in->keys());
  }

  /// Are o and lse what they would be with the operand of that place?
  bool is_explained_by(const Place& at) {
    AttentionInputs in = *row_.in;
    const AttentionInputs& other = attention_.sequences[at.n].in;
    // Its one row is that of the other place: an axis of no stride has it everywhere.
    const auto everywhere = [&](View<const double, 3> x) -> View<const double, 3> {
      return {&x(at.h, at.i, 0), {x.extent(0), row_.in->queries(), x.extent(2)}, {0, 0, x.stride(2)}};
    };
    const auto with_heads = [&](View<const double, 3> x) -> View<const double, 3> {
      return {x.data_handle(), {row_.in->q_heads(), x.extent(1), x.extent(2)}, {0, 0, x.stride(2)}};
    };
    if (operand_ == Operand::mask) in.mask = with_heads(everywhere(other.mask));
    if (operand_ == Operand::bias) in.bias = with_heads(everywhere(other.bias));
    if (operand_ == Operand::q) in.q = with_heads(everywhere(other.q));
    ref::attention_scores(*row_.spec, in, row_.h, row_.i, {s_.data(), {in.keys()}});
    const double sink = in.sink ? in.sink(row_.h) : -infinity;
    double m = sink, l = 0;
    for (const double s : s_) m = std::max(m, s);
    if (!std::isfinite(m)) return false;
    for (std::size_t j = 0; j < p_.size(); ++j) l += p_[j] = std::exp(s_[j] - m);
    l += std::exp(sink - m);
    const double lse = m + std::log(l);
    Fit of_lse, of_o;
    if (row_.has_lse) {
      of_lse.add(row_.got_lse, row_.lse, lse, row_.lse_sigma);
      if (of_lse.tells() && of_lse.explained() < least_explained_of_row) return false;
    }
    for (std::size_t e = 0; e < row_.got.size(); ++e) {
      double o = 0;
      for (std::size_t j = 0; j < p_.size(); ++j)
        if (p_[j] > 0) o += p_[j] * in.v(in.kv_head(row_.h), static_cast<Index>(j), static_cast<Index>(e));
      of_o.add(row_.got[e], row_.o[e], o / l, row_.sigma[e]);
    }
    return of_o.tells() ? of_o.explained() >= least_explained_of_row : of_lse.tells();
  }

  /// All places, of those that hold the same the first.
  std::vector<Place> explanations() {
    std::vector<Place> all;
    for (std::size_t n = 0; n < attention_.sequences.size(); ++n) {
      const AttentionInputs& in = attention_.sequences[n].in;
      const View<const double, 3> x = operand_ == Operand::mask   ? in.mask
                                      : operand_ == Operand::bias ? in.bias
                                                                  : in.q;
      for (Index h = 0; h < (x.stride(0) == 0 ? 1 : in.q_heads()); ++h) {
        for (Index i = 0; i < (x.stride(1) == 0 ? 1 : in.queries()); ++i) {
          const Place at{static_cast<Index>(n), h, i};
          if (exists(at) && is_explained_by(at)) all.push_back(at);
        }
      }
    }
    return all;
  }

 private:
  const AttentionCase& attention_;
  const AttentionRow& row_;
  const Operand operand_;
  Place own_;
  std::vector<double> p_, s_;
};

struct Rule {
  std::string name;  // "of the row before"
  std::function<Place(Place)> place;
};

std::vector<Rule> rules(const AttentionCase& attention) {
  std::vector<Rule> all;
  const AttentionInputs& first = attention.sequences.front().in;
  const Index entries = std::ssize(attention.sequences), heads = first.q_heads(), group = first.group();
  const auto add = [&](const std::string& name, std::function<Place(Place)> place) {
    all.push_back({name, std::move(place)});
  };
  const auto rows = [&](const std::string& name, auto of) {
    add(name, [of](Place at) { return Place{at.n, at.h, of(at.i)}; });
  };
  if (entries > 1) {
    add("of batch entry or sequence 0", [](Place at) { return Place{0, at.h, at.i}; });
    add("of the next batch entry or sequence", [=](Place at) {
      return Place{(at.n + 1) % entries, at.h, at.i};
    });
    add("of the batch entry or sequence before", [=](Place at) {
      return Place{(at.n + entries - 1) % entries, at.h, at.i};
    });
    add("of batch entry (b Hq + h) mod B", [=](Place at) {
      return Place{(at.n * heads + at.h) % entries, at.h, at.i};
    });
  }
  if (heads > 1) {
    add("of head 0", [](Place at) { return Place{at.n, 0, at.i}; });
    add("of the next head", [=](Place at) { return Place{at.n, (at.h + 1) % heads, at.i}; });
    add("of the head before", [=](Place at) { return Place{at.n, (at.h + heads - 1) % heads, at.i}; });
    add("of the heads in reverse order", [=](Place at) { return Place{at.n, heads - 1 - at.h, at.i}; });
  }
  if (group > 1) {
    add("of the first head of the group", [=](Place at) { return Place{at.n, at.h / group * group, at.i}; });
    add("of head h / group", [=](Place at) { return Place{at.n, at.h / group, at.i}; });
    add("of head h mod group", [=](Place at) { return Place{at.n, at.h % group, at.i}; });
  }
  if (first.row) return all;  // few rows, whose places are not those in memory
  rows("of the row before", [](Index i) { return i - 1; });
  rows("of the row after", [](Index i) { return i + 1; });
  rows("of row 0", [](Index) { return 0; });
  const Index length = first.queries();
  rows("of the rows in reverse order", [=](Index i) { return length - 1 - i; });
  for (const Index tile : {2, 4, 8, 16, 32, 64, 128, 256}) {
    const std::string text = std::to_string(tile);
    rows("of row i modulo " + text, [=](Index i) { return i % tile; });
    rows("of the first row of its tile of " + text, [=](Index i) { return i - i % tile; });
    rows("of the row " + text + " before", [=](Index i) { return i - tile; });
    rows("of the row " + text + " after", [=](Index i) { return i + tile; });
  }
  return all;
}

std::string text_of(const Place& at, Index entries) {
  const std::string row = "row " + std::to_string(at.i) + " of head " + std::to_string(at.h);
  return entries > 1 ? row + " of batch entry or sequence " + std::to_string(at.n) : row;
}

std::vector<DiagnosisEntry> read_elsewhere(const AttentionCase& attention, std::span<const AttentionRow> rows,
                                           Operand operand) {
  const AttentionInputs& in = *rows.front().in;
  const double places = static_cast<double>(in.q_heads() * in.queries() * std::ssize(attention.sequences));
  const double for_scores = static_cast<double>(in.keys() * (in.qk_width() + 20));
  const bool can_search =
      !in.row && places * for_scores * static_cast<double>(rows.size()) <= most_operations;
  std::vector<RowElsewhere> reads;
  for (const AttentionRow& row : rows) reads.emplace_back(attention, row, operand);
  const auto entry = [&](const std::string& where, Index count, double preference) {
    const double share = static_cast<double>(count) / static_cast<double>(rows.size());
    return DiagnosisEntry{
        std::string(name_of(operand)) + " " + where, preference * share,
        "explains o and lse of " + std::to_string(count) + " of " + std::to_string(rows.size()) + " rows"};
  };
  const auto are_enough = [&](Index count) {
    return static_cast<double>(count) >= least_share_of_rows * static_cast<double>(rows.size());
  };
  for (const Rule& rule : rules(attention)) {
    Index count = 0;
    for (RowElsewhere& row : reads) {
      const Place at = rule.place(row.own());
      const bool is_inside = at.n >= 0 && at.h >= 0 && at.i >= 0 && row.exists(at);
      count += is_inside && at != row.own() && row.is_explained_by(at);
    }
    if (are_enough(count)) return {entry(rule.name, count, 1)};
  }
  if (!can_search) return {};
  std::vector<std::vector<Place>> found(rows.size());
#pragma omp parallel for schedule(dynamic, 1)
  for (std::size_t n = 0; n < reads.size(); ++n) found[n] = reads[n].explanations();
  Index count = 0;
  std::string examples;
  for (std::size_t n = 0; n < reads.size(); ++n) {
    if (found[n].empty()) continue;
    if (++count > static_cast<Index>(most_examples)) continue;
    examples += (count == 1 ? ": " : "; ") + text_of(reads[n].own(), std::ssize(attention.sequences)) +
                " reads that of " + text_of(found[n].front(), std::ssize(attention.sequences));
  }
  if (rows.size() < most_examples || !are_enough(count)) return {};
  return {entry("of other rows" + examples, count, preference_for_rules)};
}

}  // namespace

std::vector<DiagnosisEntry> wrong_row_reads(const AttentionCase& attention,
                                            std::span<const AttentionRow> rows) {
  std::vector<DiagnosisEntry> all;
  if (rows.empty()) return all;
  std::vector<AttentionRow> few;
  const std::size_t step = (rows.size() + most_rows - 1) / most_rows;
  for (std::size_t n = 0; n < rows.size(); n += step) few.push_back(rows[n]);
  const AttentionInputs& in = *rows.front().in;
  const std::array<std::pair<Operand, bool>, 3> operands = {
      {{Operand::mask, bool(in.mask)}, {Operand::bias, bool(in.bias)}, {Operand::q, true}}};
  for (const auto& [operand, is_there] : operands) {
    if (!is_there) continue;
    for (DiagnosisEntry& x : read_elsewhere(attention, few, operand)) all.push_back(std::move(x));
  }
  return all;
}

}  // namespace attest
