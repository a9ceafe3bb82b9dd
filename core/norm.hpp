// What one normalisation over the last axis is: RMSNorm or LayerNorm.
#pragma once

#include <optional>

#include "core/dtype.hpp"
#include "core/view.hpp"

namespace attest {

/// v = mean_j (x_j - mu)^2, rstd = 1 / sqrt(v + eps), xhat_j = (x_j - mu) rstd,
/// y_j = (weight_j + weight_offset) xhat_j + bias_j, where mu is the mean of x (LayerNorm) or 0 (RMSNorm).
struct NormSpec {
  bool is_centred;                  // LayerNorm
  double eps;                       // 0 or more
  double weight_offset;             // 1 for kernels that store weight - 1
  std::optional<DType> xhat_dtype;  // xhat is rounded to this before it meets the weight; absent: it is not
};

/// Rows of N values. Views that were not given are empty.
struct NormInputs {
  View<const double, 2> x;       // [R, N]; a residual is already added
  View<const double, 1> weight;  // [N]; not given: weight + weight_offset = 1
  View<const double, 1> bias;    // [N]; not given: 0
  // [R] each, both or neither (of RMSNorm, rstd alone): statistics that the gradients read in place of those
  // of x, as a forward pass has stored them.
  View<const double, 1> mean = {}, rstd = {};

  Index rows() const { return x.extent(0); }
  Index width() const { return x.extent(1); }
};

/// LayerNorm followed by one linear layer for queries, keys and values.
struct LayerNormQkvInputs {
  NormInputs norm;                   // rows are tokens, N = M
  View<const double, 2> qkv_weight;  // [3M, M]: the rows of the queries, of the keys, of the values
  View<const double, 1> qkv_bias;    // [3M]; not given: 0
};

}  // namespace attest
