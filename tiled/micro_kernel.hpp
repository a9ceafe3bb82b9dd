// The one matrix product of this room: a block of C stays in registers while one row of B after another is
// loaded and one element of A after another is broadcast.
#pragma once

#include "tiled/simd.hpp"

namespace attest::tiled::ATTEST_TILED_LEVEL {

/// How A lies in memory: element (i, k) at a[i * stride + k], or transposed, at a[k * stride + i].
enum class Operand { plain, transposed };

template <class Real>
struct Product {
  Index depth;  // K
  const Real* a;
  Index a_stride;
  const Real* b;  // [K, vectors * lanes]
  Index b_stride;
  Real* c;  // [rows, vectors * lanes]
  Index c_stride;
  bool accumulate;               // C += A B, or C = A B
  const Real* factor = nullptr;  // [rows]: C = diag(factor) C + A B, if given and accumulating
};

template <class Real, Operand operand, int rows, int vectors>
__attribute__((noinline)) void micro_kernel(const Product<Real>& x) {
  constexpr int w = lanes<Real>;
  const Real* __restrict a = x.a;
  const Real* __restrict b = x.b;
  Real* __restrict c = x.c;
  const Index depth = x.depth, a_stride = x.a_stride, b_stride = x.b_stride, c_stride = x.c_stride;

  Vector<Real> sum[rows][vectors];
  if (x.accumulate && x.factor) {
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 5
      for (int n = 0; n < vectors; ++n) sum[i][n] = x.factor[i] * load(c + i * c_stride + n * w);
    }
  } else if (x.accumulate) {
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 5
      for (int n = 0; n < vectors; ++n) sum[i][n] = load(c + i * c_stride + n * w);
    }
  } else {
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 5
      for (int n = 0; n < vectors; ++n) sum[i][n] = Vector<Real>{};
    }
  }
  for (Index k = 0; k < depth; ++k) {
    Vector<Real> row[vectors];
#pragma GCC unroll 5
    for (int n = 0; n < vectors; ++n) row[n] = load(b + k * b_stride + n * w);
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i) {
      const Real factor = operand == Operand::plain ? a[i * a_stride + k] : a[k * a_stride + i];
#pragma GCC unroll 5
      for (int n = 0; n < vectors; ++n) sum[i][n] += factor * row[n];
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < rows; ++i) {
#pragma GCC unroll 5
    for (int n = 0; n < vectors; ++n) store(c + i * c_stride + n * w, sum[i][n]);
  }
}

/// Rows of C that fit into the registers beside a row of B and a broadcast element of A. Wide and flat blocks
/// alike load once for two multiply-adds.
constexpr int block_rows(int vectors) {
  constexpr int wide[] = {0, 16, 12, 8, 6, 5}, narrow[] = {0, 8, 6, 4};
  return vector_registers == 32 ? wide[vectors] : narrow[vectors];
}
constexpr int most_vectors = vector_registers == 32 ? 5 : 3;

/// Of so many vectors, those that the next panel takes: panels are as even as they get. Four are best.
constexpr Index panel_vectors(Index vectors) {
  if (vectors <= most_vectors) return vectors;
  const Index panels = most_vectors == 5 ? (vectors + 3) / 4 : (vectors + most_vectors - 1) / most_vectors;
  return (vectors + panels - 1) / panels;
}

template <class Real, Operand operand, int rows, int vectors>
ATTEST_ALWAYS_INLINE Index blocks_of_rows(Product<Real>& x, Index left) {
  while (left >= rows) {
    micro_kernel<Real, operand, rows, vectors>(x);
    x.a += operand == Operand::plain ? rows * x.a_stride : rows;
    x.c += rows * x.c_stride;
    if (x.factor) x.factor += rows;
    left -= rows;
  }
  return left;
}

template <class Real, Operand operand, int vectors>
void multiply_panel(Product<Real> x, Index rows) {
  constexpr int block = block_rows(vectors);
  rows = blocks_of_rows<Real, operand, block, vectors>(x, rows);
  if constexpr (block > 8) rows = blocks_of_rows<Real, operand, 8, vectors>(x, rows);
  if constexpr (block > 4) rows = blocks_of_rows<Real, operand, 4, vectors>(x, rows);
  if constexpr (block > 2) rows = blocks_of_rows<Real, operand, 2, vectors>(x, rows);
  blocks_of_rows<Real, operand, 1, vectors>(x, rows);
}

/// C[rows, vectors * lanes] = or += A[rows, depth] B[depth, vectors * lanes]. Each element of C is one sum
/// over k in ascending order, which an accumulating product continues.
template <class Real, Operand operand>
void multiply(Product<Real> x, Index rows, Index vectors) {
  if (rows <= 0 || (x.depth <= 0 && x.accumulate)) return;
  while (vectors > 0) {
    const Index taken = panel_vectors(vectors);
    if (taken == 1) multiply_panel<Real, operand, 1>(x, rows);
    if (taken == 2) multiply_panel<Real, operand, 2>(x, rows);
    if (taken == 3) multiply_panel<Real, operand, 3>(x, rows);
    if constexpr (most_vectors > 3) {
      if (taken == 4) multiply_panel<Real, operand, 4>(x, rows);
      if (taken == 5) multiply_panel<Real, operand, 5>(x, rows);
    }
    x.b += taken * lanes<Real>;
    x.c += taken * lanes<Real>;
    vectors -= taken;
  }
}

/// The products of native arithmetic.
template <class Real>
struct NativeProducts {
  template <Operand operand>
  ATTEST_ALWAYS_INLINE void multiply(const Product<Real>& x, Index rows, Index vectors) const {
    ATTEST_TILED_LEVEL::multiply<Real, operand>(x, rows, vectors);
  }
};

}  // namespace attest::tiled::ATTEST_TILED_LEVEL
