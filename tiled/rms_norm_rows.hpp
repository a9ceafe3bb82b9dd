// RMSNorm of some rows, forward and backward. Each row is read from memory once, for its sum, and again from
// the caches, for its result; while one is written, the next is fetched.
#pragma once

#include "tiled/row_kernels.hpp"
#include "tiled/rows.hpp"

namespace attest::tiled::ATTEST_TILED_LEVEL {

/// Sums that grow side by side, to hide the latency of an addition.
constexpr int chains = 8;

template <class Real>
struct ChainedSum {
  Vector<Real> sums[chains];

  /// The sum of all lanes: of the chains, then of the lanes, one after the other.
  ATTEST_ALWAYS_INLINE Real total() const {
    Vector<Real> sum = sums[0];
#pragma GCC unroll 8
    for (int c = 1; c < chains; ++c) sum += sums[c];
    Real result = sum[0];
    for (int n = 1; n < lanes<Real>; ++n) result += sum[n];
    return result;
  }
};

/// Calls whole(c, j) for each vector of a row that is whole, c counting the chains, and part(j, count) for
/// what is left.
template <class Real, class Whole, class Part>
ATTEST_ALWAYS_INLINE void for_row(Index width, const Whole& whole, const Part& part) {
  constexpr Index step = chains * lanes<Real>;
  Index j = 0;
  for (; j + step <= width; j += step) {
#pragma GCC unroll 8
    for (int c = 0; c < chains; ++c) whole(c, j + c * lanes<Real>);
  }
  for (; j + lanes<Real> <= width; j += lanes<Real>) whole(0, j);
  if (j < width) part(j, width - j);
}

template <class Real>
ATTEST_ALWAYS_INLINE Real sum_of_squares(const Real* x, const Real* next, Index width) {
  ChainedSum<Real> sum{};
  const auto add = [&](int c, Vector<Real> v) ATTEST_INLINE_LAMBDA { sum.sums[c] += v * v; };
  for_row<Real>(
      width,
      [&](int c, Index j) ATTEST_INLINE_LAMBDA {
        add(c, load(x + j));
        if (c % 2 == 0) prefetch(next + j);
      },
      [&](Index j, Index count) ATTEST_INLINE_LAMBDA { add(0, load_part(x + j, count)); });
  return sum.total();
}

template <class Real, bool streams>
void rms_norm_forward_rows(const RmsNormRows<Real>& in, Index first, Index last) {
  for (Index i = first; i < last; ++i) {
    const Real* const x = in.x.at(i);
    const Real* const next = in.x.at(i + 1 < in.rows ? i + 1 : i);
    const double mean_square = sum_of_squares(x, next, in.width) / static_cast<double>(in.width);
    const Real rstd = static_cast<Real>(1 / __builtin_sqrt(mean_square + in.eps));
    if (in.rstd.data) *in.rstd.at(i) = rstd;
    if (!in.y.data) continue;
    Real* const y = in.y.at(i);
    for_row<Real>(
        in.width,
        [&](int c, Index j) ATTEST_INLINE_LAMBDA {
          put<streams>(y + j, load(x + j) * rstd * load(in.gain + j));
          if (c % 2 != 0) prefetch(next + j);
        },
        [&](Index j, Index count) ATTEST_INLINE_LAMBDA {
          store_part(y + j, load_part(x + j, count) * rstd * load_part(in.gain + j, count), count);
        });
  }
  end_streams<streams>();
}

template <class Real>
void rms_norm_forward(const RmsNormRows<Real>& in, Index first, Index last) {
  if (in.y_is_large && is_aligned(in.y.data) && is_whole_vectors<Real>(in.y.stride)) {
    rms_norm_forward_rows<Real, true>(in, first, last);
  } else {
    rms_norm_forward_rows<Real, false>(in, first, last);
  }
}

/// With t = dy x: dweight = sum_i rstd t, and dx = rstd (gain dy - x rstd^2 mean(gain t)).
template <class Real, bool streams>
void rms_norm_backward_rows(const RmsNormGradientRows<Real>& in, Index first, Index last, Real* dweight) {
  for (Index j = 0; j < in.width; ++j) dweight[j] = 0;
  for (Index i = first; i < last; ++i) {
    const Real *const x = in.x.at(i), *const dy = in.dy.at(i), *const gain = in.gain;
    const Index next = i + 1 < in.rows ? i + 1 : i;
    const Real *const next_x = in.x.at(next), *const next_dy = in.dy.at(next);
    const Real rstd = *in.rstd.at(i);
    ChainedSum<Real> sum{};
    for_row<Real>(
        in.width,
        [&](int c, Index j) ATTEST_INLINE_LAMBDA {
          const Vector<Real> t = load(dy + j) * load(x + j);
          sum.sums[c] += load(gain + j) * t;
          store(dweight + j, load(dweight + j) + rstd * t);
          prefetch(next_x + j);
        },
        [&](Index j, Index count) ATTEST_INLINE_LAMBDA {
          const Vector<Real> t = load_part(dy + j, count) * load_part(x + j, count);
          sum.sums[0] += load_part(gain + j, count) * t;
          store_part(dweight + j, load_part(dweight + j, count) + rstd * t, count);
        });
    if (!in.dx.data) continue;
    const double twice = rstd;
    const Real factor = static_cast<Real>(twice * twice * (sum.total() / static_cast<double>(in.width)));
    Real* const dx = in.dx.at(i);
    for_row<Real>(
        in.width,
        [&](int, Index j) ATTEST_INLINE_LAMBDA {
          put<streams>(dx + j, rstd * (load(gain + j) * load(dy + j) - load(x + j) * factor));
          prefetch(next_dy + j);
        },
        [&](Index j, Index count) ATTEST_INLINE_LAMBDA {
          const Vector<Real> g = load_part(gain + j, count) * load_part(dy + j, count);
          store_part(dx + j, rstd * (g - load_part(x + j, count) * factor), count);
        });
  }
  end_streams<streams>();
}

template <class Real>
void rms_norm_backward(const RmsNormGradientRows<Real>& in, Index first, Index last, Real* dweight) {
  if (in.dx_is_large && is_aligned(in.dx.data) && is_whole_vectors<Real>(in.dx.stride)) {
    rms_norm_backward_rows<Real, true>(in, first, last, dweight);
  } else {
    rms_norm_backward_rows<Real, false>(in, first, last, dweight);
  }
}

}  // namespace attest::tiled::ATTEST_TILED_LEVEL
