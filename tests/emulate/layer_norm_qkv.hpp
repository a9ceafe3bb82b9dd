// Emulated layer_norm_qkv kernels: a norm, stored, and a projection to queries, keys and values, honest or
// broken. Shares no code with the reference or the bounds.
#pragma once

#include "tests/emulate/norm.hpp"
#include "tests/emulate/sums.hpp"
#include "verify/case.hpp"

namespace attest::emulate {

/// Which entry of qkv_weight a kernel takes for output o and column j.
enum class QkvWeight {
  right,
  by_heads,           // as if its rows were heads of q, k, v
  interleaved_heads,  // head h owns every H-th row of a third
  transposed_thirds,
  transposed_whole  // as if it were [M, 3M]
};

/// Formats: float64 stands for "not rounded".
struct QkvKernel {
  NormKernel norm;
  Adder product{};
  bool stores = true;  // rounds the normalised x before the product
  // What a broken kernel does
  bool skips_norm = false, forgets_norm_bias = false;
  DType normalised = DType::float64;  // to which the normalised x is rounded first
  QkvWeight weight = QkvWeight::right;
  DType weights = DType::float64;  // qkv_weight is rounded to this
  bool is_in_tf32 = false;         // operands of the product
  bool exchanges_q_and_k = false, exchanges_k_and_v = false, scales_q = false;
  bool forgets_bias = false, has_bias_twice = false, shifts_bias = false;  // by one third
  Index forgets_bias_of = -1;                                              // a third: of q, k or v
  bool drops_a_block = false;                                              // 16 columns, in one token
  Index dropped_columns = 0;                                               // the last ones, in every token
  bool moves_heads = false;                                                // writes bshd for bhsd
  Index last_not_written = 0;                                              // tokens
  DType output = DType::float64;   // to which q, k and v are rounded first
  bool output_is_cut_off = false;  // truncated instead of rounded
};

/// The dump of a kernel on inputs that have a weight and a bias or neither; float arithmetic. The element
/// type is that of x, `stored` that of the normalised x.
Case qkv_dump(Case inputs, DType stored, const QkvKernel& kernel);

}  // namespace attest::emulate
