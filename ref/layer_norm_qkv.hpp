// LayerNorm followed by one linear layer for queries, keys and values.
#pragma once

#include "ref/norm.hpp"

namespace attest::ref {

/// qkv[3M] of row i: qkv_weight y + qkv_bias, where y is the normalised row with these statistics, rounded to
/// `stored` if that is given.
void layer_norm_qkv_row(const NormSpec& spec, std::optional<DType> stored, const LayerNormQkvInputs& in,
                        const NormStats& stats, Index i, View<double, 1> qkv);

}  // namespace attest::ref
