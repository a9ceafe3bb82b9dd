// What the kernels of RMSNorm and RoPE read and write, and the table of them that an instruction set level
// offers. No inline functions here but templates that are always inlined: see simd.hpp.
#pragma once

#include "core/rope.hpp"
#include "tiled/problem.hpp"

namespace attest::tiled {

/// Rows whose columns lie side by side. data is null if they were not given.
template <class Real>
struct RowMajor {
  Real* data;
  Index stride;

  __attribute__((always_inline)) Real* at(Index i) const { return data + i * stride; }
};

/// The same in heads.
template <class Real>
struct RowMajorHeads {
  Real* data;
  Index head_stride, row_stride;

  __attribute__((always_inline)) Real* at(Index h, Index i) const {
    return data + h * head_stride + i * row_stride;
  }
};

// An output that is large leaves the caches before anybody reads it: it is written past them, if rows and
// vectors are aligned alike. The results are the same.

template <class Real>
struct RmsNormRows {
  Index rows, width;
  double eps;
  const Real* gain;        // [N], weight + weight_offset
  RowMajor<const Real> x;  // [R, N]
  RowMajor<Real> y;        // [R, N]; optional
  Column<Real> rstd;       // [R]; optional
  bool y_is_large;
};

template <class Real>
struct RmsNormGradientRows {
  Index rows, width;
  const Real* gain;            // [N]
  RowMajor<const Real> x, dy;  // [R, N]
  Column<const Real> rstd;     // [R]
  RowMajor<Real> dx;           // [R, N]; optional
  bool dx_is_large;
};

template <class Real>
struct RopeRows {
  RopeSpec spec;
  Index columns;                  // D
  Real direction;                 // 1 or -1: the angle's sign
  RowMajorHeads<const Real> x;    // [H, S, D]
  RowMajor<const Real> cos, sin;  // [S, R/2]
  RowMajorHeads<Real> y;          // [H, S, D]
  bool y_is_large;
};

template <class Real>
struct RowKernels {
  void (*rms_norm_forward)(const RmsNormRows<Real>&, Index first, Index last);
  // dweight[N] of these rows only
  void (*rms_norm_backward)(const RmsNormGradientRows<Real>&, Index first, Index last, Real* dweight);
  void (*rope)(const RopeRows<Real>&, Index first_head, Index last_head, Index first, Index last);
  // For benchmarks: n elements, a multiple of 64, past the caches, between addresses that 64 divides.
  void (*copy)(const Real* from, Real* to, Index n);
};

}  // namespace attest::tiled
