// Emulated RMSNorm and LayerNorm kernels and their dumps: they round where a contract says that a device
// rounds, and err where a broken kernel errs. Share no code with the reference or the bounds.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/dtype.hpp"
#include "verify/case.hpp"

namespace attest::emulate {

enum class NormValues {
  normal,       // mean 0, deviation 1
  small,        // deviation 0.001: eps counts
  large,        // deviation 60
  outlier,      // two columns 40 times larger
  mean_30,      // LayerNorm cancels
  positive,     // uniform in [0, 1)
  two_values,   // +-1.3
  alternating,  // +-100 with small noise: running sums depend on the order
  sorted,       // ascending
  zero_row,     // normal, but row 0 is zero
  equal_rows    // all rows are alike
};
inline constexpr NormValues all_norm_values[] = {
    NormValues::normal,  NormValues::small,    NormValues::large,      NormValues::outlier,
    NormValues::mean_30, NormValues::positive, NormValues::two_values, NormValues::alternating,
    NormValues::sorted,  NormValues::zero_row, NormValues::equal_rows};
std::string name_of(NormValues values);

/// What is asked for.
struct NormSetup {
  bool is_centred = false;  // layer_norm
  DType element = DType::float16;
  DType weight = DType::float16;
  std::vector<Index> shape = {3, 4, 96};
  NormValues values = NormValues::normal;
  double eps = 1e-5;
  double weight_offset = 0;
  bool has_weight = true, has_bias = false, has_residual = false;
  bool casts = false, rounds_sum = true, declares_sum = true, keeps_trailing_1 = false;
  bool one_pass = false;
  DType statistics = DType::float32;  // of mean, rstd, dweight and dbias as stored
  std::uint64_t seed = 1;

  Index width() const { return shape.back(); }
  std::string text() const;
};

/// How a kernel goes about it, and what is wrong with it.
struct NormKernel {
  enum class Sum { sequential, lanes, pairwise };
  enum class Moments { two_pass, welford, one_pass };
  Sum sum = Sum::lanes;
  Moments moments = Moments::two_pass;
  bool folds_mean = false;         // x rstd - mean rstd
  bool folds_weight = false;       // x (rstd weight)
  bool cubes = false;              // dx = rstd g - x rstd^3 mean(g x)
  bool stores_product = false;     // of a cast xhat with the weight, before the bias
  bool stores_statistics = false;  // the backward pass reads mean and rstd as they are stored
  Index row_block = 4;             // rows whose shares of dweight are added up first

  struct Mistakes {
    bool eps_outside = false, no_eps = false, eps_in_element = false, eps_times_max = false;
    bool over_n_minus_1 = false, over_padded_width = false;
    DType sum_dtype = DType::float64;  // of x^2 and x; float64: no mistake
    bool squares_in_element = false;   // each x^2 is rounded to the element type
    bool rstd_in_bfloat16 = false;
    bool casts = false, does_not_cast = false;  // whatever is asked for
    bool offset_twice = false, no_offset = false, offset_in_element = false, no_weight = false;
    DType output_dtype = DType::float64;  // of y before its store
    bool no_bias_in_a_row = false, is_other_op = false, no_residual = false, other_rounding_of_sum = false;
    bool no_mean_of_gx = false, no_mean_of_g = false, no_weight_in_means = false;
    DType dweight_dtype = DType::float64;  // of the running sum
    bool dweight_loses_a_row = false;
    bool statistics_of_row_before = false;  // in the last row
  } mistakes{};
};

/// x, weight, ..., without outputs.
Case norm_inputs(const NormSetup& setup);

/// The dump of a kernel on these inputs.
Case norm_dump(const NormSetup& setup, const NormKernel& kernel, bool with_gradients);

/// y alone, of the inputs `c`, stored in `stored`.
std::vector<double> norm_values(const NormSetup& setup, const NormKernel& kernel, const Case& c,
                                DType stored);

}  // namespace attest::emulate
