// Cases of multi-head attention and of LayerNorm with a QKV projection; the list of all files.
#include <array>

#include "data/golden/builder.hpp"

namespace attest::golden {

std::vector<GoldenCase> projection_cases(std::uint64_t seed) {
  using enum DType;
  std::vector<GoldenCase> all;
  const auto multihead = [&](const std::string& name, DType element, Index width,
                             const std::string& purpose) {
    Builder builder(name, "multihead_attention", element, seed, purpose);
    builder.normal("in_proj_weight", {3 * width, width}, 0.25)
        .normal("out_proj_weight", {width, width}, 0.25);
    return builder.normal("in_proj_bias", {3 * width}, 0.25)
        .normal("out_proj_bias", {width}, 0.25)
        .outputs({"y", "weights"});
  };
  all.push_back(multihead("self_lbm", float32, 8, "self-attention, length first")
                    .spec("layout", "lbm")
                    .spec("causal", "none")
                    .spec("heads", std::int64_t{2})
                    .spec("scale", 0.5)
                    .normal("x", {5, 2, 8}));
  all.push_back(multihead("self_blm", bfloat16, 8, "self-attention, batch first, causal")
                    .spec("layout", "blm")
                    .spec("causal", "top_left")
                    .spec("heads", std::int64_t{2})
                    .spec("scale", 0.5)
                    .normal("x", {2, 5, 8}));
  all.push_back(multihead("cross", float16, 8, "cross-attention, weights per head")
                    .spec("layout", "blm")
                    .spec("causal", "none")
                    .spec("heads", std::int64_t{4})
                    .spec("scale", 0.75)
                    .spec("average_weights", false)
                    .normal("query", {1, 3, 8})
                    .normal("key", {1, 6, 8})
                    .normal("value", {1, 6, 8}));
  all.push_back(multihead("masked", float64, 8, "a mask; the scale of one half is the default")
                    .spec("layout", "blm")
                    .spec("causal", "none")
                    .spec("heads", std::int64_t{2})
                    .normal("x", {1, 6, 8})
                    .mask("mask", {6, 6}, 0.7));
  all.push_back(multihead("empty", float32, 8, "rows without keys: y is the bias")
                    .spec("layout", "lbm")
                    .spec("causal", "bottom_right")
                    .spec("heads", std::int64_t{2})
                    .spec("scale", 0.5)
                    .normal("query", {5, 1, 8})
                    .normal("key", {3, 1, 8})
                    .normal("value", {3, 1, 8}));
  const auto fused = [&](const std::string& name, DType element, std::vector<Index> shape,
                         const std::string& purpose) {
    const Index width = shape.back();
    Builder builder(name, "layer_norm_qkv", element, seed, purpose);
    builder.spec("eps", 0x1p-17).spec("heads", std::int64_t{2}).normal("x", shape);
    builder.normal("weight", {width}, 0.25, 1).normal("bias", {width}, 0.25);
    builder.normal("qkv_weight", {3 * width, width}, 0.25).normal("qkv_bias", {3 * width}, 0.25);
    return builder.outputs({"q", "k", "v"});
  };
  all.push_back(fused("fused_f32", float32, {2, 3, 8}, "LayerNorm and QKV, nothing rounded between them"));
  all.push_back(fused("fused_f64", float64, {1, 3, 12}, "the same in float64"));
  all.push_back(
      fused("fused_stored", float16, {1, 4, 8}, "the normalised x is stored in float16 before the product")
          .contract("intermediate_dtype", "float16"));
  all.push_back(fused("fused_bf16", bfloat16, {1, 4, 16}, "stored in bfloat16")
                    .contract("intermediate_dtype", "bfloat16"));
  return all;
}

std::span<const GoldenFile> all_files() {
  static const std::array<GoldenFile, 18> files{{
      {"attention_forward", "attention: every option of the forward pass", 20261101, true,
       attention_forward_cases},
      {"attention_special", "attention: exact, halfway, extreme and infinite results", 20261102, true,
       attention_special_cases},
      {"attention_tiles", "attention: keys, rows and widths around tiles and vectors", 20261103, true,
       attention_tile_cases},
      {"attention_gradients", "attention: gradients with every option", 20261104, true,
       attention_gradient_cases},
      {"attention_layouts", "attention: batch, heads, rows and columns in other orders, with gradients",
       20261118, true, attention_layout_cases},
      {"softmax", "softmax and its gradient", 20261105, true, softmax_cases},
      {"activations", "gelu (erf, tanh, quick), silu and sigmoid, with derivatives", 20261106, true,
       activation_cases},
      {"norms", "rms_norm and layer_norm, with gradients", 20261107, true, norm_cases},
      {"rope", "rotary embeddings: tables, angles, scalings, with gradients", 20261108, true, rope_cases},
      {"projections", "multihead_attention and layer_norm_qkv", 20261109, true, projection_cases},
      {"wide_norms", "norms as wide as models have them", 20261110, false, wide_norm_cases},
      {"clip_text", "CLIP's text tower: 77 tokens, causal, width 64, with gradients", 20261111, false,
       clip_text_cases},
      {"clip_vit_l14_336", "CLIP ViT-L/14-336: 577 tokens, width 64", 20261112, false, vit_l14_cases},
      {"clip_vit_l14_336_gradients", "CLIP ViT-L/14-336: gradients", 20261113, false, vit_l14_gradient_cases},
      {"vit_h14", "ViT-H/14: 257 tokens, width 80, with gradients", 20261114, false, vit_h14_cases},
      {"eva02_e14", "EVA02-E/14: 257 tokens, width 112, with gradients", 20261115, false, eva02_e14_cases},
      {"llama", "a Llama head: 512 of 1024 tokens, causal, width 128, and one more token", 20261116, false,
       llama_cases},
      {"diffusion", "cross-attention of a diffusion model: 1024 queries, 77 keys, width 64", 20261117, false,
       diffusion_cases},
  }};
  return files;
}

}  // namespace attest::golden
