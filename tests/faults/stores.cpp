// Faults of storing o: rows that are not written, or not with their own values, and damaged elements.
#include <algorithm>
#include <cmath>
#include <limits>

#include "tests/faults/fault.hpp"

namespace attest::emulate {
namespace {

Index middle_row(const Setup& setup) {
  return (setup.queries / 2) * setup.v_width;
}

void flip_bit(double& x, DType dtype, int bit) {
  x = decode(encode(x, dtype) ^ (std::uint64_t{1} << bit), dtype);
}

/// The last 16 rows of head 0, or all.
std::pair<Index, Index> last_rows(const Setup& s) {
  return {std::max<Index>(s.queries - 16, 0) * s.v_width, s.queries * s.v_width};
}

template <class From>
void reorder(Results& r, const Setup& s, From from) {
  const std::vector<double> old = r.o;
  for (Index n = 0; n < s.q_heads * s.queries; ++n)
    std::copy_n(&old[from(n / s.queries, n % s.queries) * s.v_width], s.v_width, &r.o[n * s.v_width]);
}

const Fault faults[] = {
    {.name = "o is zero",
     .source = "made up",
     .in_results = [](Results& r, const Setup&) { std::ranges::fill(r.o, 0.0); },
     .named = {"zeros, or nothing written"}},
    {.name = "last rows not written",
     .source = "made up",
     .in_results =
         [](Results& r, const Setup& s) {
           const auto [a, b] = last_rows(s);
           std::fill(r.o.begin() + a, r.o.begin() + b, 0.0);
         },
     .named = {"zeros, or nothing written"}},
    {.name = "last rows hold others' results",
     .source = "memory of the block before",
     .in_results =
         [](Results& r, const Setup& s) {
           const auto [a, b] = last_rows(s);
           if (a >= b - a) std::copy(r.o.begin() + a - (b - a), r.o.begin() + a, r.o.begin() + a);
         },
     .named = {"rows of o hold the results of those"}},
    {.name = "o has a stale row",
     .source = "like local-inference-lab/vllm #468",
     .in_results =
         [](Results& r, const Setup& s) {
           if (middle_row(s) == 0) return;
           const auto row = r.o.begin() + middle_row(s);
           std::copy(row - s.v_width, row, row);
         },
     .named = {"rows of o hold the results of those 1 row before"}},
    {.name = "rows shifted by one",
     .source = "like flash-attention #2665",
     .in_results =
         [](Results& r, const Setup& s) {
           reorder(r, s, [&](Index h, Index i) { return h * s.queries + std::max<Index>(i - 1, 0); });
         },
     .named = {"rows of o hold the results of those 1 row before"}},
    {.name = "heads exchanged",
     .source = "HipKittens #22",
     .in_results =
         [](Results& r, const Setup& s) {
           reorder(r, s, [&](Index h, Index i) { return (s.q_heads - 1 - h) * s.queries + i; });
         },
     .named = {"in head"}},
    {.name = "o stored as [Sq, Hq, E]",
     .source = "flash-attention #2665",
     .in_results =
         [](Results& r, const Setup& s) {
           reorder(r, s, [&](Index h, Index i) {
             const Index n = h * s.queries + i;
             return n % s.q_heads * s.queries + n / s.q_heads;
           });
         },
     .named = {"layout"}},
    {.name = "columns exchanged in pairs",
     .source = "a fragment layout",
     .in_results =
         [](Results& r, const Setup&) {
           for (std::size_t n = 1; n < r.o.size(); n += 2) std::swap(r.o[n - 1], r.o[n]);
         },
     .named = {"columns"}},
    {.name = "last column not written",
     .source = "a width that is padded",
     .in_results =
         [](Results& r, const Setup& s) {
           for (std::size_t n = s.v_width - 1; n < r.o.size(); n += s.v_width) r.o[n] = 0;
         },
     .named = {"zeros, or nothing written"}},
    {.name = "o has a NaN",
     .source = "vllm #47305",
     .in_results = [](Results& r,
                      const Setup& s) { r.o[middle_row(s)] = std::numeric_limits<double>::quiet_NaN(); },
     .named = {"NaN"}},
    {.name = "o has an infinity",
     .source = "flash-attention-npu #228",
     .in_results = [](Results& r,
                      const Setup& s) { r.o[middle_row(s)] = std::numeric_limits<double>::infinity(); },
     .named = {"infinity"}},
    {.name = "o has a flipped exponent bit",
     .source = "made up",
     .in_results =
         [](Results& r, const Setup& s) {
           flip_bit(r.o[middle_row(s)], s.element, format_of(s.element).precision - 1);
         },
     .named = {"one element", "a flipped bit", "a single element"}},
    {.name = "o has a flipped sign",
     .source = "made up",
     .in_results = [](Results& r, const Setup& s) { r.o[middle_row(s)] *= -1; },
     .named = {"one element", "a flipped bit", "a single element"}},
    {.name = "o has a flipped middle bit",
     .source = "made up",
     .in_results =
         [](Results& r, const Setup& s) {
           flip_bit(r.o[middle_row(s)], s.element, format_of(s.element).precision / 2);
         },
     .named = {"one element", "a flipped bit", "a single element"}},
    {.name = "o has a flipped last bit",
     .source = "as far off as a rounding",
     .in_results = [](Results& r, const Setup& s) { flip_bit(r.o[middle_row(s)], s.element, 0); },
     .named = {"one element", "a flipped bit", "a single element"}},
    {.name = "o averages v",
     .source = "KernelBench #165, a test that random outputs pass",
     .in_kernel = [](Kernel&, Setup& seen) { seen.spec.scale = 1e-30; },
     .named = {"the mean of V", "a scale 100 % too small"}},
    {.name = "o times 1.001",
     .source = "made up",
     .in_results =
         [](Results& r, const Setup& s) {
           for (double& x : r.o) x = round_to(x * 1.001, s.element);
         },
     .named = {"o multiplied by 1.0", "off by a factor"}},
    {.name = "o cut off",
     .source = "made up",
     .in_kernel = [](Kernel& k, Setup&) { k.mistakes.output_is_cut_off = true; },
     .named = {"cut off instead of rounded"}},
};

}  // namespace

Family store_faults() {
  return {"stores", faults};
}

}  // namespace attest::emulate
