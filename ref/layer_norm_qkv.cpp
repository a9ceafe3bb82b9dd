// LayerNorm followed by one linear layer for queries, keys and values.
#include "ref/layer_norm_qkv.hpp"

#include "core/array.hpp"

namespace attest::ref {

void layer_norm_qkv_row(const NormSpec& spec, std::optional<DType> stored, const LayerNormQkvInputs& in,
                        const NormStats& stats, Index i, View<double, 1> qkv) {
  const Index width = in.norm.width();
  Array<double, 1> y({width});
  norm_row(spec, in.norm, stats, i, y.view());
  for (Index j = 0; stored && j < width; ++j) y(j) = round_to(y(j), *stored);
  for (Index o = 0; o < in.qkv_weight.extent(0); ++o) {
    qkv(o) = 0;
    for (Index j = 0; j < width; ++j) qkv(o) += in.qkv_weight(o, j) * y(j);
    if (in.qkv_bias) qkv(o) += in.qkv_bias(o);
  }
}

}  // namespace attest::ref
