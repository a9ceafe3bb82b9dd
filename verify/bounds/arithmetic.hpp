// The elementary errors that a contract implies, and how they add up. Equation numbers refer to
// docs/bounds.md.
#pragma once

#include <algorithm>
#include <cmath>
#include <optional>

#include "core/contract.hpp"
#include "core/view.hpp"
#include "verify/bounds/storage_grid.hpp"
#include "verify/expected.hpp"

namespace attest::bounds {

/// n roundings in a row: every product of n factors (1 + d)^+-1 with |d| <= u is within 1 +- gamma(n, u), and
/// log_gamma(n, u) bounds the absolute value of its logarithm (Higham, Accuracy and Stability, lemma 3.1,
/// without the simplification to n u / (1 - n u)).
double log_gamma(double n, double u);
double gamma(double n, double u);

/// Mean square of one relative rounding error to nearest, in units of u^2, for a log-uniform significand:
/// 1/(8 ln 2).
inline constexpr double mean_square_rounding = 0.18033688011112042;

/// Multiplying by it rounds nothing.
inline bool is_power_of_two(double x) {
  int exponent;
  return std::abs(std::frexp(x, &exponent)) == 0.5;
}

/// e^-750 is 0 in every format, and so is the weight of a score that is certainly less by as much than the
/// largest of its row, or its lse: one that a mask has lowered by 1e9, say. Whatever its error, it counts for
/// nothing; kernels that keep their exponentials above 0 make it a number that flush covers.
inline constexpr double least_vanishing = 750;
bool vanishes(double score, double error, double reference, double reference_error, double u);

/// What adding up n products may cost. Equations (3) and (4).
struct SumError {
  double worst;      // kappa: |computed - exact| <= kappa sum |a||b|
  double noise;      // variance of the error per mean square of the running sum
  double bias;       // mean error towards zero per |sum|: 0 where additions round to nearest
  double underflow;  // absolute error of a product that is subnormal: half the spacing of these
  double steps;      // additions of a product, or of as many as the device adds at once
  // What converting the operands costs: variance per sum of squared products, and mean share that these lose
  double conversion = 0, loss = 0;

  double variance(double mean_square_running, double squares) const {
    return noise * mean_square_running + conversion * squares;
  }
  /// Mean error towards zero of a sum of products t whose running sums have this mean square; squares =
  /// sum t^2. Equations (5a) and (5b).
  double truncation(double mean_square_running, double squares, double sum) const {
    const double of_additions =
        bias == 0 ? 0 : bias * (std::sqrt(mean_square_running) + std::sqrt(squares / steps));
    return of_additions + loss * std::abs(sum);
  }
  /// The largest share of itself that a sum may be short of.
  double shrinkage() const { return bias + loss; }
};

/// n products that are not zero, scattered over `span` places.
SumError sum_error(const Accumulator& accumulator, Index n, Index span);
inline SumError sum_error(const Accumulator& accumulator, Index n) {
  return sum_error(accumulator, n, n);
}

/// Running sums of n products t with S = sum t, Q = sum t^2: their mean square, the larger of the natural
/// order, the reversed order and the mean over random orders, Q/6 + S^2/3. Equation (5).
///   prefix = sum of the squares of the natural-order running sums, prefix_sum = sum of these running sums.
inline double mean_square_running_sum(double sum, double squares, double prefix, double prefix_sum,
                                      double n) {
  const double natural = prefix / n;
  const double reversed =
      (prefix - 2 * sum * prefix_sum + n * sum * sum) / n;  // prefix sums from the other end
  return std::max(std::max(natural, reversed), squares / 6 + sum * sum / 3);
}

/// Elementary errors under a contract, and the range of algorithms that it leaves open: any tile of at least
/// `least_tile` keys in any order, per-step or deferred normalisation, keys split over up to `most_splits`
/// workers.
struct Arithmetic {
  explicit Arithmetic(const Contract& contract);

  Contract contract;
  double u;                 // unit roundoff of scores, exponentials and sums
  double exp_error;         // relative error of exp: 2 ulp unless the contract has it
  double log_error;         // absolute error of log near 1: 4 ulp of 1
  double log_relative;      // relative error of log: 2 ulp
  double tanh_relative;     // relative error of tanh, likewise
  double flush;             // results of exp below this may become 0
  bool p_is_rounded;        // the stored weights are narrower than the computed ones
  double p_unit;            // unit roundoff of the stored weights
  double p_half_subnormal;  // half the spacing of the subnormals of the stored weights

  double split_unit;            // unit roundoff of o of split keys, 0 if it is not narrower
  double split_half_subnormal;  // half the spacing of its subnormals

  /// p_half_subnormal relative to the row sum l, as the contract has weights stored.
  double half_subnormal_of_weights(double l) const {
    return contract.weights.may_be_normalised ? p_half_subnormal
                                              : p_half_subnormal / (contract.weights.unit * l);
  }
  /// Scores that are stored between operations in a type narrower than the softmax's.
  std::optional<StorageGrid> score_store;

  /// What one such store of a number costs that may be off by `error` before; 0 without it. Equation (6b).
  double score_store_worst(double x, double error) const {
    if (!score_store) return 0;
    return std::max(score_store->relative_spacing / 2 * (std::abs(x) + error), score_store->spacing(0) / 2);
  }
  double score_store_relative() const { return score_store ? score_store->relative_spacing / 2 : 0; }
  double score_store_variance(double x) const {
    const double spacing = score_store ? score_store->spacing(x) : 0;
    return spacing * spacing / 12;
  }

  static constexpr Index least_tile = 16;
  static constexpr double most_splits = 64;
  static constexpr double exps_per_tile = 2;  // FlashAttention-1 rescales twice
  static constexpr double roundings_per_tile = 4;

  /// Tiles that hold any of `keys` keys scattered over `span` places.
  double tiles(Index keys, Index span) const;
  double tiles(Index keys) const { return tiles(keys, keys); }

  /// How much more exact double precision is than the contract, per operation: a reference that evaluates the
  /// same formula in double is off by at most this share of the rigorous bound. Equation (20).
  double reference_share(Index width, Index keys) const;
};

/// sqrt(2 ln(2 n / delta)): a sum of independent bounded errors exceeds lambda sigma somewhere in a tensor of
/// n elements with probability delta = 1e-9 at most. Equation (12).
double confidence_multiplier(Index elements);

/// The bounds of one element, from what is known before the result is rounded to its element type.
/// worst: rigorous bound of the error before the store; systematic: the part of the error that does not
/// average out; sigma: standard deviation of the rest; share: reference_share. Equations (10) to (13).
ElementBound element_bound(double value, double worst, double systematic, double sigma, double lambda,
                           double share, DType dtype);

}  // namespace attest::bounds
