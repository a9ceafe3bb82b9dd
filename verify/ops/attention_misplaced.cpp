// Rows of o that hold what belongs into other rows.
#include <algorithm>
#include <cmath>
#include <map>
#include <string>

#include "verify/ops/attention_explanations.hpp"

namespace attest {
namespace {

constexpr double least_share = 0.7;

struct Origin {
  Index h, i;
};

/// The row of the same sequence whose exact values are within their bounds of what `row` holds.
template <class At>
const Origin* origin_of(const AttentionRow& row, const Expected& o, At at, Origin& found) {
  const Index width = row.in->v_width();
  for (Index h = 0; h < row.in->q_heads(); ++h) {
    for (Index i = 0; i < row.in->queries(); ++i) {
      if (h == row.h && i == row.i) continue;
      Index e = 0;
      for (; e < width; ++e) {
        const Index n = at(h, i, e);
        if (!(std::abs(row.got[e] - o.value[n]) <= o.bound(n))) break;
      }
      if (e < width) continue;
      found = {h, i};
      return &found;
    }
  }
  return nullptr;
}

}  // namespace

std::vector<DiagnosisEntry> misplaced_rows(std::span<const AttentionRow> rows, const AttentionCase& attention,
                                           const Expected& o) {
  std::map<std::string, Index> votes;
  const double* data = o.value.data();
  for (const AttentionRow& row : rows) {
    const auto sequence =
        std::ranges::find_if(attention.sequences, [&](const Sequence& s) { return &s.in == row.in; });
    const auto place = attention.like_o(data, *sequence);
    Origin from;
    if (!origin_of(
            row, o, [&](Index h, Index i, Index e) { return &place(h, i, e) - data; }, from))
      continue;
    const auto number = [&](Index i) { return row.in->row ? row.in->row(i) : i; };
    const Index rows_off = number(from.i) - number(row.i);
    std::string where;
    if (rows_off != 0) {
      where = std::to_string(std::abs(rows_off)) + (std::abs(rows_off) == 1 ? " row " : " rows ") +
              (rows_off < 0 ? "before" : "after");
    }
    if (from.h != row.h) {
      where += (where.empty() ? "in" : ", in") + std::string(" head ") + std::to_string(from.h) +
               " instead of " + std::to_string(row.h);
    }
    ++votes[where];
  }
  if (votes.empty()) return {};
  const auto most = std::ranges::max_element(votes, {}, [](const auto& vote) { return vote.second; });
  const double share = static_cast<double>(most->second) / static_cast<double>(rows.size());
  if (share < least_share) return {};
  return {{"rows of o hold the results of those " + most->first, share,
           std::to_string(most->second) + " of " + std::to_string(rows.size()) +
               " wrong rows agree with another row within its bounds"}};
}

}  // namespace attest
