// dweight and dbias are sums over rows: which rows a kernel has lost or counted twice, and whether it adds
// them up in a narrow format.
#include <algorithm>
#include <cmath>
#include <optional>
#include <set>

#include "verify/compare.hpp"
#include "verify/ops/lost_terms.hpp"
#include "verify/ops/norm/problem.hpp"
#include "verify/ops/norm/stages.hpp"
#include "verify/ops/sample.hpp"
#include "verify/ops/widths.hpp"

namespace attest {
namespace {

constexpr Index most_columns = 64, most_rows = 1 << 16;
/// Partial sums are formed of all columns, for each way to divide the rows.
constexpr Index most_partial_terms = 1 << 20, least_known = 8;

/// A few columns of dweight or dbias as sums: what every row adds, [R, C].
struct ColumnSums {
  const Expected* expected;
  std::vector<Index> columns;
  std::vector<double> terms;

  Index rows() const { return static_cast<Index>(terms.size() / columns.size()); }
};

std::vector<ColumnSums> wrong_column_sums(const NormCase& norm, std::span<const Expected> expected) {
  std::vector<ColumnSums> all;
  const NormVariant right{"", norm.spec, norm.in};
  const NormStages kernel(right, norm.dy);
  for (const Expected& e : expected) {
    const bool is_dweight = e.output == "dweight";
    if (!(is_dweight || e.output == "dbias") || !has_wrong_elements(e) || norm.in.rows() > most_rows)
      continue;
    ColumnSums sums{&e, evenly_spread(norm.in.width(), most_columns), {}};
    for (Index i = 0; i < norm.in.rows(); ++i) {
      const NormStages::Statistics s = is_dweight ? kernel.statistics(i) : NormStages::Statistics{};
      for (const Index j : sums.columns)
        sums.terms.push_back(is_dweight ? kernel.dweight_term(i, j, s) : norm.dy(i, j));
    }
    all.push_back(std::move(sums));
  }
  return all;
}

/// How programs that add up a share of the rows each divide them among themselves.
struct Division {
  Index programs, rows_each;
  bool is_strided;  // program p takes every row p + n programs

