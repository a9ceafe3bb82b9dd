// Attention at the shapes of real models.
#include <cmath>

#include "data/golden/builder.hpp"

namespace attest::golden {
namespace {

Builder model(const std::string& name, DType element, std::uint64_t seed, Index heads, Index queries,
              Index keys, Index width, const std::string& causal, const std::string& purpose) {
  Builder builder(name, "attention", element, seed, purpose);
  builder.spec("causal", causal).spec("scale", 1 / std::sqrt(static_cast<double>(width)));
  builder.normal("q", {1, heads, queries, width})
      .normal("k", {1, 1, keys, width})
      .normal("v", {1, 1, keys, width});
  return builder;
}

GoldenCase forward(Builder builder) {
  return builder.outputs({"o", "lse"});
}

/// The gradients of a case, from the same q, k and v.
Builder backward(const std::string& name, DType element, std::uint64_t seed, const GoldenCase& of,
                 const std::string& purpose) {
  Builder builder(name, "attention", element, seed, purpose);
  for (const auto& [key, value] : of.dump.spec) builder.spec(key, value);
  for (const std::string input : {"q", "k", "v"}) builder.same(input, of);
  std::vector<Index> shape = of.dump.in.at("q").shape;
  return builder.normal("do", shape).outputs({"dq", "dk", "dv"});
}

}  // namespace

std::vector<GoldenCase> vit_l14_cases(std::uint64_t seed) {
  return {forward(model("clip_vit_l14_336", DType::float16, seed, 1, 577, 577, 64, "none",
                        "CLIP ViT-L/14-336, vision: 577 tokens, head width 64"))};
}

std::vector<GoldenCase> vit_l14_gradient_cases(std::uint64_t seed) {
  const GoldenCase of = model("clip_vit_l14_336", DType::bfloat16, seed, 1, 577, 577, 64, "none", "");
  GoldenCase c = backward("clip_vit_l14_336_gradients", DType::bfloat16, seed, of,
                          "CLIP ViT-L/14-336, vision: gradients, 577 tokens, head width 64");
  c.step = 17;
  return {c};
}

std::vector<GoldenCase> clip_text_cases(std::uint64_t seed) {
  const GoldenCase c = forward(model("clip_text", DType::float16, seed, 2, 77, 77, 64, "top_left",
                                     "CLIP's text tower: 77 tokens, causal, head width 64"));
  return {c, backward("clip_text_gradients", DType::float16, seed, c,
                      "CLIP's text tower: gradients; two query heads share a key/value head")
                 .saved()};
}

std::vector<GoldenCase> vit_h14_cases(std::uint64_t seed) {
  const GoldenCase c = forward(model("vit_h14", DType::bfloat16, seed, 1, 257, 257, 80, "none",
                                     "CLIP ViT-H/14, vision: 257 tokens, head width 80"));
  GoldenCase gradients =
      backward("vit_h14_gradients", DType::bfloat16, seed, c, "CLIP ViT-H/14, vision: gradients");
  gradients.step = 5;
  return {c, gradients};
}

std::vector<GoldenCase> eva02_e14_cases(std::uint64_t seed) {
  const GoldenCase c = forward(model("eva02_e14", DType::float16, seed, 1, 257, 257, 112, "none",
                                     "EVA02-E/14, vision: 257 tokens, head width 112"));
  GoldenCase gradients =
      backward("eva02_e14_gradients", DType::float16, seed, c, "EVA02-E/14, vision: gradients");
  gradients.step = 7;
  return {c, gradients};
}

std::vector<GoldenCase> llama_cases(std::uint64_t seed) {
  GoldenCase prefill =
      forward(model("llama_prefill", DType::bfloat16, seed, 1, 512, 1024, 128, "bottom_right",
                    "a Llama head, width 128: the last 512 of 1024 tokens, causal (chunked prefill)"));
  prefill.step = 17;
  Builder decode("llama_decode", "attention", DType::bfloat16, seed,
                 "the next token of four query heads that share these 1024 keys and values");
  for (const auto& [key, value] : prefill.dump.spec) decode.spec(key, value);
  decode.normal("q", {1, 4, 1, 128}).same("k", prefill).same("v", prefill);
  return {prefill, decode.outputs({"o", "lse"})};
}

std::vector<GoldenCase> diffusion_cases(std::uint64_t seed) {
  return {forward(model("cross_attention", DType::float16, seed, 1, 1024, 77, 64, "none",
                        "a latent diffusion model: 1024 pixels look at 77 text tokens, head width 64"))};
}

}  // namespace attest::golden
