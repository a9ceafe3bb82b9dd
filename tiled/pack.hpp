// Copies between the layout of the tensors and the layout of tiles.
#pragma once

#include <utility>

#include "tiled/problem.hpp"
#include "tiled/simd.hpp"

namespace attest::tiled::ATTEST_TILED_LEVEL {

/// In each 16 bytes: units of a and b by turns, from their lower or upper halves.
template <class Real, int unit, bool upper, int... lane>
ATTEST_ALWAYS_INLINE Vector<Real> interleave(Vector<Real> a, Vector<Real> b,
                                             std::integer_sequence<int, lane...>) {
  constexpr int w = lanes<Real>, quarter = 16 / sizeof(Real);
  return __builtin_shufflevector(a, b,
                                 (lane / unit % 2 * w + lane / quarter * quarter + (upper ? quarter / 2 : 0) +
                                  lane % quarter / (2 * unit) * unit + lane % unit)...);
}

/// Every other 16 bytes of a, then of b.
template <class Real, bool odd, int... lane>
ATTEST_ALWAYS_INLINE Vector<Real> every_other(Vector<Real> a, Vector<Real> b,
                                              std::integer_sequence<int, lane...>) {
  constexpr int quarter = 16 / sizeof(Real);
  return __builtin_shufflevector(a, b, ((lane / quarter * 2 + (odd ? 1 : 0)) * quarter + lane % quarter)...);
}

/// Transposes `lanes` vectors in registers: squares of 16 bytes, then their places. Every step is one
/// instruction that needs no table.
template <class Real>
ATTEST_ALWAYS_INLINE void transpose(Vector<Real>* rows) {
  constexpr int w = lanes<Real>, side = 16 / sizeof(Real), squares = w / side;
  using Lanes = std::make_integer_sequence<int, w>;
  constexpr Lanes all{};
#pragma GCC unroll 16
  for (int i = 0; i < w; i += 2) {
    const Vector<Real> a = rows[i], b = rows[i + 1];
    rows[i] = interleave<Real, 1, false>(a, b, all);
    rows[i + 1] = interleave<Real, 1, true>(a, b, all);
  }
  if constexpr (side == 4) {
#pragma GCC unroll 16
    for (int i = 0; i < w; i += 4) {
      const Vector<Real> a = rows[i], b = rows[i + 1], c = rows[i + 2], d = rows[i + 3];
      rows[i] = interleave<Real, 2, false>(a, c, all);
      rows[i + 1] = interleave<Real, 2, true>(a, c, all);
      rows[i + 2] = interleave<Real, 2, false>(b, d, all);
      rows[i + 3] = interleave<Real, 2, true>(b, d, all);
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < side && squares > 1; ++i) {
    Vector<Real>*x = rows + i, *y = x + side;
    const Vector<Real> even = every_other<Real, false>(*x, *y, all),
                       odd = every_other<Real, true>(*x, *y, all);
    if constexpr (squares == 2) {
      *x = even, *y = odd;
    } else {
      Vector<Real>*z = y + side, *last = z + side;
      const Vector<Real> even_2 = every_other<Real, false>(*z, *last, all),
                         odd_2 = every_other<Real, true>(*z, *last, all);
      *x = every_other<Real, false>(even, even_2, all);
      *y = every_other<Real, false>(odd, odd_2, all);
      *z = every_other<Real, true>(even, even_2, all);
      *last = every_other<Real, true>(odd, odd_2, all);
    }
  }
}

/// The sums of the lanes of each of `lanes` vectors: result[n] is that of rows[n], which are overwritten.
template <class Real>
ATTEST_ALWAYS_INLINE Vector<Real> sums_of_lanes(Vector<Real>* rows) {
  constexpr int w = lanes<Real>, side = 16 / sizeof(Real);
  constexpr std::make_integer_sequence<int, w> all{};
  int left = w;
#pragma GCC unroll 16
  for (int i = 0; i < w; i += 2) {
    rows[i / 2] = interleave<Real, 1, false>(rows[i], rows[i + 1], all) +
                  interleave<Real, 1, true>(rows[i], rows[i + 1], all);
  }
  left /= 2;
  if constexpr (side == 4) {
#pragma GCC unroll 16
    for (int i = 0; i < left; i += 2) {
      rows[i / 2] = interleave<Real, 2, false>(rows[i], rows[i + 1], all) +
                    interleave<Real, 2, true>(rows[i], rows[i + 1], all);
    }
    left /= 2;
  }
#pragma GCC unroll 2
  for (; left > 1; left /= 2) {
#pragma GCC unroll 4
    for (int i = 0; i < left; i += 2) {
      rows[i / 2] = every_other<Real, false>(rows[i], rows[i + 1], all) +
                    every_other<Real, true>(rows[i], rows[i + 1], all);
    }
  }
  return rows[0];
}

/// out[d * out_stride + i] = factor * in(i, d), and 0 for the rows from in.rows up to `padded_rows`, which is
/// a multiple of `lanes`.
template <class Real>
__attribute__((noinline)) void pack_transposed(const Matrix<const Real>& in, Index first_row, Index rows,
                                               Index padded_rows, Real factor, Real* out, Index out_stride) {
  constexpr Index w = lanes<Real>;
  alignas(vector_bytes) static constexpr Real no_row[w] = {};
  for (Index i = 0; i < padded_rows; i += w) {
    const Index filled = least(w, rows - i);
    Index d = 0;
    for (; in.column_stride == 1 && d + w <= in.columns; d += w) {
      Vector<Real> block[w];
      const Real* source = in.at(first_row + i, d);
#pragma GCC unroll 16
      for (Index n = 0; n < w; ++n) {
        block[n] = load(n < filled ? source + n * in.row_stride : no_row) * factor;
        __builtin_prefetch(source + (n + w) * in.row_stride);  // for the rows that follow
      }
      transpose<Real>(block);
#pragma GCC unroll 16
      for (Index n = 0; n < w; ++n) store(out + (d + n) * out_stride + i, block[n]);
    }
    for (; d < in.columns; ++d) {
      for (Index n = 0; n < w; ++n) {
        out[d * out_stride + i + n] = n < filled ? *in.at(first_row + i + n, d) * factor : Real{0};
      }
    }
  }
}

/// Rows that a product can read: consecutive columns, padded with zeros to `padded_columns` if that is more.
template <class Real>
struct Rows {
  const Real* data;
  Index stride;
};

/// Hands out pieces of scratch memory, aligned to 64 bytes; without memory it only counts.
template <class Real>
struct Pieces {
  Real* memory;
  Index used = 0;

  Real* take(Index n) {
    Real* const piece = memory ? memory + used : nullptr;
    used += round_up(n, 64 / static_cast<Index>(sizeof(Real)));
    return piece;
  }
};

/// n is a multiple of `lanes`.
template <class Real>
ATTEST_ALWAYS_INLINE void clear(Real* p, Index n) {
  for (Index i = 0; i < n; i += lanes<Real>) store(p + i, Vector<Real>{});
}

template <class Real>
__attribute__((noinline)) void copy_rows(const Matrix<const Real>& in, Index first, Index count,
                                         Index padded_columns, Real* copy) {
  constexpr Index w = lanes<Real>;
  for (Index j = 0; j < count; ++j) {
    Real* const row = copy + j * padded_columns;
    Index d = 0;
    for (; in.column_stride == 1 && d + w <= in.columns; d += w) store(row + d, load(in.at(first + j, d)));
    for (; d < padded_columns; ++d) row[d] = d < in.columns ? *in.at(first + j, d) : Real{0};
  }
}

/// out(i, d) = factor * row[d]; the row is padded to a multiple of `lanes`.
template <class Real>
ATTEST_ALWAYS_INLINE void write_row(const Real* row, Real factor, const Matrix<Real>& out, Index i) {
  constexpr Index w = lanes<Real>;
  Index d = 0;
  for (; out.column_stride == 1 && d + w <= out.columns; d += w) store(out.at(i, d), load(row + d) * factor);
  for (; d < out.columns; ++d) *out.at(i, d) = row[d] * factor;
}

/// The product of row i of a and of b.
template <class Real>
ATTEST_ALWAYS_INLINE Real dot(const Matrix<const Real>& a, const Matrix<const Real>& b, Index i) {
  constexpr Index w = lanes<Real>;
  Vector<Real> sums{};
  Index d = 0;
  for (; a.column_stride == 1 && b.column_stride == 1 && d + w <= a.columns; d += w) {
    sums += load(a.at(i, d)) * load(b.at(i, d));
  }
  Real sum = 0;
  for (Index lane = 0; lane < w; ++lane) sum += sums[lane];
  for (; d < a.columns; ++d) sum += *a.at(i, d) * *b.at(i, d);
  return sum;
}

/// May a product read the rows where they are? Vectors that straddle cache lines cost more than a copy.
template <class Real>
ATTEST_ALWAYS_INLINE bool is_readable(const Matrix<const Real>& in, Index padded_columns) {
  constexpr Index bytes = vector_bytes, size = sizeof(Real);
  return in.column_stride == 1 && in.columns == padded_columns && in.row_stride * size % bytes == 0 &&
         reinterpret_cast<std::intptr_t>(in.data) % bytes == 0;
}

/// `count` rows from `first` on: in place if they can be read there, or else copied to `copy`
/// [count, padded_columns].
template <class Real>
ATTEST_ALWAYS_INLINE Rows<Real> readable_rows(const Matrix<const Real>& in, Index first, Index count,
                                              Index padded_columns, Real* copy) {
  if (is_readable(in, padded_columns)) return {in.at(first, 0), in.row_stride};
  copy_rows(in, first, count, padded_columns, copy);
  return {copy, padded_columns};
}

/// The same for a product that broadcasts elements, which may lie anywhere in consecutive columns.
template <class Real>
ATTEST_ALWAYS_INLINE Rows<Real> unit_stride_rows(const Matrix<const Real>& in, Index first, Index count,
                                                 Real* copy) {
  if (in.column_stride == 1) return {in.at(first, 0), in.row_stride};
  copy_rows(in, first, count, in.columns, copy);
  return {copy, in.columns};
}

}  // namespace attest::tiled::ATTEST_TILED_LEVEL
