// The zoos of faults of operations with weight matrices.
#include "tests/emulate/layer_norm_qkv.hpp"
#include "tests/emulate/multihead_attention.hpp"
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

using Multihead = emulate::MultiheadKernel;
using MultiheadZoo = KernelZoo<Multihead>;

Multihead honest_multihead(DType element) {
  Multihead kernel;
  kernel.attention.tile = 8;
  kernel.attention.p_dtype = kernel.intermediate = element;
  kernel.attention.qk = kernel.attention.pv = adder_of(element);
  kernel.in_projection = kernel.out_projection = adder_of(element);
  return kernel;
}

/// Weights are dumped where the inputs say which are meant.
Case multihead_dump(const Case& inputs, DType, Multihead kernel) {
  if (inputs.spec.contains("average_weights")) kernel.attention.algorithm = emulate::Algorithm::standard;
  return emulate::multihead_dump(inputs, kernel);
}

/// Projections, their weights and biases, and which head takes which column.
void add_projection_faults(MultiheadZoo& zoo) {
  using K = Multihead;
  zoo.add("q and k exchanged", [](K& k, DType) { k.swaps_q_and_k = true; });
  zoo.add("k and v exchanged", [](K& k, DType) { k.swaps_k_and_v = true; });
  zoo.add("half as many heads", [](K& k, DType) { k.heads = 2; });
  zoo.add("twice as many heads", [](K& k, DType) { k.heads = 8; });
  zoo.add("heads that take every H-th column", [](K& k, DType) { k.interleaves_heads = true; });
  zoo.add("heads joined untransposed", [](K& k, DType) { k.joins_heads_untransposed = true; });
  zoo.add("thirds of in_proj_weight transposed", [](K& k, DType) { k.transposes_in_weight = true; });
  zoo.add("out_proj_weight transposed", [](K& k, DType) { k.transposes_out_weight = true; });
  zoo.add("in_proj_weight in bfloat16", [](K& k, DType) { k.in_weight = DType::bfloat16; });
  zoo.add("in_proj_weight in float8_e4m3fn", [](K& k, DType) { k.in_weight = DType::float8_e4m3fn; });
  zoo.add("out_proj_weight in bfloat16", [](K& k, DType) { k.out_weight = DType::bfloat16; });
  zoo.add("out_proj_weight in float8_e4m3fn", [](K& k, DType) { k.out_weight = DType::float8_e4m3fn; });
  zoo.add("no in_proj_bias", [](K& k, DType) { k.forgets_in_bias = true; });
  zoo.add("no in_proj_bias in q", [](K& k, DType) { k.forgets_bias_of = 0; });
  zoo.add("no in_proj_bias in k", [](K& k, DType) { k.forgets_bias_of = 1; });
  zoo.add("no in_proj_bias in v", [](K& k, DType) { k.forgets_bias_of = 2; });
  zoo.add("in_proj_bias of the next third", [](K& k, DType) { k.shifts_in_bias = true; });
  zoo.add("no out_proj_bias", [](K& k, DType) { k.forgets_out_bias = true; });
  zoo.add("stored before the bias", [](K& k, DType) { k.stores_before_bias = true; });
  zoo.add("sums of q, k and v in float16", [](K& k, DType) { k.in_projection = adder_in(DType::float16); });
  zoo.add("sums of q, k and v in bfloat16", [](K& k, DType) { k.in_projection = adder_in(DType::bfloat16); });
  zoo.add("sums of y in float16", [](K& k, DType) { k.out_projection = adder_in(DType::float16); });
  zoo.add("sums of y in bfloat16", [](K& k, DType) { k.out_projection = adder_in(DType::bfloat16); });
  zoo.add("projections in tf32", [](K& k, DType) { k.projects_in_tf32 = true; }, {DType::float32});
  zoo.add("q, k and v in bfloat16", [](K& k, DType) { k.projected = DType::bfloat16; });
  zoo.add("q, k and v in float16", [](K& k, DType) { k.projected = DType::float16; });
  zoo.add("q, k and v in float8_e4m3fn", [](K& k, DType) { k.projected = DType::float8_e4m3fn; });
  zoo.add("o in bfloat16", [](K& k, DType) { k.attended = DType::bfloat16; });
  zoo.add("o in float16", [](K& k, DType) { k.attended = DType::float16; });
  zoo.add("o in float8_e4m3fn", [](K& k, DType) { k.attended = DType::float8_e4m3fn; });
  zoo.add("y rounded through bfloat16", [](K& k, DType) { k.output = DType::bfloat16; });
  zoo.add("y rounded through float16", [](K& k, DType) { k.output = DType::float16; });
  zoo.add("y in float8_e4m3fn", [](K& k, DType) { k.output = DType::float8_e4m3fn; });
  zoo.add("y cut off", [](K& k, DType) { k.output_is_cut_off = true; });
  zoo.add("last row not written", [](K& k, DType) { k.skips_last_row = true; });
}

