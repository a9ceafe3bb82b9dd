// A normalisation, step by step, by a kernel that errs at some of the steps: for diagnoses.
#pragma once

#include "core/norm.hpp"
#include "verify/ops/stages.hpp"

namespace attest {

/// What a kernel has in its hands on the way.
enum class NormStage {
  mean,
  mean_in_variance,  // where squares are formed
  stored_mean,       // afterwards
  mean_in_y,
  mean_in_dweight,
  centred,  // x - mean, as it is squared
  square,
  running_sum,  // of squares, or of x
  merged_sum,   // of the sums of threads
  sum_of_squares,
  variance,  // without eps; of RMSNorm, the mean square
  variance_and_eps,
  rstd,
  rstd_in_y,
  rstd_in_dx,
  rstd_in_dweight,
  weight,  // with the offset
  weight_in_mean_gx,
  weight_in_mean_g,
  xhat,  // where y is formed
  xhat_in_dweight,
  product,  // weight xhat, before the bias
  y,
  g,        // dy weight
  mean_gx,  // of g xhat
  mean_g,
  xhat_in_dx,       // wherever dx has it
  rstd_in_mean_gx,  // in the normalised x of that mean,
  rstd_in_dx_xhat,  // and in that which is multiplied by it
  dx_direct,        // rstd g
  dx_through_means  // what is subtracted from it
};

/// One way to get a normalisation wrong.
struct NormVariant {
  std::string name;
  NormSpec spec;
  NormInputs in;
  std::function<double(NormStage, double)> change = nullptr;
  Index summed = 0;              // columns whose squares are added up; 0: all
  Index padding = 0;             // columns beyond the last whose squares count, as if x were 0 there
  Index mean_row = 0;            // the mean is that of so many rows further on,
  Index rstd_row = 0;            // and rstd of so many
  bool is_of_whole_call = true;  // see Decoy
  View<const double, 2> of_statistics = {};  // the rows that have the statistics; empty: those of x
  View<const double, 2> of_mean = {};        // the rows that have the mean; empty: those of the statistics
  /// Which columns of weight and bias a column reads; absent: its own.
  std::function<Index(Index j)> weight_column = nullptr, bias_column = nullptr;
  enum class Affine { weight_then_bias, bias_then_weight, offset_after_weight };
  Affine affine = Affine::weight_then_bias;  // y as (xhat + bias) weight; or as xhat weight + offset
  bool is_one_pass = false;                  // the variance is the mean square less the square of the mean

  // Sums over the columns are those of `lanes` threads, which take `vector` columns at a time, in turn; 0:
  // they are added up one by one. merges_alike: as if all of them had taken equally many.
  Index lanes = 0, vector = 1;
  bool merges_alike = false;
  enum class Merge { in_order, halves, neighbours };
  Merge merge = Merge::in_order;     // halves: thread t with t + n/2 first; neighbours: t with t + 1 first
  bool rounds_squares_only = false;  // running sums of x are right
  bool rounds_x_only = false;        // those of squares are
  /// Columns that are added up; absent: all, and those of `summed`.
  std::function<bool(Index j)> in_mean = nullptr, in_variance = nullptr;
  Index read_columns = 0;  // further ones are read as 0; 0: all are read

  enum class Shared { variance, first_row, last_row };
  Index tile = 0;  // so many rows share what is shared: their mean variance, or the statistics of a row
  Shared shared = Shared::variance;
};

/// The kernel at work, in double.
class NormStages {
 public:
  /// Both have to outlive this; dy may be empty.
  NormStages(const NormVariant& variant, View<const double, 2> dy) : variant_(variant), dy_(dy) {}

  struct Statistics {
    double mean, rstd;
  };
  /// As the kernel uses them in row i.
  Statistics statistics(Index i) const;
  /// y[N] and, if it is wanted, dx[N] of row i.
  void row(Index i, const Statistics& s, View<double, 1> y, View<double, 1> dx) const;
  /// What row i adds to dweight in column j.
  double dweight_term(Index i, Index j, const Statistics& s) const;

 private:
  double at(NormStage stage, double x) const { return variant_.change ? variant_.change(stage, x) : x; }
  double x(Index i, Index j) const {
    if (variant_.of_statistics) return variant_.of_statistics(i, j);
    return is_read(j) ? variant_.in.x(i, j) : 0;
  }
  bool is_read(Index j) const { return variant_.read_columns == 0 || j < variant_.read_columns; }
  /// The sum over columns [0, count).
  template <class TermOf>
  double sum(Index count, bool is_exact, TermOf term) const;
  double mean_of(Index i) const;
  double variance_of(Index i) const;
  double variance_of_equal_lanes(Index i, double mu) const;
  double rstd_of(Index i) const;
  double weight(Index j) const;
  double bias(Index j) const;
  double scaled(double h, Index j) const;

  const NormVariant& variant_;
  View<const double, 2> dy_;
};

}  // namespace attest
