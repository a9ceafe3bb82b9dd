// A softmax and its gradient, step by step, by a kernel that errs at some of the steps: for diagnoses.
#pragma once

#include <optional>

#include "ref/softmax.hpp"
#include "verify/ops/stages.hpp"

namespace attest {

enum class SoftmaxStage {
  x,
  score,
  difference,
  exponential,
  difference_in_y,   // of a second pass over the row, where y is formed
  exponential_in_y,  // likewise
  running_sum,
  row_sum,
  row_sum_in_lse,
  inverse_sum,
  weight,
  product,
  running_dot,
  dot,
  slope
};

/// One way to get a softmax wrong.
struct SoftmaxVariant {
  std::string name;
  ref::SoftmaxSpec spec;
  std::function<double(SoftmaxStage, double)> change = nullptr;
  Index summed = 0;      // columns that the row sum adds up; 0: all
  Index dot_summed = 0;  // and the gradient's sum
  Index padding = 0;     // scores of 0 beyond the row
  bool inverts_mask = false, ignores_mask = false, is_logarithm = false;
  bool clamps_scores = false;           // after the scale, not x before it
  bool passes_clamped = false;          // the gradient where x was clamped
  double lse_of_m = 1, lse_of_log = 1;  // lse is so many times m and so many times ln l
  double lowered = 0;                   // masked scores are less by this, not -inf, in float32; 0: -inf
  bool takes_smallest = false;          // for the maximum
  Index row_of_sum = 0;                 // the row sum is that of so many rows further on
  bool is_of_whole_call = true;
  std::string only = {};  // an output, if it speaks of that alone

  // The row sum is that of `lanes` threads, which take `vector` columns at a time, in turn; 0: one after the
  // other. is_online: each with a maximum of its own so far, by which its sum is rescaled, but
  // not from column unscaled_from on.
  Index lanes = 0, vector = 1;
  bool is_online = false;
  Index unscaled_from = -1;
  Index tile = 0;  // the maximum rises where a tile of so many columns begins; 0: at any column

  // In place of the row's own; of each column, where y is formed, or empty: the same.
  std::optional<double> maximum = {};
  std::vector<double> maxima_in_y = {};
  std::vector<double> sums_in_y = {};  // likewise

  double at(SoftmaxStage stage, double value) const { return change ? change(stage, value) : value; }
};

/// One row as the kernel computes it.
struct SoftmaxRow {
  double m = 0, l = 0, lse = 0;
  std::vector<double> y, dx;
};

/// mask and dy may be empty. l is 0 if no score has weight. sum: in place of the row's own, if not 0.
SoftmaxRow computed_row(const SoftmaxVariant& kernel, std::vector<double> x, std::vector<double> mask,
                        const std::vector<double>& dy, double sum = 0);

/// What a scale, a factor in the exponent and one of the gradient's sum seem to be, and how many times m and
/// ln l make up lse; NaN: unknown.
struct SoftmaxFits {
  double scale, exponent, dot;
  double lse_of_m, lse_of_log;
};

std::vector<SoftmaxVariant> softmax_variants(const ref::SoftmaxSpec& spec, const SoftmaxFits& fits,
                                             Index width, bool has_mask, DType compute);

/// Row sums of threads and of tiles.
std::vector<SoftmaxVariant> softmax_sum_variants(const ref::SoftmaxSpec& spec, Index width, DType compute);

}  // namespace attest