/// What goes on between the projections: the most common of attention's own zoo.
void add_attention_faults(MultiheadZoo& zoo) {
  using M = emulate::Mistakes;
  const auto add = [&](const std::string& name, void (*change)(M & wrong), std::vector<DType> elements = {}) {
    zoo.add(
        name, [change](Multihead& k, DType) { change(k.attention.mistakes); }, std::move(elements));
  };
  zoo.add("no scale", [](Multihead& k, DType) { k.scale_factor = 4; });  // sqrt(D)
  zoo.add("scale twice", [](Multihead& k, DType) { k.scale_factor = 0.25; });
  zoo.add("scale of 1/sqrt(M)", [](Multihead& k, DType) { k.scale_factor = 0.5; });
  zoo.add("scale times 1.08", [](Multihead& k, DType) { k.scale_factor = 1.08; });
  zoo.add("scale times 1.01", [](Multihead& k, DType) { k.scale_factor = 1.01; });
  zoo.add("P in float8_e4m3fn", [](Multihead& k, DType) { k.attention.p_dtype = DType::float8_e4m3fn; });
  zoo.add("P in bfloat16", [](Multihead& k, DType) { k.attention.p_dtype = DType::bfloat16; });
  add("P cut off", [](M& wrong) { wrong.p_is_cut_off = true; });
  add("scores in float16", [](M& wrong) { wrong.scores = DType::float16; });
  add("scores in bfloat16", [](M& wrong) { wrong.scores = DType::bfloat16; });
  add("products in tf32", [](M& wrong) { wrong.products_in_tf32 = true; }, {DType::float32});
  add("the maximum is not subtracted", [](M& wrong) { wrong.no_maximum = true; });
  add("row sum in float16", [](M& wrong) { wrong.row_sum = DType::float16; });
  add("row sum in bfloat16", [](M& wrong) { wrong.row_sum = DType::bfloat16; });
  add("o summed in float16", [](M& wrong) { wrong.output_sum = DType::float16; });
  add("o summed in bfloat16", [](M& wrong) { wrong.output_sum = DType::bfloat16; });
  add("exp off by 1e-2", [](M& wrong) { wrong.exp_error = 1e-2; });
  add("exp off by 1e-3", [](M& wrong) { wrong.exp_error = 1e-3; });
  add("exp off by 1e-4", [](M& wrong) { wrong.exp_error = 1e-4; });
  add("a tile dropped", [](M& wrong) { wrong.drops_tile = true; });
  add("a tile twice", [](M& wrong) { wrong.repeats_tile = true; });
  add("one rescaling is missed", [](M& wrong) { wrong.misses_rescale = true; });
  add("values of the tile before", [](M& wrong) { wrong.stale_values = true; });
  add("not divided by the row sum", [](M& wrong) { wrong.is_not_divided = true; });
  add("padding of the last tile counts", [](M& wrong) { wrong.attends_to_padding = true; });
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

Zoo multihead_attention_zoo() {
  using K = Multihead;
  MultiheadZoo zoo("multihead_attention", multihead_dump, honest_multihead);
  const std::string self = "B=2,Sq=20,M=64", cross = "B=2,Sq=20,Sk=33,M=64";
  const std::string biases = "in_proj_bias,out_proj_bias";
  zoo.context({"plain", self, "", "", biases, {}});
  add_projection_faults(zoo);
  add_attention_faults(zoo);
  zoo.context({"causal", self, "", "causal=top_left", biases, {}});
  zoo.add("causal ignored", [](K& k, DType) { k.causal = Causal::none; });
  zoo.add("causal sees one key more", [](K& k, DType) { k.attention.mistakes.diagonal_shift = 1; });
  zoo.add("causal sees one key less", [](K& k, DType) { k.attention.mistakes.diagonal_shift = -1; });
  zoo.add("diagonal tile left open",
          [](K& k, DType) { k.attention.mistakes.leaves_diagonal_tile_open = true; });
  zoo.add("hidden scores of -5", [](K& k, DType) { k.attention.mistakes.hidden_score = -5; });
  zoo.context({"cross", cross, "", "", biases, {}});
  zoo.add("values made of key", [](K& k, DType) { k.makes_values_of_key = true; });
  zoo.context({"cross_causal", cross, "", "causal=bottom_right", biases, {}});
  zoo.add("top_left for bottom_right", [](K& k, DType) { k.causal = Causal::top_left; });
  zoo.context({"batch_first", self, "", "layout=blm", biases, {}});
  zoo.add("length first", [](K& k, DType) { k.exchanges_layout = true; });
  for (const bool is_mean : {true, false}) {
    zoo.context({is_mean ? "weights" : "weights_of_heads",
                 self,
                 "",
                 is_mean ? "average_weights=true" : "average_weights=false",
                 biases,
                 {}});
    zoo.add("weights in bfloat16", [](K& k, DType) { k.weights = DType::bfloat16; });
    zoo.add("weights in float8_e4m3fn", [](K& k, DType) { k.weights = DType::float8_e4m3fn; });
    if (!is_mean) continue;
    zoo.add("weights added up over the heads", [](K& k, DType) { k.sums_weights = true; });
    zoo.add("weights of head 0", [](K& k, DType) { k.shows_weights_of_head_0 = true; });
  }
  return zoo.zoo();
}

}  // namespace attest::faults
