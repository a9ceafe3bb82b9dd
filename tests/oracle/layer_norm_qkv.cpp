// The oracle's LayerNorm with a projection: column by column of the weight, with the bias as one more row of
// it.
#include "tests/oracle/layer_norm_qkv.hpp"

#include "tests/oracle/norm.hpp"

namespace attest::oracle {

LayerNormQkv layer_norm_qkv(const NormSpec& spec, const LayerNormQkvInputs& in, std::optional<DType> stored) {
  const Index tokens = in.norm.rows(), width = in.norm.width(), outputs = in.qkv_weight.extent(0);
  LayerNormQkv out{Array<long double, 2>({tokens, outputs}), norm(spec, in.norm).y};
  for (Index t = 0; t < tokens; ++t) {
    for (Index j = 0; j <= width; ++j) {
      if (stored && j < width) out.y(t, j) = round_to(static_cast<double>(out.y(t, j)), *stored);
      for (Index o = 0; o < outputs; ++o) {
        if (j < width) out.qkv(t, o) += out.y(t, j) * in.qkv_weight(o, j);
        if (j == width && in.qkv_bias) out.qkv(t, o) += in.qkv_bias(o);
      }
    }
  }
  return out;
}

}  // namespace attest::oracle
