// The zoos of faults of operations with weight matrices.
#include "tests/emulate/layer_norm_qkv.hpp"
#include "tests/faults/kernel_zoo.hpp"

namespace attest::faults {
namespace {

/// As tensor cores add 16-bit operands up, and as other units do.
emulate::Adder adder_of(DType element) {
  using Kind = emulate::Adder::Kind;
  return {format_of(element).bits <= 16 ? Kind::tensor_core : Kind::blocked};
}
/// A running sum in this type, rounded after every 16 products.
emulate::Adder adder_in(DType dtype) {
  return {emulate::Adder::Kind::blocked, 16, 2, dtype};
}

}  // namespace

Zoo layer_norm_qkv_zoo() {
  using K = emulate::QkvKernel;
  using emulate::QkvWeight;
  KernelZoo<K> zoo(
      "layer_norm_qkv",
      [](const Case& inputs, DType element, const K& kernel) {
        return emulate::qkv_dump(inputs, element, kernel);
      },
      [](DType element) {
        K kernel;
        kernel.product = adder_of(element);
        return kernel;
      });
  const std::string shape = "B=2,S=20,M=48", all = "weight,bias,qkv_bias";
  zoo.context({"plain", shape, "", "heads=3", all, {}});
  // The norm
  zoo.add("no norm", [](K& k, DType) { k.skips_norm = true; });
  zoo.add("rms_norm for the norm", [](K& k, DType) { k.norm.mistakes.is_other_op = true; });
  zoo.add("eps outside the root", [](K& k, DType) { k.norm.mistakes.eps_outside = true; });
  zoo.add("no eps", [](K& k, DType) { k.norm.mistakes.no_eps = true; });
  zoo.add("eps in the element type", [](K& k, DType) { k.norm.mistakes.eps_in_element = true; });
  zoo.add("mean over N - 1", [](K& k, DType) { k.norm.mistakes.over_n_minus_1 = true; });
  zoo.add("mean over a padded width", [](K& k, DType) { k.norm.mistakes.over_padded_width = true; });
  zoo.add("variance in one pass",
          [](K& k, DType) { k.norm.moments = emulate::NormKernel::Moments::one_pass; });
  zoo.add("sums of the norm in float16", [](K& k, DType) { k.norm.mistakes.sum_dtype = DType::float16; });
  zoo.add("sums of the norm in bfloat16", [](K& k, DType) { k.norm.mistakes.sum_dtype = DType::bfloat16; });
  zoo.add("squares in the element type", [](K& k, DType) { k.norm.mistakes.squares_in_element = true; });
  zoo.add("rstd in bfloat16", [](K& k, DType) { k.norm.mistakes.rstd_in_bfloat16 = true; });
  zoo.add("cast before the weight", [](K& k, DType) { k.norm.mistakes.casts = true; });
  zoo.add("no weight", [](K& k, DType) { k.norm.mistakes.no_weight = true; });
  zoo.add("no bias", [](K& k, DType) { k.forgets_norm_bias = true; });
  zoo.add("no bias in a row", [](K& k, DType) { k.norm.mistakes.no_bias_in_a_row = true; });
  // What is stored between norm and product
  zoo.add("normalised x not rounded", [](K& k, DType) { k.stores = false; });
  zoo.add("normalised x in bfloat16", [](K& k, DType) { k.normalised = DType::bfloat16; });
  zoo.add("normalised x in float16", [](K& k, DType) { k.normalised = DType::float16; });
  zoo.add("normalised x in float8_e4m3fn", [](K& k, DType) { k.normalised = DType::float8_e4m3fn; });
  // Weights and biases
  zoo.add("q and k exchanged", [](K& k, DType) { k.exchanges_q_and_k = true; });
  zoo.add("k and v exchanged", [](K& k, DType) { k.exchanges_k_and_v = true; });
  zoo.add("qkv_weight as heads of q, k, v", [](K& k, DType) { k.weight = QkvWeight::by_heads; });
  zoo.add("heads that take every H-th row", [](K& k, DType) { k.weight = QkvWeight::interleaved_heads; });
  zoo.add("thirds of qkv_weight transposed", [](K& k, DType) { k.weight = QkvWeight::transposed_thirds; });
  zoo.add("qkv_weight read as [M, 3M]", [](K& k, DType) { k.weight = QkvWeight::transposed_whole; });
  zoo.add("qkv_weight in bfloat16", [](K& k, DType) { k.weights = DType::bfloat16; });
  zoo.add("qkv_weight in float8_e4m3fn", [](K& k, DType) { k.weights = DType::float8_e4m3fn; });
  zoo.add("no qkv_bias", [](K& k, DType) { k.forgets_bias = true; });
  zoo.add("no qkv_bias in q", [](K& k, DType) { k.forgets_bias_of = 0; });
  zoo.add("no qkv_bias in k", [](K& k, DType) { k.forgets_bias_of = 1; });
  zoo.add("no qkv_bias in v", [](K& k, DType) { k.forgets_bias_of = 2; });
  zoo.add("qkv_bias twice", [](K& k, DType) { k.has_bias_twice = true; });
  zoo.add("qkv_bias of the next third", [](K& k, DType) { k.shifts_bias = true; });
  zoo.add("q times 1/sqrt(D)", [](K& k, DType) { k.scales_q = true; });
  // The product
  zoo.add("sums in float16", [](K& k, DType) { k.product = adder_in(DType::float16); });
  zoo.add("sums in bfloat16", [](K& k, DType) { k.product = adder_in(DType::bfloat16); });
  zoo.add("products in tf32", [](K& k, DType) { k.is_in_tf32 = true; }, {DType::float32});
  zoo.add("16 columns not summed", [](K& k, DType) { k.dropped_columns = 16; });
  zoo.add("last column not summed", [](K& k, DType) { k.dropped_columns = 1; });
  zoo.add("16 columns not summed in a token", [](K& k, DType) { k.drops_a_block = true; });
  // Stores
  zoo.add("heads inside", [](K& k, DType) { k.moves_heads = true; });
  zoo.add("last token not written", [](K& k, DType) { k.last_not_written = 1; });
  zoo.add("q, k and v rounded through bfloat16", [](K& k, DType) { k.output = DType::bfloat16; });
  zoo.add("q, k and v rounded through float16", [](K& k, DType) { k.output = DType::float16; });
  zoo.add("q, k and v in float8_e4m3fn", [](K& k, DType) { k.output = DType::float8_e4m3fn; });
  zoo.add("q, k and v cut off", [](K& k, DType) { k.output_is_cut_off = true; });
  zoo.context({"heads_inside", shape, "", "heads=3,layout=bshd", all, {}});
  zoo.add("heads outside", [](K& k, DType) { k.moves_heads = true; });
  return zoo.zoo();
}

}  // namespace attest::faults
