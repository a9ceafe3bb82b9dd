// Rows of an output that hold what belongs into other rows.
#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <string>

#include "verify/compare.hpp"
#include "verify/ops/attention_explanations.hpp"
#include "verify/ops/attention_rearranged.hpp"
#include "verify/ops/sample.hpp"

namespace attest {
namespace {

constexpr double least_share = 0.7;
constexpr Index most_rows = 64, least_width = 4;  // a number or two agree with another row by chance

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

  /// The row of the same sequence whose exact values are within their bounds of what this row holds.
  std::optional<Row> origin_of(const Row& row) const {
    const View<const double, 3> view = view_of(*row.sequence);
    for (Index h = 0; h < view.extent(0); ++h) {
      for (Index i = 0; i < view.extent(1); ++i) {
        if (h == row.h && i == row.i) continue;
        Index e = 0;
        for (; e < view.extent(2); ++e) {
          const Index n = at(view, h, i, e);
          const double got = expected_.dumped->values[at(view, row.h, row.i, e)];
          if (!(std::abs(got - expected_.value[n]) <= expected_.bound(n))) break;
        }
        if (e == view.extent(2)) return Row{row.sequence, h, i};
      }
    }
    return {};
  }

 private:
  View<const double, 3> view_of(const Sequence& s) const { return view_of_rows(attention_, expected_, s); }
  Index at(const View<const double, 3>& view, Index h, Index i, Index e) const {
    return &view(h, i, e) - expected_.value.data();
  }

  const AttentionCase& attention_;
  const Expected& expected_;
};

}  // namespace

std::vector<DiagnosisEntry> misplaced_rows(const AttentionCase& attention, const Expected& expected) {
  if (view_of_rows(attention, expected, attention.sequences.front()).extent(2) < least_width) return {};
  const Output output(attention, expected);
  const bool has_keys = expected.output == "dk" || expected.output == "dv";
  const std::vector<Row> wrong = output.wrong_rows();
  const std::vector<Index> sample = evenly_spread(static_cast<Index>(wrong.size()), most_rows);
  std::map<std::string, Index> votes;
  for (const Index n : sample) {
    const Row& row = wrong[n];
    const std::optional<Row> from = output.origin_of(row);
    if (!from) continue;
    const AttentionInputs& in = row.sequence->in;
    const auto number = [&](Index i) { return in.row && !has_keys ? in.row(i) : i; };
    const Index rows_off = number(from->i) - number(row.i);
    std::string where;
    if (rows_off != 0) {
      where = std::to_string(std::abs(rows_off)) + (std::abs(rows_off) == 1 ? " row " : " rows ") +
              (rows_off < 0 ? "before" : "after");
    }
    if (from->h != row.h) {
      where += (where.empty() ? "in" : ", in") + std::string(" head ") + std::to_string(from->h) +
               " instead of " + std::to_string(row.h);
    }
    ++votes[where];
  }
  if (votes.empty()) return {};
  const auto most = std::ranges::max_element(votes, {}, [](const auto& vote) { return vote.second; });
  const double share = static_cast<double>(most->second) / static_cast<double>(sample.size());
  if (share < least_share) return {};
  return {{"rows of " + expected.output + " hold the results of those " + most->first, share,
           std::to_string(most->second) + " of " + std::to_string(sample.size()) +
               " wrong rows agree with another row within its bounds"}};
}

}  // namespace attest
