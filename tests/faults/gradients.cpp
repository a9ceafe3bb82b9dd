// Faults of the backward pass alone; the forward pass is right.
#include <algorithm>
#include <limits>

#include "tests/faults/fault.hpp"

namespace attest::emulate {
namespace {

constexpr DType half = DType::float16, brain = DType::bfloat16, e4m3 = DType::float8_e4m3fn;

void causal(Setup& s) {
  s.spec.causal = Causal::bottom_right;
}
void softcap(Setup& s) {
  s.spec.softcap = 2;
}
void groups(Setup& s) {
  s.kv_heads = std::max<Index>(s.kv_heads, 2);
  s.q_heads = 3 * s.kv_heads;
}
/// Each row is the one before it.
void move_rows(std::vector<double>& values, Index rows, Index width) {
  const std::vector<double> old = values;
  for (Index n = 0; n < std::ssize(old) / width; ++n) {
    const Index from = n % rows == 0 ? n : n - 1;
    std::copy_n(&old[from * width], width, &values[n * width]);
  }
}

const Fault faults[] = {
    {.name = "delta missing",
     .source = "like flash-attention #2481",
     .is_backward = true,
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.drops_delta = true; },
     .named = {"=backward: delta = rowsum(do o) missing in dS"}},
    {.name = "delta of do with itself",
     .source = "made up",
     .is_backward = true,
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.delta_of_d_o = true; },
     .named = {"rowsum(do do)"}},
    {.name = "delta of the row before",
     .source = "tilelang #2461",
     .is_backward = true,
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.delta_row_shift = -1; },
     .named = {"=backward: delta of the row before"}},
    {.name = "delta of the row after",
     .source = "tilelang #2461",
     .is_backward = true,
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.delta_row_shift = 1; },
     .named = {"=backward: delta of the row after"}},
    {.name = "delta of the last rows not written",
     .source = "flash-attention #2421 #1155",
     .is_backward = true,
     .in_kernel = [](Kernel& k, Setup& s) { k.mistakes.delta_rows = std::max<Index>(1, s.queries / 3 * 2); },
     .named = {"=backward: delta = rowsum(do o) missing in dS"}},
    {.name = "delta of half the columns",
     .source = "made up",
     .is_backward = true,
     .in_kernel = [](Kernel& k, Setup& s) { k.mistakes.delta_columns = std::max<Index>(1, s.v_width / 2); },
     .named = {"delta of the first "}},
    {.name = "do of the row before",
     .source = "aotriton #236",
     .is_backward = true,
     .in_reads =
         [](Case& read) {
           Tensor& d_o = read.in.at("do");
           move_rows(d_o.values, d_o.shape[2], d_o.shape[3]);
         },
     .named = {"in/do", "do of"}},
    {.name = "dk without scale",
     .source = "made up",
     .is_backward = true,
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.scales_of_dk = 0; },
     .named = {"dq or dk without the scale"}},
    {.name = "dk with scale twice",
     .source = "made up",
     .is_backward = true,
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.scales_of_dk = 2; },
     .named = {"dq or dk multiplied by the scale twice"}},
    {.name = "dq without scale",
     .source = "made up",
     .is_backward = true,
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.scales_of_dq = 0; },
     .named = {"dq or dk without the scale"}},
    {.name = "dq with scale twice",
     .source = "made up",
     .is_backward = true,
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.scales_of_dq = 2; },
     .named = {"dq or dk multiplied by the scale twice"}},
    {.name = "dS times 1.001",
     .source = "made up",
     .is_backward = true,
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.ds_factor = 1.001; },
     .named = {"dq multiplied by 1.001", "dk multiplied by 1.001"}},
    {.name = "dq loses a tile",
     .source = "fla #889, PaddlePaddle/flash-attention #134",
     .is_backward = true,
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.drops_tile_of_dq = true; },
     .named = {"missing from dq"}},
    {.name = "dq adds a tile twice",
     .source = "like fla #889",
     .is_backward = true,
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.repeats_tile_of_dq = true; },
     .named = {"twice in dq"}},
    {.name = "dv loses a block of rows",
     .source = "like fla #889",
     .is_backward = true,
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.block_of_dv = 0; },
     .named = {"missing from dv"}},
    {.name = "dv adds a block twice",
     .source = "like llama.cpp #13438",
     .is_backward = true,
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.block_of_dv = 2; },
     .named = {"twice in dv"}},
    {.name = "dk loses a block of rows",
     .source = "like fla #889",
     .is_backward = true,
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.block_of_dk = 0; },
     .named = {"missing from dk"}},
    {.name = "dk adds a block twice",
     .source = "like llama.cpp #13438",
     .is_backward = true,
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.block_of_dk = 2; },
     .named = {"twice in dk"}},
    {.name = "last rows missing from dk and dv",
     .source = "seqlen / tile rounded down",
     .is_backward = true,
     .needs = groups,
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.skips_last_rows = true; },
     .named = {"of each head missing from dk and dv"}},
    {.name = "dk and dv of the last head only",
     .source = "levanter #449",
     .is_backward = true,
     .needs = groups,
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.overwrites_gradients_of_group = true; },
     .named = {"only the last query head of a group reaches dk and dv"}},
    {.name = "causal sees one key more, backward",
     .source = "like flash-attention #1947",
     .is_backward = true,
     .needs = causal,
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.diagonal_shift_of_backward = 1; },
     .named = {"causal"}},
    {.name = "causal sees one key less, backward",
     .source = "like flash-attention #1947",
     .is_backward = true,
     .needs = causal,
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.diagonal_shift_of_backward = -1; },
     .named = {"causal"}},
    {.name = "mask missing, backward",
     .source = "flash-attention #1947",
     .is_backward = true,
     .needs = [](Setup& s) { s.has_mask = true; },
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.backward_ignores_mask = true; },
     .named = {"in/mask"}},
    {.name = "window missing, backward",
     .source = "flash-attention #1133",
     .is_backward = true,
     .needs = [](Setup& s) { s.spec.window_left = s.keys / 3; },
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.backward_ignores_window = true; },
     .named = {"window_left"}},
    {.name = "lse of base 2 read as natural, backward",
     .source = "flashinfer #4485",
     .is_backward = true,
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.lse_factor = 1.44269504; },
     .named = {"lse"}},
    {.name = "natural lse read as of base 2, backward",
     .source = "like flashinfer #4485",
     .is_backward = true,
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.lse_factor = 0.69314718; },
     .named = {"natural lse read as of base 2"}},
    {.name = "m in place of lse, backward",
     .source = "made up",
     .is_backward = true,
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.reads_maximum = true; },
     .named = {"=backward: m in place of lse: weights that are not normalised"}},
    {.name = "softcap without derivative",
     .source = "tokamax #1121",
     .is_backward = true,
     .needs = softcap,
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.no_softcap_derivative = true; },
     .named = {"derivative"}},
    {.name = "softcap derivative of the capped score",
     .source = "like tokamax #1121",
     .is_backward = true,
     .needs = softcap,
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.softcap_derivative_of_capped = true; },
     .named = {"derivative"}},
    {.name = "dbias of the last row only",
     .source = "a sum that overwrites",
     .is_backward = true,
     .needs =
         [](Setup& s) {
           s.bias_shape = {1, 1, 1, s.keys};
         },
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.overwrites_dbias = true; },
     .named = {"dbias"}},
    {.name = "dsink of the other sign",
     .source = "made up",
     .is_backward = true,
     .needs = [](Setup& s) { s.has_sink = true; },
     .in_results =
         [](Results& r, const Setup&) {
           for (double& x : r.dsink) x = -x;
         },
     .named = {"dsink", "other sign"}},
    {.name = "dk and dv exchanged",
     .source = "made up",
     .is_backward = true,
     .in_results =
         [](Results& r, const Setup& s) {
           if (s.width == s.v_width) std::swap(r.dk, r.dv);
         },
     .named = {"exchanged"}},
    {.name = "dk of the key before",
     .source = "like tilelang #2461",
     .is_backward = true,
     .in_results = [](Results& r, const Setup& s) { move_rows(r.dk, s.keys, s.width); },
     .named = {"=rows of dk hold the results of those 1 row before"}},
    {.name = "rows of dq exchanged in pairs",
     .source = "made up",
     .is_backward = true,
     .in_results =
         [](Results& r, const Setup& s) {
           for (Index n = 0; n + 2 * s.width <= std::ssize(r.dq) && s.queries % 2 == 0; n += 2 * s.width)
             std::swap_ranges(&r.dq[n], &r.dq[n] + s.width, &r.dq[n] + s.width);
         },
     .named = {"=dq with its rows exchanged in pairs"}},
    {.name = "tile of dq stale",
     .source = "memory of the block before",
     .is_backward = true,
     .in_results =
         [](Results& r, const Setup& s) {
           const Index tile = 32 * s.width;
           for (Index n = 0; s.queries >= 64 && n < std::ssize(r.dq); n += s.queries * s.width)
             std::copy_n(&r.dq[n], tile, &r.dq[n] + tile);
         },
     .named = {"=rows of dq hold the results of those 32 rows before"}},
    {.name = "dv in transposed tiles",
     .source = "made up",
     .is_backward = true,
     .in_results =
         [](Results& r, const Setup& s) {
           const Index e = s.v_width;
           for (Index h = 0; h < s.kv_heads; ++h) {
             for (Index first = 0; first + e <= s.keys; first += e) {
               double* const tile = &r.dv[(h * s.keys + first) * e];
               for (Index i = 0; i < e; ++i)
                 for (Index j = 0; j < i; ++j) std::swap(tile[i * e + j], tile[j * e + i]);
             }
           }
         },
     .named = {"dv with its tiles of width x width transposed"}},
    {.name = "last rows of dk not written",
     .source = "flash-attention #2421 #1155",
     .is_backward = true,
     .in_results =
         [](Results& r, const Setup& s) {
           std::fill(r.dk.end() - std::min<Index>(16, s.keys) * s.width, r.dk.end(), 0.0);
         },
     .named = {"zeros, or nothing written"}},
    {.name = "dq has a NaN",
     .source = "flash-attention #443",
     .is_backward = true,
     .in_results = [](Results& r,
                      const Setup&) { r.dq[r.dq.size() / 2] = std::numeric_limits<double>::quiet_NaN(); },
     .named = {"NaN"}},
};

