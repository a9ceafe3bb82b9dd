// Faults of arithmetic: a stage in a narrower format than the contract has it, and approximations.
#include <algorithm>

#include "tests/faults/fault.hpp"

namespace attest::emulate {
namespace {

constexpr DType half = DType::float16, brain = DType::bfloat16, e4m3 = DType::float8_e4m3fn;

void narrow(Adder& adder, DType dtype) {
  adder.kind = Adder::Kind::blocked;
  adder.dtype = dtype;
}
void convert(Case& read, std::initializer_list<const char*> names, DType dtype) {
  for (const char* name : names) {
    for (double& x : read.in.at(name).values) x = round_to(x, dtype);
  }
}

const Fault faults[] = {
    {.name = "qk sum in float16",
     .source = "metal-flash-attention #8, onnxruntime #24953",
     .in_kernel = [](Kernel& k, Setup&) { narrow(k.qk, half); },
     .named = {"q.k accumulated in float16"}},
    {.name = "qk sum in bfloat16",
     .source = "like metal-flash-attention #8",
     .in_kernel = [](Kernel& k, Setup&) { narrow(k.qk, brain); },
     .named = {"q.k accumulated in bfloat16"}},
    {.name = "scores in float16",
     .source = "MindIE-SD rounds q k to fp16",
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.scores = half; },
     .named = {"scores stored in float16"}},
    {.name = "scores in bfloat16",
     .source = "made up",
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.scores = brain; },
     .named = {"scores stored in bfloat16"}},
    {.name = "q.k in float16 before the scale",
     .source = "like metal-flash-attention #8",
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.raw_scores = half; },
     .named = {"scores stored in float16"}},
    {.name = "q times scale stored",
     .source = "undeclared pre-scaling in the element type",
     .in_kernel = [](Kernel& k, Setup& s) { k.mistakes.scaled_q = s.element; },
     .named = {"q multiplied by the scale and stored"},
     .elements = {half, brain}},
    {.name = "exp off by 1e-2",
     .source = "a polynomial of low degree",
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.exp_error = 1e-2; },
     .named = {"exponentials"}},
    {.name = "exp off by 2^-9",
     .source = "exp of bfloat16 accuracy",
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.exp_error = 0x1p-9; },
     .named = {"exponentials"}},
    {.name = "exp off by 1e-4",
     .source = "made up",
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.exp_error = 1e-4; },
     .named = {"exponentials"}},
    {.name = "exp off by 1e-5",
     .source = "made up",
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.exp_error = 1e-5; },
     .named = {"exponentials"}},
    {.name = "row maximum in bfloat16",
     .source = "tt-metal #38452; cancels, but for rows that see one key",
     .needs = [](Setup& s) { s.spec.causal = Causal::top_left; },
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.maximum = brain; },
     .named = {"maximum"}},
    {.name = "row maximum of weights in bfloat16",
     .source = "like tt-metal #38452; the row sum uses the exact one",
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.maximum_of_weights = brain; },
     .named = {"maximum"}},
    {.name = "row sum in float16",
     .source = "like pytorch #133085",
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.row_sum = half; },
     .named = {"the row sum"}},
    {.name = "row sum in bfloat16",
     .source = "like pytorch #133085",
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.row_sum = brain; },
     .named = {"the row sum"}},
    {.name = "reciprocal off by 1e-3",
     .source = "made up: an approximate division",
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.reciprocal_error = 1e-3; },
     .named = {"o multiplied by 1.0", "the division by it", "the row sum"}},
    {.name = "p in float8_e4m3fn",
     .source = "made up",
     .in_kernel = [](Kernel& k, Setup&) { k.p_dtype = e4m3; },
     .named = {"weights P stored in float8_e4m3fn"}},
    {.name = "p in float8_e5m2",
     .source = "made up",
     .in_kernel = [](Kernel& k, Setup&) { k.p_dtype = DType::float8_e5m2; },
     .named = {"weights P stored in float8_e5m2"}},
    {.name = "p in float8_e4m3fn before the row sum",
     .source = "made up",
     .in_kernel = [](Kernel& k, Setup&) { k.p_dtype = e4m3, k.mistakes.sums_stored_weights = true; },
     .named = {"weights P rounded to float8_e4m3fn before the row sum"}},
    {.name = "p in bfloat16",
     .source = "made up",
     .in_kernel = [](Kernel& k, Setup&) { k.p_dtype = brain; },
     .named = {"weights P stored in bfloat16"}},
    {.name = "p in float16",
     .source = "made up",
     .in_kernel = [](Kernel& k, Setup&) { k.p_dtype = half; },
     .named = {"weights P stored in float16"},
     .elements = {DType::float32}},
    {.name = "p cut off",
     .source = "truncation in place of rounding",
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.p_is_cut_off = true; },
     .named = {"weights P cut off"}},
    {.name = "p cut off before the row sum",
     .source = "truncation in place of rounding",
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.p_is_cut_off = k.mistakes.sums_stored_weights = true; },
     .named = {"weights P cut off before the row sum"}},
    {.name = "pv sum in float16",
     .source = "ik_llama #1196",
     .in_kernel = [](Kernel& k, Setup&) { narrow(k.pv, half); },
     .named = {"P.V accumulated in float16"}},
    {.name = "pv sum in bfloat16",
     .source = "like ik_llama #1196",
     .in_kernel = [](Kernel& k, Setup&) { narrow(k.pv, brain); },
     .named = {"P.V accumulated in bfloat16"}},
    {.name = "pv sum of a tile in float16",
     .source = "fp16 accumulators, promoted per tile",
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.tile_sum = half; },
     .named = {"P.V accumulated in float16"}},
    {.name = "pv sum of a tile in bfloat16",
     .source = "like ik_llama #1196",
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.tile_sum = brain; },
     .named = {"P.V accumulated in bfloat16"}},
    {.name = "running o in the element type",
     .source = "o in memory between tiles",
     .in_kernel = [](Kernel& k, Setup& s) { k.mistakes.output_sum = s.element; },
     .named = {"P.V accumulated in", "o stored in"},
     .elements = {half, brain}},
    {.name = "products in tf32",
     .source = "tf32 under a float32 contract",
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.products_in_tf32 = true; },
     .named = {"products in tf32", "tf32"},
     .elements = {DType::float32}},
    {.name = "v in float8_e4m3fn",
     .source = "a quantised cache, undeclared",
     .in_reads = [](Case& read) { convert(read, {"v"}, e4m3); },
     .named = {"v converted to float8_e4m3fn"}},
    {.name = "k in float8_e4m3fn",
     .source = "a quantised cache, undeclared",
     .in_reads = [](Case& read) { convert(read, {"k"}, e4m3); },
     .named = {"k converted to float8_e4m3fn", "k and v converted"}},
    {.name = "inputs in bfloat16",
     .source = "a cast on the way in",
     .in_reads =
         [](Case& read) {
           convert(read, {"q", "k", "v"}, brain);
         },
     .named = {"converted to bfloat16"}},
    {.name = "o rounded through bfloat16",
     .source = "double rounding",
     .in_results =
         [](Results& r, const Setup&) {
           for (double& x : r.o) x = round_to(x, brain);
         },
     .named = {"o stored in bfloat16"}},
    {.name = "o rounded through float16",
     .source = "double rounding",
     .in_results =
         [](Results& r, const Setup&) {
           for (double& x : r.o) x = round_to(x, half);
         },
     .named = {"o stored in float16"},
     .elements = {DType::float32}},
};

}  // namespace

Family precision_faults() {
  return {"precision", faults};
}

}  // namespace attest::emulate
