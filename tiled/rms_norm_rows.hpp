// RMSNorm of some rows, forward and backward. A row is read from memory for its sum, and again from the
// caches for its result. One pass does both, for two rows that follow each other: while it writes the results
// of one, it sums the next, so that memory is read and written at the same time, as in a copy.
#pragma once

#include <array>

#include "tiled/row_kernels.hpp"
#include "tiled/rows.hpp"

namespace attest::tiled::ATTEST_TILED_LEVEL {

/// Sums that grow side by side, to hide the latency of an addition.
constexpr int chains = 4;

/// Bytes. How far ahead rows are fetched is measured: forward into the second cache, backward, which reads
/// four rows at a time, nearer and into the first.
constexpr Index page = 4096;

template <class Real>
struct ChainedSum {
  Vector<Real> sums[chains] = {};

  /// The sum of all lanes: of the chains, then of the lanes, one after the other.
  ATTEST_ALWAYS_INLINE Real total() const {
    Vector<Real> sum = sums[0];
#pragma GCC unroll 4
    for (int c = 1; c < chains; ++c) sum += sums[c];
    Real result = sum[0];
    for (int n = 1; n < lanes<Real>; ++n) result += sum[n];
    return result;
  }
};

/// Reads and writes a vector of a row,
struct WholeVector {
  template <class Real>
  ATTEST_ALWAYS_INLINE Vector<Real> get(const Real* p) const {
    return load(p);
  }
  template <bool streams, class Real>
  ATTEST_ALWAYS_INLINE void set(Real* p, Vector<Real> x) const {
    put<streams>(p, x);
  }
};
/// or what is left of the row.
struct PartOfVector {
  Index count;

