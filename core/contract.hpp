// The numerics contract: which precisions a kernel promises.
#pragma once

#include <optional>

#include "core/dtype.hpp"

namespace attest {

/// How float32 operands are multiplied by a tensor core that takes numbers of 11 bits.
///   one: they are converted, to nearest or cut off.
///   three: they are split into two such parts; the products of parts are added but for that of the small
///   ones (CUTLASS's OpMultiplyAddFastF32, Triton's tf32x3).
enum class Tf32 { none, one, three };

/// How a device adds up products.
///   A plain accumulator rounds every addition to nearest, in any order.
///   A tensor core adds `block` products at a time: they and the running sum are aligned to the largest of
///   them, kept to `extra_bits` bits below its last place, and everything further down is cut off (Fasi,
///   Higham, Mikaitis and Pranesh, Numerical behavior of NVIDIA tensor cores, PeerJ CS 2021).
struct Accumulator {
  DType dtype;             // format of the running sum
  int block;               // 0: plain accumulator
  int extra_bits;          // of a tensor core
  Tf32 tf32 = Tf32::none;  // what becomes of float32 operands on a tensor core
};

/// What the largest weight of a row is while it is an operand of the second product of the forward pass: its
/// share of the row sum, or `unit`, as weights are relative to the row's running maximum. A contract may
/// leave it open.
struct StoredWeights {
  bool may_be_normalised = true, may_be_relative = true;
  double unit = 1;  // of relative weights; above 1 for formats that are too coarse for small ones

  bool operator==(const StoredWeights&) const = default;
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
  StoredWeights weights{};
  std::optional<DType> split_dtype{};  // kernels that split the keys: o of a split is stored in it
  // q is multiplied by q_factor in float32 and stored in its element type before the forward pass multiplies
  // it with k, and so is k by backward_k_factor before the backward pass; the rest of the scale meets the
  // scores.
  std::optional<double> q_factor{}, backward_k_factor{};
  // Relative errors of the device's exp, in base e or 2, and tanh; without them 2 ulp of softmax_dtype
  std::optional<double> exp_error{}, tanh_error{};
};

}  // namespace attest
