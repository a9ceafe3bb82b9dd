// One row of softmax, exact, with the errors that a device makes in its exponentials and in their sum.
// Equation numbers refer to docs/bounds_softmax.md.
#pragma once

#include <vector>

#include "ref/softmax.hpp"
#include "verify/bounds/arithmetic.hpp"
#include "verify/bounds/weight_structure.hpp"

namespace attest::bounds {

/// How a kernel that does not subtract the maximum fares on a row. Where the exact answer lies within the
/// rounding errors of an edge, the contract permits both sides of it.
struct NaiveOutcome {
  bool may_overflow, must_overflow;  // an exp or the row sum
  bool may_vanish, must_vanish;      // the row sum falls below the normal numbers, or to 0
  bool reciprocal_is_lost;           // the reciprocal of the row sum may fall below the normal numbers
};

/// Vectors have one entry per score that is not -inf and whose weight does not vanish.
struct SoftmaxRow {
  std::vector<Index> key;       // its column
  std::vector<Index> vanished;  // columns of the scores that do, of which `vanishes` is true
  std::vector<double> s;        // the scores
  std::vector<double> p;        // exact weights
  std::vector<double> delta;    // rigorous bound of the relative error of exp, in the exponent. Equation (S1)
  std::vector<double> variance;  // of its noise. Equation (S8)
  double m, l, lse;              // l relative to the maximum
  double kernel_sum;             // the sum that the kernel forms: l, or exp(lse) without the maximum
  double largest;                // largest |s|

  // Relative errors of the row sum.
  double flushed;         // terms and rescaled sums that fall below the normal numbers. Equation (S2)
  double terms_worst;     // from its terms, `flushed` included: A of equation (S3)
  double addition_worst;  // from the additions: infinite where nothing can be promised
  double scaling;         // of all exponents, by a scale other than 1: its part that does not average out
  double update;          // from rescaling, the part that does not average out. Equation (S9)
  double terms_noise;     // standard deviation of the noise of its terms, taken as fully correlated
  double sum_variance;    // of the additions and the division. Equation (S10)
  WeightStructure structure;
  double group_size;     // mean number of equal scores
  bool sum_is_coherent;  // additions round alike: their errors add up

  Index count() const { return static_cast<Index>(key.size()); }

  /// scores[N], -inf where absent. False if there is no score: nothing but `key` is set then.
  bool compute(const ref::SoftmaxSpec& spec, View<const double, 1> scores, const Arithmetic& arithmetic);

  /// Rigorous and systematic bounds of the error of ln l. Equations (S5) and (S11).
  double log_sum_worst() const;
  double log_sum_systematic(const Arithmetic& arithmetic) const;

  NaiveOutcome naive_outcome(const Arithmetic& arithmetic) const;

 private:
  void compute_exponent_errors(const ref::SoftmaxSpec& spec, const Arithmetic& arithmetic);
  void compute_sum_errors(const Arithmetic& arithmetic);
};

}  // namespace attest::bounds
