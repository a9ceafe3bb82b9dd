// Results that are sums of weighted vectors, and which of their terms a faulty kernel weighted wrongly.
//
// If the weights of some terms were multiplied by 1 + x, a sum s of w v errs by x d, where d is the sum of w
// v over these terms. If the weights are divided by their sum, 1, and that sum was formed from the wrong
// ones, it errs by x (d - W s) / (1 + x W), where W is the sum of w over them. x is fitted to every sum, the
// range of terms to all of them together; sums count alike, whatever their errors.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/dtype.hpp"
#include "core/view.hpp"

namespace attest {

/// A term: where it stands among those of all sums (a key, a query row), and its vector, whose elements are
/// `step` apart.
struct Term {
  Index place;
  double weight;
  const double* vector;
  double stored;  // the weight as the kernel seems to have stored it
};
struct WeightedSum {
  std::vector<Term> terms;  // by place
  Index step = 1;
  std::optional<DType> replayed_in;  // the type of the result, if stored weights are known
  bool is_gross = false;             // some element is further off than chance ever takes it
  Index places = 0;                  // terms have places from 0 on, fewer than this
  std::vector<double> exact;         // the sum, with the weights as stored
  std::vector<double> got;           // as dumped
  std::vector<double> sigma;         // predicted standard deviation of its error

  Index width() const { return static_cast<Index>(exact.size()); }
};

/// Terms [first, last), and by what their weights were multiplied, less 1, in the sums that this explains.
struct WrongRange {
  Index first = 0, last = 0;
  bool in_row_sum = false;
  double explained = 0;          // share of the squared errors
  std::vector<double> change;    // ascending
  std::vector<std::size_t> sum;  // which sums these are, in their order

  bool spans_all(Index places) const { return first == 0 && last == places; }
  /// Most changes are within 10 % of x.
  bool changes_by(double x) const;
  /// Terms are missing, or there twice.
  bool is_whole() const;
};

/// The range that explains most; `explained` is 0 where there is too little to fit. is_normalised: try both.
WrongRange best_range(std::span<const WeightedSum> sums, bool is_normalised);

/// Are most of the values within 10 % of x?
bool all_near(const std::vector<double>& values, double x);

/// "99 %", rounded down.
std::string percent(double share);

/// "1.0004", "1.01", "128"
std::string factor_text(double factor);

}  // namespace attest
