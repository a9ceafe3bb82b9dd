// The double-double functions of one instruction set level. This file is compiled once for each: see
// simd.hpp.
#include "tiled/precise_backward.hpp"
#include "tiled/precise_forward.hpp"

namespace attest::tiled::ATTEST_TILED_LEVEL {
namespace {

Index precise_scratch(Index d, Index e) {
  return panel_lanes * (5 * d + 5 * e + 8 * wide_tile);
}

template <Wide (*function)(Wide)>
void for_all(const double* x_hi, const double* x_lo, double* y_hi, double* y_lo, Index n) {
  for (Index i = 0; i < n; i += double_lanes) {
    const Wide y = function({load(x_hi + i), load(x_lo + i)});
    store(y_hi + i, y.hi);
    store(y_lo + i, y.lo);
  }
}
Wide tanh_alone(Wide x) {
  return tanh_and_slope(x).tanh;
}

constexpr PreciseKernels kernels = {
    panel_lanes,           precise_scratch, precise_forward, precise_backward_queries,
    precise_backward_keys, for_all<exp>,    for_all<log>,    for_all<tanh_alone>,
};

}  // namespace

extern const PreciseKernels* const precise_kernels;
constinit const PreciseKernels* const precise_kernels = &kernels;

}  // namespace attest::tiled::ATTEST_TILED_LEVEL
