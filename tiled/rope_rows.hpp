// Turns the pairs of some rows of some heads. The rows' table stays in the first cache while one head after
// the other uses it; while a row is written, the same row of the next head is fetched.
#pragma once

#include <utility>

#include "tiled/row_kernels.hpp"
#include "tiled/rows.hpp"

namespace attest::tiled::ATTEST_TILED_LEVEL {

/// The first and the second columns of as many pairs as a vector has lanes.
template <class Real>
struct Pairs {
  Vector<Real> first, second;
};

template <class Real>
ATTEST_ALWAYS_INLINE Pairs<Real> turned(const Pairs<Real>& x, Vector<Real> cos, Vector<Real> sin) {
  return {x.first * cos - x.second * sin, x.second * cos + x.first * sin};
}

/// Elements 0, 2, 4, ... and 1, 3, 5, ... of two vectors, and back.
template <class Real, int... n>
ATTEST_ALWAYS_INLINE Pairs<Real> unzipped(Vector<Real> a, Vector<Real> b, std::integer_sequence<int, n...>) {
  return {__builtin_shufflevector(a, b, (2 * n)...), __builtin_shufflevector(a, b, (2 * n + 1)...)};
}
template <class Real, int... n>
ATTEST_ALWAYS_INLINE Pairs<Real> zipped(Vector<Real> a, Vector<Real> b, std::integer_sequence<int, n...>) {
  constexpr int w = lanes<Real>;
  return {__builtin_shufflevector(a, b, (n / 2 + n % 2 * w)...),
          __builtin_shufflevector(a, b, ((n + w) / 2 + n % 2 * w)...)};
}

/// Pairs k, k + 1, ... of a row: x points to the first column of pair k, the second columns of the half style
/// are `distance` further on.
template <class Real, RopeStyle style>
ATTEST_ALWAYS_INLINE Pairs<Real> load_pairs(const Real* x, Index distance) {
  if constexpr (style == RopeStyle::half) return {load(x), load(x + distance)};
  return unzipped<Real>(load(x), load(x + lanes<Real>), std::make_integer_sequence<int, lanes<Real>>{});
}
template <class Real, RopeStyle style, bool streams>
ATTEST_ALWAYS_INLINE void put_pairs(Real* y, Index distance, Pairs<Real> pairs) {
  if constexpr (style == RopeStyle::interleaved) {
    pairs = zipped<Real>(pairs.first, pairs.second, std::make_integer_sequence<int, lanes<Real>>{});
    distance = lanes<Real>;
  }
  put<streams>(y, pairs.first);
  put<streams>(y + distance, pairs.second);
}

template <class Real, RopeStyle style, bool streams>
ATTEST_ALWAYS_INLINE void turn_row(const Real* x, const Real* next, const Real* cos, const Real* sin,
                                   Real direction, Index pairs, Index columns, Real* y) {
  constexpr Index w = lanes<Real>, step = style == RopeStyle::half ? 1 : 2;
  const Index distance = style == RopeStyle::half ? pairs : 1;
  Index k = 0;
  for (; k + w <= pairs; k += w) {
    const Pairs<Real> own = load_pairs<Real, style>(x + k * step, pairs);
    put_pairs<Real, style, streams>(y + k * step, pairs,
                                    turned<Real>(own, load(cos + k), load(sin + k) * direction));
    prefetch<2>(next + k * step, 0);
    prefetch<2>(next + k * step + (style == RopeStyle::half ? pairs : w), 0);
  }
  if (k < pairs) {
    const Index count = pairs - k;
    alignas(vector_bytes) Real first[w] = {}, second[w] = {};
    for (Index n = 0; n < count; ++n) {
      first[n] = x[(k + n) * step];
      second[n] = x[(k + n) * step + distance];
    }
    const Pairs<Real> own = turned<Real>({load(first), load(second)}, load_part(cos + k, count),
                                         load_part(sin + k, count) * direction);
    store(first, own.first);
    store(second, own.second);
    for (Index n = 0; n < count; ++n) {
      y[(k + n) * step] = first[n];
      y[(k + n) * step + distance] = second[n];
    }
  }
  Index d = 2 * pairs;
  for (; d + w <= columns; d += w) {
    put<streams>(y + d, load(x + d));
    prefetch<2>(next + d, 0);
  }
  if (d < columns) store_part(y + d, load_part(x + d, columns - d), columns - d);
}

template <class Real, RopeStyle style, bool streams>
void rope_rows(const RopeRows<Real>& in, Index first_head, Index last_head, Index first, Index last) {
  const Index pairs = in.spec.rotary_dim / 2;
  for (Index h = first_head; h < last_head; ++h) {
    const Index next_head = h + 1 < last_head ? h + 1 : h;
    for (Index i = first; i < last; ++i) {
      turn_row<Real, style, streams>(in.x.at(h, i), in.x.at(next_head, i), in.cos.at(i), in.sin.at(i),
                                     in.direction, pairs, in.columns, in.y.at(h, i));
    }
  }
  end_streams<streams>();
}

template <class Real, RopeStyle style>
ATTEST_ALWAYS_INLINE void rope_of_style(const RopeRows<Real>& in, Index first_head, Index last_head,
                                        Index first, Index last) {
  const Index turning = style == RopeStyle::half ? in.spec.rotary_dim / 2 : in.spec.rotary_dim;
  if (in.y_is_large && is_aligned(in.y.data) && is_whole_vectors<Real>(in.y.row_stride) &&
      is_whole_vectors<Real>(in.y.head_stride) && is_whole_vectors<Real>(turning)) {
    rope_rows<Real, style, true>(in, first_head, last_head, first, last);
  } else {
    rope_rows<Real, style, false>(in, first_head, last_head, first, last);
  }
}

template <class Real>
void rope(const RopeRows<Real>& in, Index first_head, Index last_head, Index first, Index last) {
  if (in.spec.style == RopeStyle::half) {
    rope_of_style<Real, RopeStyle::half>(in, first_head, last_head, first, last);
  } else {
    rope_of_style<Real, RopeStyle::interleaved>(in, first_head, last_head, first, last);
  }
}

}  // namespace attest::tiled::ATTEST_TILED_LEVEL