const Fault precision[] = {
    {.name = "p of dv in float8_e4m3fn",
     .source = "made up",
     .is_backward = true,
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.p_of_dv = e4m3; },
     .named = {"float8_e4m3fn"}},
    {.name = "p of dv in bfloat16",
     .source = "made up",
     .is_backward = true,
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.p_of_dv = brain; },
     .named = {"bfloat16"}},
    {.name = "p of dv cut off",
     .source = "made up",
     .is_backward = true,
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.p_of_dv_is_cut_off = true; },
     .named = {"P cut off"}},
    {.name = "dS in float8_e4m3fn",
     .source = "made up",
     .is_backward = true,
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.ds = e4m3; },
     .named = {"float8_e4m3fn"}},
    {.name = "dS in bfloat16",
     .source = "made up",
     .is_backward = true,
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.ds = brain; },
     .named = {"bfloat16"}},
    {.name = "dS cut off",
     .source = "made up",
     .is_backward = true,
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.ds_is_cut_off = true; },
     .named = {"dS cut off"}},
    {.name = "dp sum in float16",
     .source = "like metal-flash-attention #8",
     .is_backward = true,
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.dp_sum = half; },
     .named = {"float16"}},
    {.name = "dp sum in bfloat16",
     .source = "like metal-flash-attention #8",
     .is_backward = true,
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.dp_sum = brain; },
     .named = {"bfloat16"}},
    {.name = "delta in the element type",
     .source = "cudnn-frontend #676",
     .is_backward = true,
     .in_kernel = [](Kernel& k,
                     Setup& s) { k.mistakes.delta = s.element == DType::float32 ? half : s.element; },
     .named = {"delta"}},
    {.name = "delta of o in bfloat16",
     .source = "cudnn-frontend #676",
     .is_backward = true,
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.delta_output = brain; },
     .named = {"delta"}},
    {.name = "lse in bfloat16, backward",
     .source = "like Blanchard, Higham and Higham 2021",
     .is_backward = true,
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.lse = brain; },
     .named = {"lse"}},
    {.name = "lse in float16, backward",
     .source = "like Blanchard, Higham and Higham 2021",
     .is_backward = true,
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.lse = half; },
     .named = {"lse"}},
    {.name = "exp off by 2^-9, backward",
     .source = "made up",
     .is_backward = true,
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.exp_error_of_backward = 0x1p-9; },
     .named = {"exponentials"}},
    {.name = "exp off by 1e-4, backward",
     .source = "made up",
     .is_backward = true,
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.exp_error_of_backward = 1e-4; },
     .named = {"exponentials"}},
    {.name = "dq sum in float16",
     .source = "like xformers #467",
     .is_backward = true,
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.dq_sum = half; },
     .named = {"float16"}},
    {.name = "dq sum in bfloat16",
     .source = "like xformers #467",
     .is_backward = true,
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.dq_sum = brain; },
     .named = {"bfloat16"}},
    {.name = "dk and dv sums in float16",
     .source = "xformers #467",
     .is_backward = true,
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.dkv_sum = half; },
     .named = {"float16"}},
    {.name = "dk and dv sums in bfloat16",
     .source = "xformers #467",
     .is_backward = true,
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.dkv_sum = brain; },
     .named = {"bfloat16"}},
    {.name = "atomics of dq in the element type",
     .source = "flash-attention #359",
     .is_backward = true,
     .in_kernel = [](Kernel& k, Setup& s) { k.mistakes.dq_in_memory = s.element; },
     .named = {"dq accumulated in"},
     .elements = {half, brain}},
    {.name = "gradients rounded through bfloat16",
     .source = "double rounding",
     .is_backward = true,
     .in_results =
         [](Results& r, const Setup&) {
           for (auto* x : {&r.dq, &r.dk, &r.dv})
             for (double& value : *x) value = round_to(value, brain);
         },
     .named = {"bfloat16"}},
};

}  // namespace

Family gradient_faults() {
  return {"backward", faults};
}
Family gradient_precision_faults() {
  return {"precision, backward", precision};
}

}  // namespace attest::emulate
