// RMSNorm and RoPE of one instruction set level. This file is compiled once for each: see simd.hpp.
#include "tiled/row_kernels.hpp"

#include "tiled/rms_norm_rows.hpp"
#include "tiled/rope_rows.hpp"

namespace attest::tiled::ATTEST_TILED_LEVEL {
namespace {

template <class Real>
void copy(const Real* from, Real* to, Index n) {
  for (Index i = 0; i < n; i += 4 * lanes<Real>) {
#pragma GCC unroll 4
    for (int k = 0; k < 4; ++k) stream(to + i + k * lanes<Real>, load(from + i + k * lanes<Real>));
  }
  end_streams<true>();
}

template <class Real>
constexpr RowKernels<Real> row_kernels = {rms_norm_forward<Real>, rms_norm_backward<Real>, rope<Real>,
                                          copy<Real>};

}  // namespace

extern const RowKernels<float>* const float_row_kernels;
extern const RowKernels<double>* const double_row_kernels;
constinit const RowKernels<float>* const float_row_kernels = &row_kernels<float>;
constinit const RowKernels<double>* const double_row_kernels = &row_kernels<double>;

}  // namespace attest::tiled::ATTEST_TILED_LEVEL
