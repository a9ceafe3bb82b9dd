// Sums over a row are put together from those of warps: which of them are lost, are another row's, or go
// through a narrow format.
#include "verify/ops/norm/warps.hpp"

#include <algorithm>
#include <cmath>
#include <optional>

#include "verify/compare.hpp"
#include "verify/ops/norm/problem.hpp"
#include "verify/ops/norm/row_statistics.hpp"
#include "verify/ops/norm/stages.hpp"
#include "verify/ops/weighted_sums.hpp"

namespace attest {
namespace {

constexpr Index most_warps = 32, most_vector = 8, most_rows = 256, fewest_rows = 8;
constexpr Index most_elements = Index{1} << 20;
/// What a guess may leave of the squared errors. Nothing is fitted to them but the row before.
constexpr double most_left = 0.002;

class WarpSearch {
 public:
  /// squares: of every row and column, [R, N].
  WarpSearch(const RowSums& sums, const std::vector<double>& squares, Index width, std::string of)
      : sums_(sums), squares_(squares), width_(width), of_(std::move(of)) {}

  void attempt(const Warps& warps, DType compute) {
    const Index rows = static_cast<Index>(squares_.size()) / width_, count = warps.count;
    std::vector<double> part(rows * count);
    for (Index i = 0; i < rows; ++i)
      for (Index j = 0; j < width_; ++j) part[i * count + warps.of(j)] += squares_[i * width_ + j];
    const std::string of_all = " of " + std::to_string(count);
    for (Index first = 0; first < count; ++first) {
      for (const Index last : {first, count - 1}) {
        if (first == 0 && last == count - 1) continue;
        guess(
            [&](Index i, double exact) {
              for (Index w = first; w <= last; ++w) exact -= part[i * count + w];
              return exact;
            },
            0,
            [&] {
              return (first == last ? "warp " + std::to_string(first)
                                    : "warps " + std::to_string(first) + ".." + std::to_string(last)) +
                     of_all + " missing in " + of_;
            });
      }
    }
    for (const Index w : {count - 1, Index{0}}) {
      for (Index by = 1; by + fewest_rows <= rows && by <= most_rows; ++by) {
        guess([&](Index i, double exact) { return exact + part[(i - by) * count + w] - part[i * count + w]; },
              by,
              [&] {
                return of_ + " with the share of warp " + std::to_string(w) + of_all + " of the row " +
                       (by == 1 ? "" : std::to_string(by) + " ") + "before";
              });
      }
    }
    for (const DType narrow : narrow_formats(compute)) {
      guess(
          [&](Index i, double) {
            double sum = 0;
            for (Index w = 0; w < count; ++w) sum += round_to(part[i * count + w], narrow);
            return sum;
          },
          0,
          [&] {
            return "the sums of squares of " + std::to_string(count) + " warps stored" + in_format(narrow);
          });
    }
  }

  std::optional<DiagnosisEntry> best() const {
    if (left_ > most_left) return {};
    return DiagnosisEntry{name_, 1 - left_, "explains " + percent(1 - left_) + " of the squared errors"};
  }

 private:
  /// value(i, exact): the sum of row i, of rows from `from` on.
  template <class Value, class Name>
  void guess(Value value, Index from, Name name) {
    double before = 0, after = 0;
    Index count = 0;
    for (std::size_t n = 0; n < sums_.rows.size(); ++n) {
      if (sums_.rows[n] < from) continue;
      // Rows count alike, whatever their sizes.
      const double off = (sums_.got[n] - value(sums_.rows[n], sums_.exact[n])) / sums_.exact[n];
      const double error = (sums_.got[n] - sums_.exact[n]) / sums_.exact[n];
      before += error * error, after += off * off, ++count;
    }
    // Of guesses as good, the first and simplest stays.
    constexpr double clearly = 0.5, same = 1e-9;
    if (count < fewest_rows || !(before > 0) || !(after < before * most_left)) return;
    if (left_ <= 1 && after / before + same > clearly * left_) return;
    left_ = after / before, name_ = name();
  }

  const RowSums& sums_;
  const std::vector<double>& squares_;
  Index width_;
  std::string of_, name_;
  double left_ = 2;
};

}  // namespace

std::vector<Warps> divisions_among_warps(Index width) {
  std::vector<Warps> all;
  for (Index vector = 1; vector <= most_vector; vector *= 2)
    for (Index count = 2; count <= most_warps; count *= 2)
      if (count / 2 * Warps::lanes * vector < width) all.push_back({count, vector});
  return all;
}

std::vector<DiagnosisEntry> NormProblem::wrong_sums_of_warps(std::span<const Expected> expected) const {
  const NormInputs& in = norm_.in;
  const Index width = in.width(), rows = in.rows();
  if (in.rstd || rows < fewest_rows) return {};
  const auto wrong = [&](std::string_view output) -> const Expected* {
    const auto e = std::ranges::find(expected, output, &Expected::output);
    return e != expected.end() && has_wrong_elements(*e) ? &*e : nullptr;
  };
  const Expected *rstd = wrong("rstd"), *y = wrong("y");
  if (wrong("mean") || !(rstd || y)) return {};
  // The first rows: what a row has from one before is near it.
  std::vector<Index> some_rows;
  const Index count = std::min({rows, most_rows, std::max(fewest_rows, most_elements / width)});
  for (Index i = 0; i < count; ++i) some_rows.push_back(i);
  const RowSums sums = sums_of_squares(norm_, rstd, y, some_rows);
  const NormVariant right{"", norm_.spec, in};
  const NormStages kernel(right, {});
  std::vector<double> squares;
  for (Index i = 0; i < count; ++i) {
    const double mu = norm_.spec.is_centred ? kernel.statistics(i).mean : 0;
    for (Index j = 0; j < width; ++j) squares.push_back((in.x(i, j) - mu) * (in.x(i, j) - mu));
  }
  WarpSearch search(sums, squares, width, norm_.spec.is_centred ? "the variance" : "the mean square");
  for (const Warps& warps : divisions_among_warps(width)) search.attempt(warps, norm_.contract.compute);
  if (const auto best = search.best()) return {*best};
  return {};
}

}  // namespace attest
