// RMSNorm and LayerNorm, forward and backward, in plain loops.
#pragma once

#include "core/norm.hpp"

namespace attest::ref {

/// mean is 0 for RMSNorm. rstd is infinite for a row without spread if eps = 0.
struct NormStats {
  double mean, rstd;
};

/// The statistics of one row x[N], N at least 1: the mean first, then the mean square of what it leaves.
NormStats norm_stats(const NormSpec& spec, View<const double, 1> x);

/// Those of row i: as given, or else computed.
NormStats norm_stats(const NormSpec& spec, const NormInputs& in, Index i);

/// y[N] of row i with these statistics, right or wrong.
void norm_row(const NormSpec& spec, const NormInputs& in, const NormStats& stats, Index i, View<double, 1> y);

/// dx[N] of row i from dy[R, N], with these statistics. With g = (weight + weight_offset) dy,
///   dx = rstd (g - mean(g) - xhat mean(g xhat)),
/// without the middle term for RMSNorm. Rounding xhat counts as the identity.
void norm_backward_row(const NormSpec& spec, const NormInputs& in, View<const double, 2> dy,
                       const NormStats& stats, Index i, View<double, 1> dx);

/// dweight = sum_i dy_ij xhat_ij, with xhat before any rounding, and dbias = sum_i dy_ij.
struct NormWeightGradient {
  double dweight, dbias;
};

/// Of column j; mean[R] and rstd[R] are the statistics of the rows.
NormWeightGradient norm_backward_column(const NormInputs& in, View<const double, 2> dy,
                                        View<const double, 1> mean, View<const double, 1> rstd, Index j);

/// All rows and columns. Views that are empty are not written; the gradients need dy.
struct NormOutputs {
  View<double, 2> y;               // [R, N]
  View<double, 1> mean, rstd;      // [R]
  View<double, 2> dx;              // [R, N]
  View<double, 1> dweight, dbias;  // [N]
};
void norm(const NormSpec& spec, const NormInputs& in, View<const double, 2> dy, const NormOutputs& out);

}  // namespace attest::ref