  template <class Real>
  ATTEST_ALWAYS_INLINE Vector<Real> get(const Real* p) const {
    return load_part(p, count);
  }
  template <bool streams, class Real>
  ATTEST_ALWAYS_INLINE void set(Real* p, Vector<Real> x) const {
    store_part(p, x, count);
  }
};

/// Calls body(c, j, vector) for each vector of a row, j its first column, c counting the chains.
template <class Real, class Body>
ATTEST_ALWAYS_INLINE void for_row(Index width, const Body& body) {
  constexpr Index step = chains * lanes<Real>;
  Index j = 0;
  for (; j + step <= width; j += step) {
#pragma GCC unroll 4
    for (int c = 0; c < chains; ++c) body(c, j + c * lanes<Real>, WholeVector{});
  }
  for (; j + lanes<Real> <= width; j += lanes<Real>) body(0, j, WholeVector{});
  if (j < width) body(0, j, PartOfVector{width - j});
}

template <class Real>
Real sum_of_squares(const Real* x, Index width) {
  ChainedSum<Real> sum;
  for_row<Real>(width, [&](int c, Index j, auto vector) ATTEST_INLINE_LAMBDA {
    const Vector<Real> v = vector.get(x + j);
    sum.sums[c] += v * v;
    prefetch<2>(x + j, page);
  });
  return sum.total();
}

/// y of a row, of which rstd is known, and the sum of squares of the next.
template <class Real, bool streams>
Real rms_norm_and_sum(const Real* x, const Real* gain, Real rstd, const Real* next, Index width, Real* y) {
  ChainedSum<Real> sum;
  for_row<Real>(width, [&](int c, Index j, auto vector) ATTEST_INLINE_LAMBDA {
    const Vector<Real> v = vector.get(next + j);
    sum.sums[c] += v * v;
    prefetch<2>(next + j, page);
    vector.template set<streams>(y + j, vector.get(x + j) * rstd * vector.get(gain + j));
  });
  return sum.total();
}

template <class Real, bool streams>
void rms_norm_forward_rows(const RmsNormRows<Real>& in, Index first, Index last) {
  Real sum = sum_of_squares(in.x.at(first), in.width);
  for (Index i = first; i < last; ++i) {
    const double mean_square = sum / static_cast<double>(in.width);
    const Real rstd = static_cast<Real>(1 / __builtin_sqrt(mean_square + in.eps));
    if (in.rstd.data) *in.rstd.at(i) = rstd;
    // The last row has no next: what it sums is not used.
    const Real* const next = in.x.at(i + 1 < last ? i + 1 : i);
    sum = in.y.data ? rms_norm_and_sum<Real, streams>(in.x.at(i), in.gain, rstd, next, in.width, in.y.at(i))
                    : sum_of_squares(next, in.width);
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

/// A row and what its gradient takes.
template <class Real>
struct GradientRow {
  const Real *x, *dy;
  Real* dx;
  Real rstd;
  Real factor;  // rstd^2 mean(gain dy x), once the row is summed
};
template <class Real, std::size_t count>
using GradientRows = std::array<GradientRow<Real>, count>;

/// With t = dy x: dweight += rstd t, and dx = rstd (gain dy - x factor). Writes dx of rows that are summed
/// while it sums others, which it returns with their factors. dweight is read and written once for all of
/// them.
template <bool writes, bool streams, class Real, std::size_t written_rows, std::size_t summed_rows>
GradientRows<Real, summed_rows> write_and_sum(GradientRows<Real, written_rows> written,
                                              GradientRows<Real, summed_rows> summed,
                                              const RmsNormGradientRows<Real>& in, Real* dweight) {
  std::array<ChainedSum<Real>, summed_rows> sums{};
  for_row<Real>(in.width, [&](int c, Index j, auto vector) ATTEST_INLINE_LAMBDA {
    const Vector<Real> gain = vector.get(in.gain + j);
    if constexpr (summed_rows > 0) {
      Vector<Real> own_dweight = vector.get(dweight + j);
#pragma GCC unroll 2
      for (int r = 0; r < int{summed_rows}; ++r) {
        const Vector<Real> t = vector.get(summed[r].dy + j) * vector.get(summed[r].x + j);
        sums[r].sums[c] += gain * t;
        own_dweight += summed[r].rstd * t;
        prefetch<1>(summed[r].x + j, page / 4);
        prefetch<1>(summed[r].dy + j, page / 4);
      }
      vector.template set<false>(dweight + j, own_dweight);
    }
    if constexpr (writes) {
#pragma GCC unroll 2
      for (int r = 0; r < int{written_rows}; ++r) {
        const Vector<Real> dy = vector.get(written[r].dy + j), x = vector.get(written[r].x + j);
        vector.template set<streams>(written[r].dx + j,
                                     written[r].rstd * (gain * dy - x * written[r].factor));
      }
    }
  });
  for (int r = 0; r < int{summed_rows}; ++r) {
    const double rstd = summed[r].rstd;
    summed[r].factor = static_cast<Real>(rstd * rstd * (sums[r].total() / static_cast<double>(in.width)));
  }
  return summed;
}

template <class Real, bool writes, bool streams>
void rms_norm_backward_rows(const RmsNormGradientRows<Real>& in, Index first, Index last, Real* dweight) {
  using One = GradientRows<Real, 1>;
  using Two = GradientRows<Real, 2>;
  constexpr GradientRows<Real, 0> none{};
  const auto row = [&](Index i) ATTEST_INLINE_LAMBDA {
    return GradientRow<Real>{in.x.at(i), in.dy.at(i), writes ? in.dx.at(i) : nullptr, *in.rstd.at(i), 0};
  };
  for (Index j = 0; j < in.width; ++j) dweight[j] = 0;
  Index i = first;
  if ((last - first) % 2 != 0) {
    const One alone = write_and_sum<writes, streams>(none, One{row(i)}, in, dweight);
    write_and_sum<writes, streams>(alone, none, in, dweight);
    ++i;
  }
  if (i < last) {
    Two rows = write_and_sum<writes, streams>(none, Two{row(i), row(i + 1)}, in, dweight);
    for (i += 2; i < last; i += 2) {
      rows = write_and_sum<writes, streams>(rows, Two{row(i), row(i + 1)}, in, dweight);
    }
    write_and_sum<writes, streams>(rows, none, in, dweight);
  }
  end_streams<streams>();
}

template <class Real>
void rms_norm_backward(const RmsNormGradientRows<Real>& in, Index first, Index last, Real* dweight) {
  if (!in.dx.data) {
    rms_norm_backward_rows<Real, false, false>(in, first, last, dweight);
  } else if (in.dx_is_large && is_aligned(in.dx.data) && is_whole_vectors<Real>(in.dx.stride)) {
    rms_norm_backward_rows<Real, true, true>(in, first, last, dweight);
  } else {
    rms_norm_backward_rows<Real, true, false>(in, first, last, dweight);
  }
}

}  // namespace attest::tiled::ATTEST_TILED_LEVEL
