// Faults to plant in an emulated kernel.
#include "tests/emulate/faults.hpp"

#include <algorithm>
#include <cassert>
#include <limits>
#include <numbers>

namespace attest::emulate {
namespace {

using Row = void (*)(Results&, const Setup&);

Index middle_row(const Setup& setup) {
  return (setup.queries / 2) * setup.v_width;
}

void low_precision_sum(Kernel& kernel, DType dtype) {
  kernel.pv.kind = Adder::Kind::blocked;
  kernel.pv.dtype = dtype;
}

const Fault faults[] = {
    {"scale times 1.01", [](Kernel&, Setup& seen) { seen.spec.scale *= 1.01; }, nullptr},
    {"scale times 1.001", [](Kernel&, Setup& seen) { seen.spec.scale *= 1.001; }, nullptr},
    {"causal sees one key more", [](Kernel& k, Setup&) { k.mistakes.diagonal_shift = 1; }, nullptr},
    {"causal sees one key less", [](Kernel& k, Setup&) { k.mistakes.diagonal_shift = -1; }, nullptr},
    {"window one key wider", [](Kernel&, Setup& seen) { ++seen.spec.window_left; }, nullptr},
    {"window one key narrower", [](Kernel&, Setup& seen) { --seen.spec.window_left; }, nullptr},
    {"softcap missing", [](Kernel&, Setup& seen) { seen.spec.softcap = 0; }, nullptr},
    {"sink missing", [](Kernel&, Setup& seen) { seen.has_sink = false; }, nullptr},
    {"bias missing", [](Kernel&, Setup& seen) { seen.bias_shape.clear(); }, nullptr},
    {"alibi missing", [](Kernel&, Setup& seen) { seen.has_alibi = false; }, nullptr},
    {"mask missing", [](Kernel&, Setup& seen) { seen.has_mask = false; }, nullptr},
    {"heads modulo", [](Kernel& k, Setup&) { k.mistakes.heads_modulo = true; }, nullptr},
    {"tile dropped", [](Kernel& k, Setup&) { k.mistakes.drops_tile = true; }, nullptr},
    {"tile twice", [](Kernel& k, Setup&) { k.mistakes.repeats_tile = true; }, nullptr},
    {"rescale missed", [](Kernel& k, Setup&) { k.mistakes.misses_rescale = true; }, nullptr},
    {"padding unmasked", [](Kernel& k, Setup&) { k.mistakes.attends_to_padding = true; }, nullptr},
    {"scores in bfloat16", [](Kernel& k, Setup&) { k.mistakes.scores_in_bfloat16 = true; }, nullptr},
    {"p in float8_e4m3fn", [](Kernel& k, Setup&) { k.p_dtype = DType::float8_e4m3fn; }, nullptr},
    {"p in bfloat16", [](Kernel& k, Setup&) { k.p_dtype = DType::bfloat16; }, nullptr},
    {"pv sum in float16", [](Kernel& k, Setup&) { low_precision_sum(k, DType::float16); }, nullptr},
    {"pv sum in bfloat16", [](Kernel& k, Setup&) { low_precision_sum(k, DType::bfloat16); }, nullptr},
    {"delta missing", [](Kernel& k, Setup&) { k.mistakes.drops_delta = true; }, nullptr},
    {"dk without scale", [](Kernel& k, Setup&) { k.mistakes.forgets_scale_of_dk = true; }, nullptr},
    {"dq loses a tile", [](Kernel& k, Setup&) { k.mistakes.drops_tile_of_dq = true; }, nullptr},
    {"lse in base 2", nullptr,
     [](Results& r, const Setup&) {
       for (double& x : r.lse) x = round_to(x * std::numbers::log2e, DType::float32);
     }},
    {"o is zero", nullptr, [](Results& r, const Setup&) { std::fill(r.o.begin(), r.o.end(), 0.0); }},
    {"o has a stale row", nullptr,
     [](Results& r, const Setup& setup) {
       const auto row = r.o.begin() + middle_row(setup);
       std::copy(row - setup.v_width, row, row);
     }},
    {"o has a NaN", nullptr,
     [](Results& r, const Setup& setup) {
       r.o[middle_row(setup)] = std::numeric_limits<double>::quiet_NaN();
     }},
    {"o has a flipped exponent bit", nullptr,
     [](Results& r, const Setup& setup) {
       double& x = r.o[middle_row(setup)];
       const Format& f = format_of(setup.element);
       const int lowest_exponent_bit = f.precision - 1;
       x = decode(encode(x, setup.element) ^ (std::uint64_t{1} << lowest_exponent_bit), setup.element);
     }},
};

}  // namespace

std::span<const Fault> all_faults() {
  return faults;
}

const Fault& fault_named(std::string_view name) {
  const auto fault =
      std::find_if(std::begin(faults), std::end(faults), [&](const Fault& f) { return f.name == name; });
  assert(fault != std::end(faults));
  return *fault;
}

Case faulty_dump_of(const Setup& setup, const Kernel& kernel, const Fault& fault, bool with_gradients,
                    const std::vector<std::string>& outputs) {
  Case c = inputs_of(setup, kernel.p_dtype);
  if (!with_gradients) c.in.erase("do");
  Setup seen = setup;
  Kernel broken = kernel;
  if (fault.in_kernel) fault.in_kernel(broken, seen);
  AttentionInputs in = views_of(c);
  if (!seen.has_sink) in.sink = {};
  if (!seen.has_mask) in.mask = {};
  if (!seen.has_alibi) in.alibi_slopes = {};
  if (seen.bias_shape.empty()) in.bias = {};
  View<const double, 3> d_o;
  if (with_gradients) d_o = {c.in.at("do").values.data(), {setup.q_heads, setup.queries, setup.v_width}};
  Results results = run(broken, seen.spec, in, d_o, setup.element);
  if (fault.in_results) fault.in_results(results, setup);
  store(c, results, outputs, setup.element, kernel.p_dtype);
  return c;
}

}  // namespace attest::emulate
