// One row of a normalisation: exact statistics, and how far a device may be from them. Equation numbers:
// docs/bounds_norm.md.
#pragma once

#include <limits>
#include <span>

#include "core/double_double.hpp"
#include "core/norm.hpp"
#include "verify/bounds/sum_noise.hpp"

namespace attest::bounds {

/// How LayerNorm gets its variance: from x - mean (two passes, or Welford's recurrence), or as
/// mean(x^2) - mean(x)^2; its gradients add up centred or plain x in the same way.
enum class Variance { two_pass, one_pass };

struct NormContract {
  DType compute;  // of statistics, products and sums
  Variance variance;
  double sum_rounding;  // relative error of x + residual as the device normalises it; 0: it is replayed
  double saved_rounding_of_mean, saved_rounding_of_rstd;  // unit roundoff of what the backward pass reads; 0:
                                                          // it is kept in `compute`
};

/// How one reader of the formulas rounds: the device at its worst, as it is expected to be, or without the
/// part that averages out; the double-double arithmetic of the exact values; the double arithmetic of ref.
struct Rounding {
  double u;
  double lambda;     // how many standard deviations a sum may be off; infinite: rigorous, 0: none
  double input;      // relative error of every x
  double flush;      // results below this may become 0
  double eps_error;  // |eps as it is added - eps|
  bool is_device;    // may store what the contract lets a device store in a narrower type

  /// Error of a sum of n terms with that sum of magnitudes, if each term meets n + extra roundings.
  /// Equation (4).
  double sum_error(double n, double extra, double magnitude, double sigma) const;
};

/// The five readers of a contract.
struct Roundings {
  Roundings(const NormSpec& spec, const NormContract& contract, Index width, Index elements);

  Rounding worst, probable, systematic, exact, reference;
};

/// What one reader makes of the statistics: absolute error of the mean, relative error of rstd.
struct StatsError {
  double mean = 0, rstd = 0;
};

struct NormRow {
  DoubleDouble mean, rstd;
  double variance = 0;        // mean square of x - mean
  double mean_magnitude = 0;  // mean |x|
  double mean_sigma = 0, square_sigma = 0,
         rstd_sigma = 0;    // standard deviations of mean, variance, rstd/rstd
  bool is_in_range = true;  // false if a sum may overflow in `compute`: nothing is promised then

  StatsError worst, probable, systematic, exact, reference;

  /// x - mean, and its product with rstd.
  DoubleDouble centred(double x) const { return DoubleDouble(x) - mean; }
  DoubleDouble xhat(double x) const { return centred(x) * rstd; }
};

/// weight + weight_offset of column j, 1 without a weight.
inline DoubleDouble norm_weight(const NormSpec& spec, const NormInputs& in, Index j) {
  return in.weight ? two_sum(in.weight(j), spec.weight_offset) : DoubleDouble(1);
}

class NormRows {
 public:
  NormRows(const NormSpec& spec, const NormContract& contract, Index width, Index elements);

  /// x[N] of one row. Equations (9) to (13).
  NormRow row(std::span<const double> x, SumNoise& noise) const;

  /// A row whose statistics are inputs: exact ones.
  static NormRow given_row(double mean, double rstd);

  /// Error of xhat before the weight, and of xhat as it meets the weight: rounded to xhat_dtype, if the spec
  /// says so. Equations (14) and (15).
  double xhat_error(const NormRow& row, const StatsError& stats, const Rounding& rounding, double x) const;
  double stored_xhat_error(double xhat, double error) const;

  const Roundings& roundings() const { return roundings_; }
  const NormSpec& spec() const { return spec_; }
  const NormContract& contract() const { return contract_; }
  bool is_one_pass() const { return spec_.is_centred && contract_.variance == Variance::one_pass; }

 private:
  StatsError stats_error(const NormRow& row, const Rounding& rounding) const;

  NormSpec spec_;
  NormContract contract_;
  Roundings roundings_;
  double width_;
};

/// |fl(x) - fl(x + d)| <= this for all |d| <= error, fl rounding to `dtype`: 0 where no such x + d reaches
/// the next rounding boundary. Equation (15).
double rounded_error(double x, double error, DType dtype);

}  // namespace attest::bounds
