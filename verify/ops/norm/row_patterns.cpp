// dweight and dbias are sums over rows, which kernels take in chunks: which rows of every chunk are wrong in
// them, and how.
#include <algorithm>
#include <cmath>
#include <set>

#include "verify/compare.hpp"
#include "verify/ops/lost_terms.hpp"
#include "verify/ops/norm/problem.hpp"
#include "verify/ops/norm/stages.hpp"
#include "verify/ops/sample.hpp"

namespace attest {
namespace {

constexpr Index most_columns = 64, most_rows = 4096, longest_chunk = 64;
/// What a guess may leave of the squared errors. Nothing is fitted to them.
constexpr double most_left = 0.01;

/// How a kernel takes wrong rows: what the term of row i in column c is too large by.
struct Misreading {
  std::string before, after;   // of the rows' name
  std::vector<double> excess;  // [R, C]
};

struct Sums {
  const Expected* expected;
  std::vector<Index> columns;
  std::vector<double> error;
  Index rows;

  std::size_t at(Index i, std::size_t c) const { return i * columns.size() + c; }
};

/// The best guess so far.
struct Guess {
  std::string name;
  double left = 1;
};

/// Chunks of so many rows each, of a fixed size or so many that there are as many chunks as programs.
std::set<Index> chunk_sizes(Index rows) {
  std::set<Index> all;
  for (Index n = 2; n <= longest_chunk; ++n) {
    if (n < rows) all.insert(n);
    if (const Index size = (rows + n - 1) / n; size > 1) all.insert(size);
  }
  all.insert(rows);
  return all;
}

class PatternSearch {
 public:
  explicit PatternSearch(const Sums& sums) : sums_(sums) {
    for (const double error : sums.error) all_ += error * error;
  }
  const Guess& best() const { return best_; }

  void of_chunks(const Misreading& how, Index chunk) {
    const std::size_t width = sums_.columns.size();
    // Those of the first chunk apart: with it, and without.
    std::vector<double> first(width * (chunk + 1)), later = first;
    for (Index i = 0; i < sums_.rows; ++i)
      for (std::size_t c = 0; c < width; ++c)
        (i < chunk ? first : later)[(i % chunk + 1) * width + c] += how.excess[sums_.at(i, c)];
    for (std::size_t n = width; n < first.size(); ++n)
      first[n] += first[n - width], later[n] += later[n - width];
    const bool is_short = chunk <= longest_chunk;
    std::vector<double> change(width);
    for (Index a = 0; a < chunk; ++a) {
      for (Index b = a + 1; b <= chunk; ++b) {
        if (b - a == chunk || (!is_short && b - a > 1 && a > 0 && b < chunk)) continue;
        for (const bool with_first : {true, false}) {
          if (!with_first && chunk >= sums_.rows) continue;
          for (std::size_t c = 0; c < width; ++c)
            change[c] = later[b * width + c] - later[a * width + c] +
                        (with_first ? first[b * width + c] - first[a * width + c] : 0);
          attempt(change, [&] {
            const std::string which = b - a == 1 ? "row " + std::to_string(a)
                                                 : "rows " + std::to_string(a) + ".." + std::to_string(b - 1);
            return how.before + which +
                   (chunk < sums_.rows ? " of every " + std::to_string(chunk) + " rows" : std::string()) +
                   (with_first ? "" : ", but for the first " + std::to_string(chunk) + ",") + how.after;
          });
        }
      }
    }
  }

  /// Rows of a chunk that a loop leaves over which takes `unrolled` at a time.
  void of_remainders(const Misreading& how, Index chunk, Index unrolled) {
    const std::size_t width = sums_.columns.size();
    std::vector<double> change(width);
    for (Index i = 0; i < sums_.rows; ++i) {
      const Index length = std::min(chunk, sums_.rows - i / chunk * chunk);
      if (i % chunk < length / unrolled * unrolled) continue;
      for (std::size_t c = 0; c < width; ++c) change[c] += how.excess[sums_.at(i, c)];
    }
    attempt(change, [&] {
      return how.before + "the rows that " + std::to_string(unrolled) + " at a time leave over" +
             (chunk < sums_.rows ? " of every " + std::to_string(chunk) : std::string()) + how.after;
    });
  }

