// The numerics contract: which precisions a kernel promises.
#pragma once

#include <optional>

#include "core/dtype.hpp"

namespace attest {

/// How a device adds up products.
///   A plain accumulator rounds every addition to nearest, in any order.
///   A tensor core adds `block` products at a time: they and the running sum are aligned to the largest of
///   them, kept to `extra_bits` bits below its last place, and everything further down is cut off (Fasi,
///   Higham, Mikaitis and Pranesh, Numerical behavior of NVIDIA tensor cores, PeerJ CS 2021).
struct Accumulator {
  DType dtype;     // format of the running sum
  int block;       // 0: plain accumulator
  int extra_bits;  // of a tensor core
};

/// docs/bounds.md derives from it how far a correct kernel may be off.
struct Contract {
  DType p_dtype;        // the weights (and in the backward pass dS) as operands of the second product
  DType softmax_dtype;  // scores, exponentials, row sums and rescaling
  Accumulator qk;       // q.k, and do.v in the backward pass
  Accumulator pv;       // the products with P and dS
  bool row_sum_takes_stored_weights = false;  // weights are rounded to p_dtype before the row sum adds them
  std::optional<DType> scores_dtype{};  // kernels that are not fused: q.k, scores, do.v and dS are stored in
                                        // it between operations
};

}  // namespace attest
