// Rows of o that are divided by the row sum of another row, or by that of part of the keys.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "ref/attention.hpp"
#include "verify/ops/attention/device.hpp"
#include "verify/ops/attention/reads.hpp"

namespace attest {
namespace {

constexpr double least_explained = 0.95;
constexpr Index lane_columns = 2,
                quad_columns = 8;  // of a fragment: a lane of four holds 2 columns of every 8

/// A row sum over the right one: what each of 8 columns of o is divided by, and what lse has.
struct Ratio {
  std::array<double, quad_columns> of_column;
  double of_lse;
};

struct WrongSum {
  std::string fault;
  std::function<std::optional<Ratio>(const AttentionRow&)> ratio;
};

/// Relative to the row's maximum; 0 for a row that sees nothing.
double row_sum(const AttentionRow& row, Index i) {
  const AttentionInputs& in = *row.in;
  std::vector<double> s(in.keys());
  ref::attention_scores(*row.spec, in, row.h, i, {s.data(), {in.keys()}});
  if (in.sink) s.push_back(in.sink(row.h));
  const double m = s.empty() ? 0 : *std::ranges::max_element(s);
  double l = 0;
  for (const double x : s)
    if (std::isfinite(m)) l += std::exp(x - m);
  return l;
}

std::vector<WrongSum> of_other_rows() {
  std::vector<WrongSum> all;
  const auto add = [&](const std::string& which, const std::function<Index(Index)>& other) {
    for (const bool has_right_lse : {true, false}) {
      const auto ratio = [other, has_right_lse](const AttentionRow& row) -> std::optional<Ratio> {
        const Index i = other(row.i);
        if (i < 0 || i >= row.in->queries() || i == row.i) return {};
        const double x = row_sum(row, i) / row_sum(row, row.i);
        if (!(x > 0) || !std::isfinite(x)) return {};
        Ratio all_columns{{}, has_right_lse ? 1 : x};
        all_columns.of_column.fill(x);
        return all_columns;
      };
      all.push_back(
          {std::string(has_right_lse ? "o divided by the row sum" : "the row sum") + " of the " + which,
           ratio});
    }
  };
  for (const Index n : {1, 4, 8, 16, 32, 64, 128}) {
    const std::string row = n == 1 ? "row " : "row " + std::to_string(n) + " ";
    add(row + "before", [n](Index i) { return i - n; });
    add(row + "after", [n](Index i) { return i + n; });
  }
  for (const Index n : {2, 4, 8, 16, 32, 64, 128})
    add("first row of its tile of " + std::to_string(n), [n](Index i) { return i - i % n; });
  return all;
}

/// Lanes that add up their parts of a row in two steps, one of which is lost: each goes on with a sum of its
/// own.
std::vector<WrongSum> of_some_lanes() {
  std::vector<WrongSum> all;
  const auto add = [&](const std::string& which, Index kept) {  // which lanes have exchanged their parts
    all.push_back(
        {"the row sum reduced over " + which, [kept](const AttentionRow& row) -> std::optional<Ratio> {
           const auto lane = [](Index at) { return at % quad_columns / lane_columns; };
           Ratio ratio{};
           double sum = 0;
           for (std::size_t c = 0; c < row.key.size(); ++c) {
             sum += row.p[c];
             for (Index e = 0; e < quad_columns; ++e) {
               const Index from = lane(e), of = lane(row.key[c]);
               if (of == from || of == (from ^ kept)) ratio.of_column[e] += row.p[c];
             }
           }
           const double sink = 1 - sum;  // which every lane adds by itself
           for (double& x : ratio.of_column) x += sink;
           ratio.of_lse = ratio.of_column[0];
           return ratio;
         }});
  };
  add("2 of the 4 lanes of a quad: columns 0..3 and 4..7 of every 8 apart", 1);
  add("2 of the 4 lanes of a quad: columns 0, 1, 4, 5 and 2, 3, 6, 7 of every 8 apart", 2);
  add("one lane of a quad: two columns of every 8 at a time", 0);
  return all;
}

/// Rows for which there is no such sum count as unexplained.
Fits fits_of(std::span<const AttentionRow> rows, const WrongSum& wrong) {
  Fits fits;
  for (const AttentionRow& row : rows) {
    const Ratio right{{1, 1, 1, 1, 1, 1, 1, 1}, 1}, ratio = wrong.ratio(row).value_or(right);
    for (std::size_t e = 0; e < row.o.size(); ++e)
      fits.o.add(row.got[e], row.o[e], row.o[e] / ratio.of_column[e % quad_columns], row.sigma[e],
                 row.replayed_in);
    if (row.has_lse) fits.lse.add(row.got_lse, row.lse, row.lse + std::log(ratio.of_lse), row.lse_sigma);
  }
  return fits;
}

/// Nearly all rows, and not one whose error outweighs the others by chance: a sum is one number.
bool explains_each(std::span<const AttentionRow> rows, const WrongSum& wrong) {
  constexpr double least_share_of_rows = 0.9;
  constexpr int least_rows = 4;
  int told = 0, explained = 0;
  for (const AttentionRow& row : rows) {
    const Fits fits = fits_of({&row, 1}, wrong);
    const Fit both = fits.o + fits.lse;
    told += both.tells();
    explained += both.tells() && both.explained() >= least_explained;
  }
  return explained >= least_rows && explained >= least_share_of_rows * told;
}

}  // namespace

std::vector<DiagnosisEntry> wrong_row_sums(std::span<const AttentionRow> rows) {
  if (rows.size() < 4) return {};
  std::vector<WrongSum> all = of_some_lanes();
  for (WrongSum& x : of_other_rows()) all.push_back(std::move(x));
  const std::vector<AttentionRow> few = few_of(rows);
  std::vector<double> share(all.size());
#pragma omp parallel for schedule(dynamic, 1)
  for (std::size_t n = 0; n < all.size(); ++n) {
    const Fits both = fits_of(few, all[n]);
    share[n] = both.o.denies() || both.lse.denies() ? 0 : (both.o + both.lse).explained();
  }
  std::size_t best = 0;
  for (std::size_t n = 1; n < all.size(); ++n)
    if (share[n] > share[best] + least_gain) best = n;
  if (share[best] < least_explained || !explains_each(few, all[best])) return {};
  std::vector<DiagnosisEntry> found = fitted_fault(fits_of(rows, all[best]), all[best].fault);
  for (DiagnosisEntry& x : found) x.confidence /= preference_for_constants;  // no number was fitted
  return found;
}

}  // namespace attest
