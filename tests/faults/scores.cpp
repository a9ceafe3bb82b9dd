// Faults of scores and of what is reported about the softmax.
#include <algorithm>
#include <cmath>
#include <numbers>

#include "tests/faults/fault.hpp"

namespace attest::emulate {
namespace {

void softcap(Setup& s) {
  s.spec.softcap = 5;
}
void capped_causal(Setup& s) {
  softcap(s);
  s.spec.causal = Causal::bottom_right;
}
void bias(Setup& s) {
  s.bias_shape = {1, 1, s.queries, s.keys};
}
void capped_bias(Setup& s) {
  softcap(s);
  bias(s);
}
void alibi(Setup& s) {
  s.has_alibi = true;
}
void sink(Setup& s) {
  s.has_sink = true;
}

template <class Change>
void change_lse(Results& r, Change change) {
  for (std::size_t n = 0; n < r.lse.size(); ++n)
    r.lse[n] = round_to(change(r.lse[n], r.m[n], r.l[n]), DType::float32);
}

const Fault faults[] = {
    {.name = "scale times 1.01",
     .source = "made up",
     .in_kernel = [](Kernel&, Setup& seen) { seen.spec.scale *= 1.01; },
     .named = {"a scale 1 % off", "scale 1"}},
    {.name = "scale times 1.001",
     .source = "made up",
     .in_kernel = [](Kernel&, Setup& seen) { seen.spec.scale *= 1.001; },
     .named = {"a scale 0.1 % too large"}},
    {.name = "scale times 1.0001",
     .source = "made up",
     .in_kernel = [](Kernel&, Setup& seen) { seen.spec.scale *= 1.0001; },
     .named = {"a scale"}},
    {.name = "scale rounded to bfloat16",
     .source = "a coherent rounding, amd/IRON #139",
     .in_kernel = [](Kernel&, Setup& seen) { seen.spec.scale = round_to(seen.spec.scale, DType::bfloat16); },
     .named = {"a scale"}},
    {.name = "scale of a padded width",
     .source = "ipex-llm #12619",
     .in_kernel = [](Kernel&, Setup& seen) { seen.spec.scale *= std::sqrt(0.5); },
     .named = {"scale"}},
    {.name = "scale missing",
     .source = "mlc-llm #3426, SKaiNET #860",
     .in_kernel = [](Kernel&, Setup& seen) { seen.spec.scale = 1; },
     .named = {"no scale"}},
    {.name = "scale twice",
     .source = "made up",
     .in_kernel = [](Kernel&, Setup& seen) { seen.spec.scale *= seen.spec.scale; },
     .named = {"the scale applied twice", "scale = 1/D"}},
    {.name = "exp in place of exp2",
     .source = "like sglang #35045",
     .in_kernel = [](Kernel&, Setup& seen) { seen.spec.scale *= std::numbers::log2e; },
     .named = {"exp for exp2"}},
    {.name = "exp2 in place of exp",
     .source = "like sglang #35045",
     .in_kernel = [](Kernel&, Setup& seen) { seen.spec.scale *= std::numbers::ln2; },
     .named = {"exp2 for exp"}},
    {.name = "scale of the last head off by 1 %",
     .source = "made up: scales per head",
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.scale_factor_of_last_head = 1.01; },
     .named = {"a scale 1 % off", "scale 1"}},
    {.name = "softcap missing",
     .source = "sgl-kernel-xpu #491",
     .needs = softcap,
     .in_kernel = [](Kernel&, Setup& seen) { seen.spec.softcap = 0; },
     .named = {"softcap ignored"}},
    {.name = "softcap after the mask",
     .source = "onnx #7865, flashinfer #350",
     .needs = capped_causal,
     .in_kernel = [](Kernel& k, Setup& seen) { k.mistakes.hidden_score = -seen.spec.softcap; },
     .named = {"softcap after", "softcap of masked", "hidden keys"}},
    {.name = "x tanh(x / c)",
     .source = "unsloth-zoo #593",
     .needs = softcap,
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.softcap_keeps_factor = true; },
     .named = {"softcap without", "x tanh"}},
    {.name = "bias before the softcap",
     .source = "spec splits, onnx #7867",
     .needs = capped_bias,
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.bias_inside_softcap = true; },
     .named = {"softcap of", "in/bias before the softcap"}},
    {.name = "bias missing",
     .source = "like sgl-kernel-xpu #491",
     .needs = bias,
     .in_kernel = [](Kernel&, Setup& seen) { seen.bias_shape.clear(); },
     .named = {"in/bias ignored"}},
    {.name = "bias inside the scale",
     .source = "npu_fusion_attention adds pse before the scale",
     .needs = bias,
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.bias_inside_scale = true; },
     .named = {"in/bias multiplied by the scale"}},
    {.name = "bias without log2(e)",
     .source = "a base-2 softmax",
     .needs = bias,
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.bias_factor = std::numbers::ln2; },
     .named = {"in/bias"}},
    {.name = "alibi missing",
     .source = "like sgl-kernel-xpu #491",
     .needs = alibi,
     .in_kernel = [](Kernel&, Setup& seen) { seen.has_alibi = false; },
     .named = {"ALiBi ignored"}},
    {.name = "alibi of the other sign",
     .source = "attention-gym #86",
     .needs = alibi,
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.alibi_factor = -1; },
     .named = {"ALiBi of the other sign"}},
    {.name = "alibi without log2(e)",
     .source = "a base-2 softmax",
     .needs = alibi,
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.alibi_factor = std::numbers::ln2; },
     .named = {"ALiBi"}},
    {.name = "alibi slopes in reverse",
     .source = "HipKittens #22",
     .needs = alibi,
     .in_reads = [](Case& read) { std::ranges::reverse(read.in.at("alibi_slopes").values); },
     .named = {"ALiBi"}},
    {.name = "sink missing",
     .source = "TransformerEngine #2541",
     .needs = sink,
     .in_kernel = [](Kernel&, Setup& seen) { seen.has_sink = false; },
     .named = {"in/sink ignored"}},
    {.name = "sink multiplied by the scale",
     .source = "made up",
     .needs = sink,
     .in_kernel = [](Kernel& k, Setup& seen) { k.mistakes.sink_factor = seen.spec.scale; },
     .named = {"in/sink"}},
    {.name = "sink of another head",
     .source = "like HipKittens #22",
     .needs = sink,
     .in_reads = [](Case& read) { std::ranges::reverse(read.in.at("sink").values); },
     .named = {"in/sink"}},
    {.name = "sink weighs 1",
     .source = "TensorRT-LLM #19220, a sink that knows no maximum",
     .needs = sink,
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.sink_weighs_1 = true; },
     .named = {"the sink weighs 1", "in/sink", "=the row sum", "the row sum, or"}},
    {.name = "lse in base 2",
     .source = "sglang #35045 #40903, flashinfer #4485",
     .in_results =
         [](Results& r, const Setup&) {
           change_lse(r, [](double lse, double, double) { return lse * std::numbers::log2e; });
         },
     .named = {"lse in base 2"}},
    {.name = "lse without the maximum",
     .source = "flash-attention #404",
     .in_results = [](Results& r,
                      const Setup&) { change_lse(r, [](double, double, double l) { return std::log(l); }); },
     .named = {"lse without the maximum"}},
    {.name = "lse with an unscaled maximum",
     .source = "flash-attention #404",
     .in_results =
         [](Results& r, const Setup& s) {
           const double scale = s.spec.scale;
           change_lse(r, [=](double, double m, double l) { return m / scale + std::log(l); });
         },
     .named = {"unscaled maximum"}},
    {.name = "the maximum in place of lse",
     .source = "like flash-attention #404",
     .in_results = [](Results& r,
                      const Setup&) { change_lse(r, [](double, double m, double) { return m; }); },
     .named = {"the maximum in place of lse"}},
    {.name = "lse with log2 of the sum",
     .source = "half converted",
     .in_results =
         [](Results& r, const Setup&) {
           change_lse(r, [](double, double m, double l) { return m + std::log2(l); });
         },
     .named = {"base 2"}},
    {.name = "lse of the other sign",
     .source = "made up",
     .in_results = [](Results& r,
                      const Setup&) { change_lse(r, [](double lse, double, double) { return -lse; }); },
     .named = {"lse of the other sign"}},
    {.name = "lse of the row before in one block",
     .source = "aliased lse, local-inference-lab/vllm #468",
     .in_results =
         [](Results& r, const Setup& s) {
           const auto lse = r.lse.begin();
           for (Index i = std::min<Index>(63, s.queries - 1); i >= 32; --i) lse[i] = lse[i - 1];
         },
     .named = {"rows of lse hold", "lse of another row", "lse of those"}},
    {.name = "lse rounded to bfloat16",
     .source = "like Blanchard, Higham and Higham 2021",
     .in_results =
         [](Results& r, const Setup&) {
           for (double& x : r.lse) x = round_to(x, DType::bfloat16);
         },
     .named = {"lse stored in bfloat16", "lse in bfloat16", "lse rounded to bfloat16"}},
    {.name = "lse rounded to float16",
     .source = "exp(x - lse) with lse in fp16",
     .in_results =
         [](Results& r, const Setup&) {
           for (double& x : r.lse) x = round_to(x, DType::float16);
         },
     .named = {"lse stored in float16", "lse in float16", "lse rounded to float16"}},
};

}  // namespace

Family score_faults() {
  return {"scores, sinks and lse", faults};
}

}  // namespace attest::emulate
