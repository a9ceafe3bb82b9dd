// Sums of inexact terms times exact vectors, as in dq = scale sum_j ds_ij k_j, with everything their bounds
// need.
#pragma once

#include <vector>

#include "verify/bounds/arithmetic.hpp"
#include "verify/bounds/vector_kernels.hpp"

namespace attest::bounds {

/// The result of a contraction before it is stored.
struct Estimate {
  double value, worst, systematic, variance;
  // If the rounding errors of the factors' stores were known: what they come to, and what is left besides
  double replay[store_variants] = {0}, rest_systematic = 0, rest_variance = 0;
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
  Index blocks_;  // per row
  std::vector<TermBlock> sums_;
  std::vector<Index> counts_;  // terms per row
};

}  // namespace attest::bounds
