// Rows of an output that hold what belongs into other rows.
#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <string>

#include "verify/compare.hpp"
#include "verify/ops/attention/explanations.hpp"
#include "verify/ops/attention/rearranged.hpp"
#include "verify/ops/sample.hpp"

namespace attest {
namespace {

constexpr double least_share = 0.7;
constexpr Index most_rows = 64;
constexpr Index least_width =
    4;  // narrower rows may agree with others by chance: they have to with one alone
constexpr std::size_t most_ways = 8, named_ways = 3;  // from which rows may come, if not from one

struct Row {
  const Sequence* sequence;
  Index h, i;
};

class Output {
 public:
  Output(const AttentionCase& attention, const Expected& expected)
      : attention_(attention), expected_(expected) {}

  /// Rows with a wrong element, but for those that hold zeros only.
  std::vector<Row> wrong_rows() const {
    std::vector<Row> all;
    for (const Sequence& s : attention_.sequences) {
      const View<const double, 3> view = view_of(s);
      for (Index h = 0; h < view.extent(0); ++h) {
        for (Index i = 0; i < view.extent(1); ++i) {
          bool is_wrong = false, is_zero = true;
          for (Index e = 0; e < view.extent(2); ++e) {
            const double got = expected_.dumped->values[at(view, h, i, e)];
            is_wrong |= !within_bound(expected_, at(view, h, i, e), got);
            is_zero &= got == 0;
          }
          if (is_wrong && !is_zero) all.push_back({&s, h, i});
        }
      }
    }
    return all;
  }

  /// The row whose exact values are within their bounds of what this row holds; of the same sequence, if it
  /// has one.
  std::optional<Row> origin_of(const Row& row) const {
    const bool is_narrow = view_of(*row.sequence).extent(2) < least_width;
    std::optional<Row> first;
    const auto is_told = [&](const Sequence& s) {  // nothing more needs to be looked at
      for (const Row& found : origins_in(s, row, is_narrow ? 2 : 1)) {
        if (first) return first.reset(), true;
        first = found;
      }
      return first && !is_narrow;
    };
    if (is_told(*row.sequence)) return first;
    for (const Sequence& s : attention_.sequences)
      if (&s != row.sequence && is_told(s)) return first;
    return first;
  }

 private:
  std::vector<Row> origins_in(const Sequence& s, const Row& row, std::size_t most) const {
    std::vector<Row> all;
    const View<const double, 3> view = view_of(s), own = view_of(*row.sequence);
    for (Index h = 0; h < view.extent(0); ++h) {
      for (Index i = 0; i < view.extent(1); ++i) {
        if (&s == row.sequence && h == row.h && i == row.i) continue;
        Index e = 0;
        for (; e < view.extent(2); ++e) {
          const Index n = at(view, h, i, e);
          const double got = expected_.dumped->values[at(own, row.h, row.i, e)];
          if (!(std::abs(got - expected_.value[n]) <= expected_.bound(n))) break;
        }
        if (e == view.extent(2)) all.push_back({&s, h, i});
        if (all.size() == most) return all;
      }
    }
    return all;
  }
  View<const double, 3> view_of(const Sequence& s) const { return view_of_rows(attention_, expected_, s); }
  Index at(const View<const double, 3>& view, Index h, Index i, Index e) const {
    return &view(h, i, e) - expected_.value.data();
  }

  const AttentionCase& attention_;
  const Expected& expected_;
};

/// Where `from` is, seen from `row`.
std::string direction(const AttentionCase& attention, const Row& row, const Row& from, bool has_keys) {
  std::string where;
  const auto add = [&](const std::string& what) { where += (where.empty() ? "" : ", ") + what; };
  const auto number = [&](const Row& x) {
    const AttentionInputs& in = x.sequence->in;
    return in.row && !has_keys ? in.row(x.i) : x.i;
  };
  const Index rows_off = number(from) - number(row);
  if (rows_off != 0) {
    add(std::to_string(std::abs(rows_off)) + (std::abs(rows_off) == 1 ? " row " : " rows ") +
        (rows_off < 0 ? "before" : "after"));
  }
  const auto instead = [&](const std::string& what, Index x, Index of) {
    if (x != of) add("in " + what + " " + std::to_string(x) + " instead of " + std::to_string(of));
  };
  instead("head", from.h, row.h);
  const Sequence* first = attention.sequences.data();
  instead("sequence", from.sequence - first, row.sequence - first);
  return where;
}

}  // namespace

std::vector<DiagnosisEntry> misplaced_rows(const AttentionCase& attention, const Expected& expected) {
  const bool is_narrow =
      view_of_rows(attention, expected, attention.sequences.front()).extent(2) < least_width;
  if (is_narrow && expected.output != "lse") return {};
  const Output output(attention, expected);
  const bool has_keys = expected.output == "dk" || expected.output == "dv";
  const std::vector<Row> wrong = output.wrong_rows();
  const std::vector<Index> sample = evenly_spread(static_cast<Index>(wrong.size()), most_rows);
  std::map<std::string, Index> votes;
  Index placed = 0;
  for (const Index n : sample) {
    const Row& row = wrong[n];
    const std::optional<Row> from = output.origin_of(row);
    if (!from) continue;
    ++placed;
    ++votes[direction(attention, row, *from, has_keys)];
  }
  const double of_sample = 1 / static_cast<double>(std::max<std::size_t>(sample.size(), 1));
  if (votes.empty()) return {};
  // One way explains most rows, or a few do, as where heads are exchanged.
  const auto most = std::ranges::max_element(votes, {}, [](const auto& vote) { return vote.second; });
  const bool is_one_way = static_cast<double>(most->second) * of_sample >= least_share;
  const Index agree = is_one_way ? most->second : placed;
  const double share = static_cast<double>(agree) * of_sample;
  if (share < least_share || (!is_one_way && votes.size() > most_ways)) return {};
  std::string from = is_one_way ? most->first : "";
  for (std::size_t n = 0; const auto& [way, count] : votes) {
    if (is_one_way || n++ >= named_ways) continue;
    from += (from.empty() ? "" : "; ") + way;
  }
  if (!is_one_way && votes.size() > named_ways) from += "; ...";
  return {{"rows of " + expected.output + " hold the results of those " + from, share,
           std::to_string(agree) + " of " + std::to_string(sample.size()) +
               " wrong rows agree with another row within its bounds"}};
}

}  // namespace attest
