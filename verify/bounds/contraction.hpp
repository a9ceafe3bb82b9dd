// Sums of inexact terms times exact vectors, as in dq = scale sum_j ds_ij k_j, with everything their bounds
// need.
#pragma once

#include <vector>

#include "verify/bounds/arithmetic.hpp"
#include "verify/bounds/lanes.hpp"

namespace attest::bounds {

/// A number that the device computed before it multiplies a vector with it. All 0 where there is none.
struct Factor {
  double value = 0;       // exact
  double worst = 0;       // rigorous bound of its error, its store included
  double variance = 0;    // of the part of its error that averages out
  double systematic = 0;  // the part that does not
  double predicted = 0;   // the rounding error of its store, if it is stored as such
  double spread = 0;      // the square root of the variance
};

/// The result of a contraction before it is stored.
struct Estimate {
  double value, worst, systematic, variance;
};

/// sum over terms of factor * vector, for `rows` independent sums of `width` elements each.
class Contraction {
 public:
  Contraction(Index rows, Index width);

  /// Adds `count` terms to a row, in order. Vector n is vectors[n * padded(width)] ..., padded with zeros.
  void add(Index row, Index count, const Factor* factors, const double* vectors);

  /// Element d of a row, multiplied by `scale`: sum is how the device accumulates, extra_roundings how often
  /// more the accumulator may be rounded (rescaling, atomics in any order), u the unit roundoff of the final
  /// scaling. Equation (18).
  /// Where terms repeat, so do their errors, which then add up.
  Estimate result(Index row, Index d, double scale, const SumError& sum, double extra_roundings, double u,
                  bool terms_repeat) const;

  void reset();

 private:
  struct Block {  // of `lanes` neighbouring elements
    double value[lanes], magnitude[lanes], squares[lanes], prefix[lanes], prefix_sum[lanes];
    double worst[lanes], variance[lanes], systematic[lanes], predicted[lanes], spread[lanes];
  };
  static void add_block(Block& block, Index count, const Factor* factors, const double* vectors,
                        Index stride);

  Index blocks_;  // per row
  std::vector<Block> sums_;
  std::vector<Index> counts_;  // terms per row
};

}  // namespace attest::bounds
