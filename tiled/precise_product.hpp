// The one product that double-double attention is made of: C = A B with A in double, B and C in
// double-double.
//
// Terms are not added up by two_sum, which costs six operations, but on a grid: a sum s that starts from
// 1.5 2^k stays between 2^k and 2^(k+1), as long as the terms add up to less than 2^(k-1), so
//   t = fma(a, b, s)       rounds the sum to a multiple of g = 2^(k-52),
//   t - s                  is exact, what reached the grid of this term,
//   fma(a, b, s - t)       is what did not, at most g / 2, and goes into a second sum.
// Four operations a term. k comes from sum |a b| in plain double, hence a fifth; that sum is also what the
// error of C is measured by: see docs/double_double.md.
#pragma once

#include "tiled/double_double_simd.hpp"

namespace attest::tiled::ATTEST_TILED_LEVEL {

/// Lanes of all B and C: the unit of work.
constexpr Index panel_vectors_wide = 2, panel_lanes = panel_vectors_wide * double_lanes;

/// A matrix of [any, panel_lanes] numbers hi + lo and, for each, a magnitude.
struct WidePanel {
  double *hi, *lo, *magnitude;

  ATTEST_ALWAYS_INLINE Wide at(Index row, Index x) const {
    const Index n = row * panel_lanes + x * double_lanes;
    return {load(hi + n), load(lo + n)};
  }
  ATTEST_ALWAYS_INLINE void set(Index row, Index x, Wide value) const {
    const Index n = row * panel_lanes + x * double_lanes;
    store(hi + n, value.hi);
    store(lo + n, value.lo);
  }
  ATTEST_ALWAYS_INLINE double* magnitudes(Index row, Index x) const {
    return magnitude + row * panel_lanes + x * double_lanes;
  }
};

/// A(m, k) = a[m * row_stride + k * step_stride].
struct WideFactor {
  const double* a;
  Index row_stride, step_stride;
};

/// 1.5 2^k with 2^(k-1) > sum; NaN where the sum is 2^1021 or more, or NaN.
ATTEST_ALWAYS_INLINE Doubles grid_origin(Doubles sum) {
  const Doubles enlarged = sum * 1.0001, largest = broadcast(0x1p1022);
  const Doubles limited = enlarged < largest ? enlarged : largest;
  return (Doubles)((((Longs)limited & 0x7ff0000000000000) + (Longs{} + (Index{2} << 52))) |
                   0x0008000000000000);
}

/// s + c += a (b.hi + b.lo).
template <bool has_lo>
ATTEST_ALWAYS_INLINE void add_product(Doubles a, Wide b, Doubles& s, Doubles& c) {
  Doubles left;
  if constexpr (has_fused) {
    const Doubles t = multiply_add(a, b.hi, s);
    left = multiply_add(a, b.hi, s - t);
    s = t;
  } else {
    const Wide p = two_product(a, b.hi);
    const Doubles t = s + p.hi;
    left = ((s - t) + p.hi) + p.lo;
    s = t;
  }
  if constexpr (has_lo) left = multiply_add(a, b.lo, left);
  c += left;
}

/// What of c is a multiple of the grid moves into s.
ATTEST_ALWAYS_INLINE void carry(Doubles& s, Doubles& c) {
  const Doubles t = s + c;
  c += s - t;
  s = t;
}

constexpr Index steps_between_carries = 8;

/// `rows` rows of C; a magnitude of C is the sum of |a| times the magnitudes of B. accumulate: C += A B.
template <int rows, bool has_lo, bool accumulate>
ATTEST_ALWAYS_INLINE void multiply_rows(Index depth, WideFactor a, const WidePanel& b, const WidePanel& c,
                                        Index first_row) {
  constexpr int vectors = panel_vectors_wide;
  Doubles magnitude[rows][vectors] = {}, origin[rows][vectors], s[rows][vectors], rest[rows][vectors] = {};
  const double* const first = a.a + first_row * a.row_stride;
  for (Index k = 0; k < depth; ++k) {
    Doubles factor[vectors];
#pragma GCC unroll 2
    for (int x = 0; x < vectors; ++x) factor[x] = load(b.magnitudes(k, x));
#pragma GCC unroll 4
    for (int m = 0; m < rows; ++m) {
      const Doubles size = absolute(broadcast(first[m * a.row_stride + k * a.step_stride]));
#pragma GCC unroll 2
      for (int x = 0; x < vectors; ++x) magnitude[m][x] = multiply_add(size, factor[x], magnitude[m][x]);
    }
  }
#pragma GCC unroll 4
  for (int m = 0; m < rows; ++m) {
#pragma GCC unroll 2
    for (int x = 0; x < vectors; ++x) s[m][x] = origin[m][x] = grid_origin(magnitude[m][x]);
  }
  for (Index k = 0; k < depth;) {
    const Index next = least(k + steps_between_carries, depth);
    for (; k < next; ++k) {
      Wide factor[vectors];
#pragma GCC unroll 2
      for (int x = 0; x < vectors; ++x) {
        const Index n = k * panel_lanes + x * double_lanes;
        factor[x].hi = load(b.hi + n);
        factor[x].lo = has_lo ? load(b.lo + n) : Doubles{};
      }
#pragma GCC unroll 4
      for (int m = 0; m < rows; ++m) {
        const Doubles value = broadcast(first[m * a.row_stride + k * a.step_stride]);
#pragma GCC unroll 2
        for (int x = 0; x < vectors; ++x) add_product<has_lo>(value, factor[x], s[m][x], rest[m][x]);
      }
    }
#pragma GCC unroll 4
    for (int m = 0; m < rows; ++m) {
#pragma GCC unroll 2
      for (int x = 0; x < vectors; ++x) carry(s[m][x], rest[m][x]);
    }
  }
#pragma GCC unroll 4
  for (int m = 0; m < rows; ++m) {
#pragma GCC unroll 2
    for (int x = 0; x < vectors; ++x) {
      Wide sum = fast_two_sum(s[m][x] - origin[m][x], rest[m][x]);
      double* const size = c.magnitudes(first_row + m, x);
      if constexpr (accumulate) {
        sum = add(c.at(first_row + m, x), sum);
        magnitude[m][x] += load(size);
      }
      c.set(first_row + m, x, sum);
      store(size, magnitude[m][x]);
    }
  }
}

/// C[rows, panel_lanes] = or += A[rows, depth] B[depth, panel_lanes].
template <bool has_lo, bool accumulate>
void multiply_panel(Index rows, Index depth, WideFactor a, const WidePanel& b, const WidePanel& c) {
  constexpr int block = vector_registers == 32 ? 4 : 2;
  Index row = 0;
  for (; row + block <= rows; row += block) {
    multiply_rows<block, has_lo, accumulate>(depth, a, b, c, row);
  }
  for (; row < rows; ++row) multiply_rows<1, has_lo, accumulate>(depth, a, b, c, row);
}

}  // namespace attest::tiled::ATTEST_TILED_LEVEL
