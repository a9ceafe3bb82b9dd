// Faults of the loop over tiles of keys, and of merging split keys.
#include "tests/faults/fault.hpp"

namespace attest::emulate {
namespace {

void in_every_block(Kernel& k) {
  k.mistakes.where = Where::every_block;
}

const Fault tiles[] = {
    {.name = "tile dropped",
     .source = "a tile skipped in one block",
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.drops_tile = true; },
     .named = {"missing"}},
    {.name = "tile dropped for all rows",
     .source = "made up",
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.drops_tile = true, in_every_block(k); },
     .named = {"missing"}},
    {.name = "tile twice",
     .source = "llama.cpp #13438, a missing barrier",
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.repeats_tile = true; },
     .named = {"counted twice"}},
    {.name = "tile twice for all rows",
     .source = "like llama.cpp #13438",
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.repeats_tile = true, in_every_block(k); },
     .named = {"counted twice"}},
    {.name = "tile of v shifted by a row",
     .source = "an offset that wraps, fla #1080",
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.shifts_values = true; },
     .named = {"rows of V", "row of V", "V of"}},
    {.name = "tile of v stale",
     .source = "a missing barrier",
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.stale_values = true; },
     .named = {"V of", "rows of V", "row of V"}},
    {.name = "tile of v stale for all rows",
     .source = "like llama.cpp #13438",
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.stale_values = true, in_every_block(k); },
     .named = {"V of", "rows of V", "row of V"}},
    {.name = "tile of k stale",
     .source = "a missing barrier",
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.stale_keys = true; },
     .named = {"K of", "rows of K", "weights of keys"}},
    {.name = "tiles 4 below the maximum skipped",
     .source = "silent sparsity",
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.skips_below = 4; },
     .named = {"missing"}},
    {.name = "rescale missed",
     .source = "o not rescaled, one block",
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.misses_rescale = true; },
     .named = {"not rescaled"}},
    {.name = "rescale missed on every tile",
     .source = "like flash-attention #2082",
     .in_kernel = [](Kernel& k,
                     Setup&) { k.mistakes.misses_rescale = true, k.mistakes.where = Where::every_tile; },
     .named = {"P.V not rescaled"}},
    {.name = "rescale missed on the last tile",
     .source = "made up",
     .in_kernel = [](Kernel& k,
                     Setup&) { k.mistakes.misses_rescale = true, k.mistakes.where = Where::last_tile; },
     .named = {"not rescaled"}},
    {.name = "rescale of the row sum missed",
     .source = "made up",
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.misses_rescale_of_sum = true; },
     .named = {"=the row sum", "the row sum, or", "the row sum not rescaled"}},
    {.name = "both rescales missed",
     .source = "flash-attention #2082 #2174",
     .in_kernel =
         [](Kernel& k, Setup&) {
           k.mistakes.misses_rescale = k.mistakes.misses_rescale_of_sum = true,
           k.mistakes.where = Where::every_tile;
         },
     .named = {"not rescaled", "weights of keys"}},
    {.name = "o not divided by the row sum",
     .source = "made up: one block",
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.is_not_divided = true; },
     .named = {"not divided by the row sum"}},
    {.name = "stale maximum",
     .source = "weights relative to the maximum before",
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.stale_maximum = true; },
     .named = {"weights of keys", "rescaled"}},
    {.name = "maximum starts at 0",
     .source = "a finite start, flashinfer #4267",
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.first_maximum = 0; },
     .named = {"maximum"}},
    {.name = "no maximum",
     .source = "tt-metal #12661",
     .needs = [](Setup& s) { s.spec.scale *= 40; },
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.no_maximum = true; },
     .named = {"NaN", "infinity", "maximum"}},
};

void split(Setup& s) {
  s.has_sink = true;
}
void into_three(Kernel& k) {
  k.splits = 3;
}

const Fault merges[] = {
    {.name = "last split lost",
     .source = "vllm #39148",
     .in_kernel = [](Kernel& k, Setup&) { into_three(k), k.mistakes.drops_split = true; },
     .named = {"missing"}},
    {.name = "splits merged in base 2",
     .source = "sglang #40903",
     .in_kernel = [](Kernel& k, Setup&) { into_three(k), k.mistakes.merges_in_base_2 = true; },
     .named = {"weights of keys", "base 2"}},
    {.name = "mean of splits",
     .source = "made up",
     .in_kernel = [](Kernel& k, Setup&) { into_three(k), k.mistakes.averages_splits = true; },
     .named = {"with equal weights"}},
    {.name = "splits weighted by the next",
     .source = "made up",
     .in_kernel = [](Kernel& k, Setup&) { into_three(k), k.mistakes.weights_splits_by_next = true; },
     .named = {"lse of the next split"}},
    {.name = "split o in bfloat16",
     .source = "ring-flash-attention #22",
     .in_kernel = [](Kernel& k, Setup&) { into_three(k), k.mistakes.split_output = DType::bfloat16; },
     .named = {"in bfloat16"}},
    {.name = "split o in float16",
     .source = "like ring-flash-attention #22",
     .in_kernel = [](Kernel& k, Setup&) { into_three(k), k.mistakes.split_output = DType::float16; },
     .named = {"in float16"},
     .elements = {DType::float16, DType::float32}},
    {.name = "split lse in bfloat16",
     .source = "ring-flash-attention #22",
     .in_kernel = [](Kernel& k, Setup&) { into_three(k), k.mistakes.split_lse = DType::bfloat16; },
     .named = {"in bfloat16", "weights of keys"}},
    {.name = "split lse in float16",
     .source = "like ring-flash-attention #22",
     .in_kernel = [](Kernel& k, Setup&) { into_three(k), k.mistakes.split_lse = DType::float16; },
     .named = {"in float16", "weights of keys"}},
    {.name = "sink in every split",
     .source = "rocm-libraries #12227",
     .needs = split,
     .in_kernel = [](Kernel& k, Setup&) { into_three(k), k.mistakes.sink_per_split = true; },
     .named = {"in/sink"}},
};

}  // namespace

Family tile_faults() {
  return {"tiles", tiles};
}
Family merge_faults() {
  return {"split keys", merges};
}

}  // namespace attest::emulate
