// Faults of what a row may see, and of whose keys and values a head reads.
#include <algorithm>

#include "tests/faults/fault.hpp"

namespace attest::emulate {
namespace {

void causal(Setup& s) {
  s.spec.causal = Causal::bottom_right;
}
void ragged_causal(Setup& s) {
  causal(s);
  s.keys += 13;
}
void window(Setup& s) {
  s.spec.window_left = s.keys / 3;
}
void right_window(Setup& s) {
  window(s);
  s.spec.window_right = 5;
}
void mask(Setup& s) {
  s.has_mask = true;
}
void groups(Setup& s) {
  s.kv_heads = std::max<Index>(s.kv_heads, 2);
  s.q_heads = 3 * s.kv_heads;
}

/// t[h, i] takes the rows of another head or another row: from(h, i, heads, rows) is the row to take.
template <class From>
void reorder(Tensor& t, From from) {
  const std::vector<double> old = t.values;
  const Index heads = t.shape[1], rows = t.shape[2], width = t.shape[3];
  for (Index n = 0; n < heads * rows; ++n) {
    std::copy_n(&old[from(n / rows, n % rows, heads, rows) * width], width, &t.values[n * width]);
  }
}

const Fault faults[] = {
    {.name = "causal sees one key more",
     .source = "a diagonal with <= for <",
     .needs = causal,
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.diagonal_shift = 1; },
     .named = {"causal diagonal one key too far"}},
    {.name = "causal sees one key less",
     .source = "a diagonal with < for <=",
     .needs = causal,
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.diagonal_shift = -1; },
     .named = {"causal diagonal one key short"}},
    {.name = "causal top-left for bottom-right",
     .source = "flash-attention #282 #517, mlx #2967",
     .needs = ragged_causal,
     .in_kernel = [](Kernel&, Setup& seen) { seen.spec.causal = Causal::top_left; },
     .named = {"top-left", "top_left", "wrong corner", "bottom-right instead"}},
    {.name = "causal bottom-right for top-left",
     .source = "ROCm/flash-attention #158 #185",
     .needs =
         [](Setup& s) {
           ragged_causal(s);
           s.spec.causal = Causal::top_left;
         },
     .in_kernel = [](Kernel&, Setup& seen) { seen.spec.causal = Causal::bottom_right; },
     .named = {"bottom-right", "bottom_right", "wrong corner", "top-left instead"}},
    {.name = "causal missing",
     .source = "is_causal accepted, never applied",
     .needs = causal,
     .in_kernel = [](Kernel&, Setup& seen) { seen.spec.causal = Causal::none; },
     .named = {"causal = none", "causal ignored", "no causal mask", "causal mask missing", "future keys"}},
    {.name = "tile of the diagonal not masked",
     .source = "zml #563",
     .needs = causal,
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.leaves_diagonal_tile_open = true; },
     .named = {"tile of the diagonal", "causal mask"}},
    {.name = "window one key wider",
     .source = "transformers #39408 #29623, vllm #3385",
     .needs = window,
     .in_kernel = [](Kernel&, Setup& seen) { ++seen.spec.window_left; },
     .named = {"window_left one key too wide"}},
    {.name = "window one key narrower",
     .source = "zml #763",
     .needs = window,
     .in_kernel = [](Kernel&, Setup& seen) { --seen.spec.window_left; },
     .named = {"window_left one key short"}},
    {.name = "window missing",
     .source = "an option accepted, never applied",
     .needs = window,
     .in_kernel = [](Kernel&, Setup& seen) { seen.spec.window_left = -1; },
     .named = {"window_left ignored"}},
    {.name = "right window missing",
     .source = "(W, W) for (W - 1, 0)",
     .needs = right_window,
     .in_kernel = [](Kernel&, Setup& seen) { seen.spec.window_right = -1; },
     .named = {"window_right ignored"}},
    {.name = "right window one key wider",
     .source = "(W, W) for (W - 1, 0)",
     .needs = right_window,
     .in_kernel = [](Kernel&, Setup& seen) { ++seen.spec.window_right; },
     .named = {"window_right one key too wide"}},
    {.name = "window about the top-left diagonal",
     .source = "a window shifted by Sq - Sk",
     .needs =
         [](Setup& s) {
           ragged_causal(s);
           s.spec.window_left = s.keys / 3;
         },
     .in_kernel = [](Kernel&, Setup& seen) { seen.spec.causal = Causal::top_left; },
     .named = {"top-left", "top_left", "wrong corner"}},
    {.name = "padding unmasked",
     .source = "flashinfer #5090, pytorch #159247",
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.attends_to_padding = true; },
     .named = {"keys of zeros take weight", "key of zeros takes weight"}},
    {.name = "last tile never visited",
     .source = "seqlen / tile rounded down",
     .in_kernel = [](Kernel& k,
                     Setup&) { k.mistakes.drops_tile = true, k.mistakes.where = Where::last_tile; },
     .named = {"the last tile of", "missing"}},
    {.name = "mask missing",
     .source = "an option accepted, never applied",
     .needs = mask,
     .in_kernel = [](Kernel&, Setup& seen) { seen.has_mask = false; },
     .named = {"in/mask ignored"}},
    {.name = "mask inverted",
     .source = "Ascend's mask 1 = masked, others' 1 = attend",
     .needs = mask,
     .in_reads =
         [](Case& read) {
           for (double& x : read.in.at("mask").values) x = 1 - x;
         },
     .named = {"mask inverted", "in/mask the other way"}},
    {.name = "mask of the row before",
     .source = "a stride of the mask off by one row",
     .needs = mask,
     .in_reads =
         [](Case& read) {
           reorder(read.in.at("mask"),
                   [](Index h, Index i, Index, Index rows) { return h * rows + std::max<Index>(i - 1, 0); });
         },
     .named = {"in/mask of another row", "in/mask of row"}},
    {.name = "hidden keys at -5",
     .source = "a finite number in place of -inf",
     .needs = causal,
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.hidden_score = -5; },
     .named = {"masked keys take weight, as with a score of -5"}},
    {.name = "hidden keys at -20",
     .source = "a finite number in place of -inf",
     .needs = causal,
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.hidden_score = -20; },
     .named = {"hidden keys", "masked keys"}},
    {.name = "empty rows average all keys",
     .source = "finfo.min as mask, pytorch #109517",
     .needs = mask,
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.hidden_score = -10000; },
     .named = {"the mean of V"}},
    {.name = "empty rows are NaN",
     .source = "pytorch #103963, mlx #2608",
     .needs = mask,
     .in_results =
         [](Results& r, const Setup& s) {
           for (std::size_t n = 0; n < r.lse.size(); ++n) {
             if (std::isinf(r.lse[n]))
               std::fill_n(r.o.begin() + static_cast<Index>(n) * s.v_width, s.v_width, std::nan(""));
           }
         },
     .named = {"NaN"}},
    {.name = "lse of empty rows is +inf",
     .source = "flash-attention 2, flashinfer #4484",
     .needs = mask,
     .in_results =
         [](Results& r, const Setup&) {
           for (double& x : r.lse) x = std::isinf(x) ? -x : x;
         },
     .named = {"infinity", "lse of empty rows", "lse of the other sign", "lse_empty = +inf"}},
    {.name = "heads modulo",
     .source = "onnx #7274, jax-js #180",
     .needs = groups,
     .in_kernel = [](Kernel& k,
                     Setup&) { k.mistakes.kv_head = [](Index h, Index, Index kv) { return h % kv; }; },
     .named = {"head h mod Hkv"}},
    {.name = "heads divided by Hkv",
     .source = "ONNXim #34",
     .needs = groups,
     .in_kernel =
         [](Kernel& k, Setup&) {
           k.mistakes.kv_head = [](Index h, Index, Index kv) { return std::min(h / kv, kv - 1); };
         },
     .named = {"key/value head h /", "reads key/value head"}},
    {.name = "all heads read key/value head 0",
     .source = "a stride of 0",
     .needs = groups,
     .in_kernel = [](Kernel& k,
                     Setup&) { k.mistakes.kv_head = [](Index, Index, Index) { return Index{0}; }; },
     .named = {"key/value head 0", "reads key/value head"}},
    {.name = "v of the row before",
     .source = "strides assumed, flash-attention #2665",
     .in_reads =
         [](Case& read) {
           reorder(read.in.at("v"),
                   [](Index h, Index j, Index, Index rows) { return h * rows + std::max<Index>(j - 1, 0); });
         },
     .named = {"row of V", "rows of V", "V of another key"}},
    {.name = "one stale row of v",
     .source = "vllm #42494, a stale page",
     .in_reads =
         [](Case& read) {
           const Index at = read.in.at("v").shape[2] / 2;
           reorder(read.in.at("v"),
                   [=](Index h, Index j, Index, Index rows) { return h * rows + (j == at ? j - 1 : j); });
         },
     .named = {"row of V that key"}},
    {.name = "one stale row of k",
     .source = "vllm #42494, a stale page",
     .in_reads =
         [](Case& read) {
           const Index at = read.in.at("k").shape[2] / 2;
           reorder(read.in.at("k"),
                   [=](Index h, Index j, Index, Index rows) { return h * rows + (j == at ? j - 1 : j); });
         },
     .named = {"row of K that key", "row of K"}},
    {.name = "v read as [Sk, Hkv, E]",
     .source = "strides of another layout, flash-attention #2666",
     .in_reads =
         [](Case& read) {
           reorder(read.in.at("v"), [](Index h, Index j, Index heads, Index) { return j * heads + h; });
         },
     .named = {"layout"}},
};

}  // namespace

Family mask_faults() {
  return {"masks and indices", faults};
}

}  // namespace attest::emulate
