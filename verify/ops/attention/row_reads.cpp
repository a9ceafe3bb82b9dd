// Rows of q, in/mask or in/bias that are read in place of a row's own: found by the rules that kernels are
// known to follow, and without one among all that there are.
#include "verify/ops/attention/reads.hpp"

namespace attest {
namespace {

constexpr double most_operations = 1e9;

struct Place {
  Index n, h, i;  // sequence, query head, row
  bool operator==(const Place&) const = default;
};

enum class Operand { mask, bias, q };
constexpr const char* name_of(Operand x) {
  return x == Operand::mask ? "in/mask" : x == Operand::bias ? "in/bias" : "in/q";
}
template <class Inputs>
auto& operand_of(Inputs& in, Operand x) {
  return x == Operand::mask ? in.mask : x == Operand::bias ? in.bias : in.q;
}

Place own_place(const AttentionCase& attention, const AttentionRow& row) {
  return {sequence_of(attention, row), row.h, row.i};
}

/// A row with the operand of another place; nothing if there is no such place.
std::optional<AttentionInputs> read_from(const AttentionCase& attention, const AttentionRow& row,
                                         Operand operand, const Place& at) {
  if (at.n < 0 || at.h < 0 || at.i < 0 || at.n >= std::ssize(attention.sequences)) return {};
  const AttentionInputs& other = attention.sequences[at.n].in;
  if (at.h >= other.q_heads() || at.i >= other.queries()) return {};
  if (operand != Operand::q && other.keys() != row.in->keys()) return {};
  const View<const double, 3> x = operand_of(other, operand);
  AttentionInputs in = *row.in;
  // An axis of no stride has this one row everywhere.
  operand_of(in, operand) = {
      &x(at.h, at.i, 0), {in.q_heads(), in.queries(), x.extent(2)}, {0, 0, x.stride(2)}};
  return in;
}

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
    const std::string entry = entry_text(attention);
    add("of " + entry + " 0", [](Place at) { return Place{0, at.h, at.i}; });
    add("of the next " + entry, [=](Place at) { return Place{(at.n + 1) % entries, at.h, at.i}; });
    add("of the " + entry + " before", [=](Place at) {
      return Place{(at.n + entries - 1) % entries, at.h, at.i};
    });
    add("of " + entry + " (b Hq + h) mod B", [=](Place at) {
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

/// All places, of those that hold the same the first.
std::vector<Reading> all_places(const AttentionCase& attention, Operand operand) {
  std::vector<Reading> all;
  for (Index n = 0; n < std::ssize(attention.sequences); ++n) {
    const AttentionInputs& in = attention.sequences[n].in;
    const View<const double, 3> x = operand_of(in, operand);
    for (Index h = 0; h < (x.stride(0) == 0 ? 1 : in.q_heads()); ++h) {
      for (Index i = 0; i < (x.stride(1) == 0 ? 1 : in.queries()); ++i) {
        all.push_back({"that of row " + std::to_string(i) + " of head " + std::to_string(h) +
                           of_entry_text(attention, n),
                       [&attention, operand, at = Place{n, h, i}](const AttentionRow& row) {
                         return read_from(attention, row, operand, at);
                       }});
      }
    }
  }
  return all;
}

std::vector<DiagnosisEntry> read_elsewhere(const AttentionCase& attention, std::span<const AttentionRow> rows,
                                           Operand operand) {
  std::vector<Reading> by_rules;
  for (const Rule& rule : rules(attention)) {
    by_rules.push_back(
        {name_of(operand) + (" " + rule.name), [&attention, operand, rule](const AttentionRow& row) {
           return read_from(attention, row, operand, rule.place(own_place(attention, row)));
         }});
  }
  const std::vector<DiagnosisEntry> found = first_reading(rows, by_rules);
  const AttentionInputs& in = *rows.front().in;
  const double places = static_cast<double>(in.q_heads() * in.queries() * std::ssize(attention.sequences));
  const double for_scores = static_cast<double>(in.keys() * (in.qk_width() + 20));
  const bool is_too_much = places * for_scores * static_cast<double>(rows.size()) > most_operations;
  if (!found.empty() || in.row || is_too_much) return found;
  return readings_of_each(attention, rows, all_places(attention, operand),
                          name_of(operand) + std::string(" of other rows"));
}

}  // namespace

std::vector<DiagnosisEntry> wrong_row_reads(const AttentionCase& attention,
                                            std::span<const AttentionRow> rows) {
  std::vector<DiagnosisEntry> all;
  if (rows.empty()) return all;
  const std::vector<AttentionRow> few = few_of(rows);
  for (const Operand operand : {Operand::mask, Operand::bias, Operand::q}) {
    if (!operand_of(*rows.front().in, operand)) continue;
    for (DiagnosisEntry& x : read_elsewhere(attention, few, operand)) all.push_back(std::move(x));
  }
  return all;
}

}  // namespace attest
