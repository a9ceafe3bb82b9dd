// Emulated multi-head attention: projections, an emulated attention kernel, and a projection. Shares no code
// with the reference or the bounds.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "tests/emulate/attention.hpp"
#include "verify/case.hpp"

namespace attest::emulate {

enum class MultiheadData {
  normal,      // weights that keep the size of what they multiply
  peaked,      // Wq and Wk four times larger: few keys carry a row
  outlier,     // few columns of x much larger than the rest
  rank_one,    // Wv of rank one, Wo > 0: errors of the weights are the same in every column
  positive,    // x, all weights and biases > 0
  equal_rows,  // every row of every weight is the same
  repeated,    // four different rows of x
  constant,    // all entries of x are equal, and those of the weights
  tiny         // x near the smallest values of the element type
};
inline constexpr MultiheadData all_multihead_data[] = {
    MultiheadData::normal,   MultiheadData::peaked,   MultiheadData::outlier,
    MultiheadData::rank_one, MultiheadData::positive, MultiheadData::equal_rows,
    MultiheadData::repeated, MultiheadData::constant, MultiheadData::tiny};

struct MultiheadSetup {
  DType element = DType::float16;
  Index batch = 2, queries = 20, keys = 20, width = 64, heads = 4;
  Causal causal = Causal::none;
  bool is_self = true;  // in/x; keys are not used
  bool batch_first = false, has_bias = true, has_mask = false;
  bool average_weights = true;
  MultiheadData data = MultiheadData::normal;
  std::uint64_t seed = 1;

  std::string text() const;
};

/// Formats: float64 stands for "not rounded".
struct MultiheadKernel {
  Kernel attention{};
  Adder in_projection{}, out_projection{};
  DType intermediate = DType::float16;  // of q, k, v, o; attention.p_dtype is its own
  // What a broken kernel does
  double scale_factor = 1;
  std::optional<Causal> causal;  // in place of the right one
  Index heads = 0;               // in place of the right number, if not 0
  bool swaps_q_and_k = false, swaps_k_and_v = false, makes_values_of_key = false;
  bool interleaves_heads = false, joins_heads_untransposed = false, exchanges_layout = false;
  bool forgets_in_bias = false, forgets_out_bias = false, shifts_in_bias = false;  // by one third
  Index forgets_bias_of = -1;                                                      // a third: of q, k or v
  bool transposes_in_weight = false, transposes_out_weight = false;  // of in_proj_weight each third
  DType in_weight = DType::float64, out_weight = DType::float64;     // the weights are rounded to these
  bool projects_in_tf32 = false;
  bool stores_before_bias = false;   // rounds q, k and v once more, before it adds the bias
  DType projected = DType::float64;  // q, k and v are rounded to this first
  DType attended = DType::float64;   // o is
  DType output = DType::float64;     // y is
  bool output_is_cut_off = false;    // truncated instead of rounded
  bool skips_last_row = false;       // of y
  bool sums_weights = false, shows_weights_of_head_0 = false;  // for their mean
  DType weights = DType::float64;                              // the output is rounded to this first
};

/// x or query, key and value, weights and biases, without outputs.
Case multihead_inputs(const MultiheadSetup& setup);

/// The dump of a kernel on these inputs; out/weights only of the standard algorithm.
Case multihead_dump(const MultiheadSetup& setup, const MultiheadKernel& kernel);

/// The same on inputs that are given, with both biases or none and without a mask, in float arithmetic.
Case multihead_dump(Case inputs, const MultiheadKernel& kernel);

}  // namespace attest::emulate