  template <class Name>
  void attempt(const std::vector<double>& change, Name name) {
    // Of guesses as good, the first and simplest stays.
    constexpr double same = 1e-9;
    double left = 0;
    for (std::size_t c = 0; c < change.size() && left < best_.left * all_; ++c) {
      const double off = sums_.error[c] - change[c];
      left += off * off;
    }
    if (left / all_ < best_.left - same) best_ = {name(), left / all_};
  }

 private:
  const Sums& sums_;
  double all_ = 0;
  Guess best_;
};

}  // namespace

std::vector<DiagnosisEntry> NormProblem::wrong_rows_of_chunks(std::span<const Expected> expected) const {
  std::vector<DiagnosisEntry> all;
  const NormInputs& in = norm_.in;
  if (in.rows() < 2 || in.rows() > most_rows) return all;
  const NormVariant right{"", norm_.spec, in};
  const NormStages kernel(right, norm_.dy);
  for (const Expected& e : expected) {
    const bool is_dweight = e.output == "dweight";
    if (!(is_dweight || e.output == "dbias") || !has_wrong_elements(e)) continue;
    Sums sums{&e, evenly_spread(in.width(), most_columns), {}, in.rows()};
    if (static_cast<Index>(sums.columns.size()) < least_elements_of_sums) continue;
    for (const Index j : sums.columns) sums.error.push_back(e.dumped->values[j] - e.value[j]);
    if (!std::ranges::all_of(sums.error, [](double x) { return std::isfinite(x); })) continue;
    std::vector<NormStages::Statistics> statistics;
    for (Index i = 0; i < in.rows(); ++i) statistics.push_back(kernel.statistics(i));
    const auto term = [&](Index i, Index j, double mean, double rstd) {
      return is_dweight ? norm_.dy(i, j) * (in.x(i, j) - mean) * rstd : norm_.dy(i, j);
    };
    const auto misread = [&](const std::string& before, const std::string& after, auto excess) {
      Misreading how{before, after.empty() ? "" : after + e.output, {}};
      for (Index i = 0; i < in.rows(); ++i) {
        const auto& [mean, rstd] = statistics[i];
        for (const Index j : sums.columns) how.excess.push_back(excess(i, j, term(i, j, mean, rstd)));
      }
      return how;
    };
    std::vector<Misreading> ways;
    ways.push_back(misread("", " missing in ", [](Index, Index, double t) { return -t; }));
    ways.push_back(misread("", " twice in ", [](Index, Index, double t) { return t; }));
    if (is_dweight) {
      ways.push_back(misread("rstd missing in dweight in ", "", [&](Index i, Index j, double t) {
        return term(i, j, statistics[i].mean, 1) - t;
      }));
      if (norm_.spec.is_centred)
        ways.push_back(misread("the mean not subtracted in dweight in ", "", [&](Index i, Index j, double t) {
          return term(i, j, 0, statistics[i].rstd) - t;
        }));
    }
    PatternSearch search(sums);
    for (const Index chunk : chunk_sizes(in.rows())) {
      for (const Misreading& how : ways) {
        search.of_chunks(how, chunk);
        for (const Index unrolled : {2, 4, 8}) search.of_remainders(how, chunk, unrolled);
      }
      if (!is_dweight || chunk == in.rows()) continue;
      for (const bool with_mean : {false, true}) {
        if (with_mean && !norm_.spec.is_centred) continue;
        for (const bool is_first : {true, false}) {
          std::vector<double> change(sums.columns.size());
          for (Index i = 0; i < in.rows(); ++i) {
            const Index from = i / chunk * chunk,
                        row = is_first ? from : std::min(from + chunk, in.rows()) - 1;
            const auto &own = statistics[i], &of = statistics[row];
            for (std::size_t c = 0; c < change.size(); ++c)
              change[c] += term(i, sums.columns[c], with_mean ? of.mean : own.mean, of.rstd) -
                           term(i, sums.columns[c], own.mean, own.rstd);
          }
          search.attempt(change, [&] {
            return "dweight with " + std::string(with_mean ? "mean and rstd" : "rstd") + " of the " +
                   (is_first ? "first" : "last") + " of each " + std::to_string(chunk) + " rows";
          });
        }
      }
    }
    if (search.best().left <= most_left)
      all.push_back({search.best().name, 1 - search.best().left,
                     "explains " + percent(1 - search.best().left) + " of the squared errors"});
  }
  return all;
}

}  // namespace attest
