// A second LayerNorm with a projection to queries, keys and values, slow and independent of ref.
#pragma once

#include <optional>

#include "core/array.hpp"
#include "core/norm.hpp"

namespace attest::oracle {

struct LayerNormQkv {
  Array<long double, 2> qkv;  // [T, 3M]: q, k and v of every token side by side
  Array<long double, 2> y;    // [T, M]: what was projected
};
/// y = LayerNorm(x), rounded to `stored` if given; qkv = y qkv_weight^T + qkv_bias.
LayerNormQkv layer_norm_qkv(const NormSpec& spec, const LayerNormQkvInputs& in, std::optional<DType> stored);

}  // namespace attest::oracle