  std::string text() const {
    return rows_each == 1 ? ""
                          : std::string(is_strided ? ", every " + std::to_string(programs) + "th row"
                                                   : ", " + std::to_string(rows_each) + " rows") +
                                " at a time";
  }
};

/// Rows that a program takes: a power of two, or as many as so many programs need.
std::set<Index> shares(Index rows) {
  std::set<Index> all;
  for (Index n = 1; n < 2 * rows; n *= 2) {
    all.insert(std::min(n, rows));
    all.insert((rows + n - 1) / n);
  }
  return all;
}

/// What a kernel rounds: the running sum of a program, that sum as it is stored, or it and the sum of sums.
enum class Narrow { own, stored, across };

/// Sums of the programs are added up in order.
Decoy narrow_sum(const ColumnSums& sums, const Division& division, DType narrow, Narrow which) {
  const std::string what = which == Narrow::across   ? " from partial sums, added up in "
                           : which == Narrow::stored ? " from partial sums stored in "
                                                     : " added up in ";
  Decoy decoy{sums.expected->output + what + std::string(format_of(narrow).name) + division.text(),
              sums.expected->output,
              sums.columns,
              {}};
  decoy.is_of_whole_call = true;
  const Index rows = sums.rows(), width = static_cast<Index>(sums.columns.size());
  for (Index c = 0; c < width; ++c) {
    double total = 0;
    for (Index p = 0; p < division.programs; ++p) {
      double own = 0;
      for (Index n = 0; n < division.rows_each; ++n) {
        const Index i = division.is_strided ? p + n * division.programs : p * division.rows_each + n;
        if (i >= rows) break;
        own += sums.terms[i * width + c];
        if (which == Narrow::own) own = round_to(own, narrow);
      }
      if (which != Narrow::own) own = round_to(own, narrow);
      total = which == Narrow::across ? round_to(total + own, narrow) : total + own;
    }
    decoy.value.push_back(total);
  }
  return decoy;
}

/// Rows whose weight is 0 or 2 in place of 1, if that explains the errors.
std::optional<DiagnosisEntry> lost_or_doubled_rows(const ColumnSums& sums) {
  const Expected& e = *sums.expected;
  const Index width = static_cast<Index>(sums.columns.size());
  WeightedSum sum;
  for (Index i = 0; i < sums.rows(); ++i) sum.terms.push_back({i, 1, &sums.terms[i * width], 1});
  sum.places = sums.rows();
  for (const Index j : sums.columns) {
    sum.exact.push_back(e.value[j]);
    sum.got.push_back(e.dumped->values[j]);
  }
  return lost_or_doubled(sum, "row", e.output);
}

}  // namespace

std::vector<Decoy> NormProblem::narrow_gradient_sums(std::span<const Expected> expected) const {
  std::vector<Decoy> all;
  for (const ColumnSums& sums : wrong_column_sums(norm_, expected)) {
    for (const DType narrow : narrow_formats(norm_.contract.compute)) {
      for (const Index rows_each : shares(sums.rows())) {
        const Index programs = (sums.rows() + rows_each - 1) / rows_each;
        for (const bool is_strided : {false, true}) {
          const Division division{programs, rows_each, is_strided};
          if (is_strided && (programs == 1 || rows_each == 1)) continue;
          if (rows_each > 1) all.push_back(narrow_sum(sums, division, narrow, Narrow::own));
          if (programs == 1) continue;
          all.push_back(narrow_sum(sums, division, narrow, Narrow::across));
          if (rows_each > 1) all.push_back(narrow_sum(sums, division, narrow, Narrow::stored));
        }
      }
    }
  }
  return all;
}

// Rows of partial sums that are written further apart than they are read. What lies between them is unknown.
std::vector<Decoy> NormProblem::misplaced_partial_sums(std::span<const Expected> expected) const {
  std::vector<Decoy> all;
  const Index rows = norm_.in.rows(), width = norm_.in.width();
  const NormVariant right{"", norm_.spec, norm_.in};
  const NormStages kernel(right, norm_.dy);
  for (const Expected& e : expected) {
    const bool is_dweight = e.output == "dweight";
    if (!(is_dweight || e.output == "dbias") || !has_wrong_elements(e) || rows * width > most_partial_terms)
      continue;
    for (const Index rows_each : shares(rows)) {
      const Index programs = (rows + rows_each - 1) / rows_each;
      if (programs == 1) continue;
      std::vector<double> sums(programs * width);
      for (Index i = 0; i < rows; ++i) {
        const NormStages::Statistics s = is_dweight ? kernel.statistics(i) : NormStages::Statistics{};
        for (Index j = 0; j < width; ++j)
          sums[i / rows_each * width + j] += is_dweight ? kernel.dweight_term(i, j, s) : norm_.dy(i, j);
      }
      for (const Index padded : padded_widths(width)) {
        Decoy answer{"partial sums written " + std::to_string(padded) + " columns apart and read " +
                         std::to_string(width) + " apart, " + std::to_string(rows_each) + " rows at a time",
                     e.output,
                     {},
                     {}};
        for (Index j = 0; j < width; ++j) {
          double total = 0;
          bool is_known = true;
          for (Index p = 0; p < programs && is_known; ++p) {
            const Index from = p * width + j;
            is_known = from % padded < width;
            if (is_known) total += sums[from / padded * width + from % padded];
          }
          if (!is_known) continue;
          answer.at.push_back(j);
          answer.value.push_back(total);
        }
        if (static_cast<Index>(answer.at.size()) >= least_known) all.push_back(std::move(answer));
      }
    }
  }
  return all;
}

std::vector<DiagnosisEntry> NormProblem::lost_rows(std::span<const Expected> expected) const {
  std::vector<DiagnosisEntry> all;
  for (const ColumnSums& sums : wrong_column_sums(norm_, expected))
    if (const auto entry = lost_or_doubled_rows(sums)) all.push_back(*entry);
  return all;
}

}  // namespace attest
