// The unit of the bounds' inner loops: eight columns at a time, whose sums stay in registers.
#pragma once

#include <algorithm>

#include "core/aligned_vector.hpp"
#include "core/view.hpp"

namespace attest::bounds {

inline constexpr Index lanes = 8;

/// So many rows of a matrix are read for one group of lanes before the next: they stay in the first-level
/// cache.
inline constexpr Index rows_in_cache = 64;

/// The smallest multiple of `lanes` that holds n. Rows are stored that long and padded with zeros.
inline Index padded(Index n) {
  return (n + lanes - 1) / lanes * lanes;
}

using Lanes = AlignedVector<double>;

/// Calls f(c, c % lanes) for c = 0 ... n - 1, where no call needs another's results: with sums and maxima
/// that are kept per lane the compiler does `lanes` of them at once.
template <class F>
inline void for_lanes(Index n, const F& f) {
  Index c = 0;
  for (; c + lanes <= n; c += lanes) {
#pragma GCC ivdep
    for (Index lane = 0; lane < lanes; ++lane) f(c + lane, lane);
  }
  for (Index lane = 0; c + lane < n; ++lane) f(c + lane, lane);
}

/// A sum, and a maximum, of what comes lane by lane.
struct LaneSum {
  double part[lanes] = {};

  double total() const {
    return ((part[0] + part[4]) + (part[2] + part[6])) + ((part[1] + part[5]) + (part[3] + part[7]));
  }
};
struct LaneMaximum {
  double part[lanes];

  explicit LaneMaximum(double least) { std::fill_n(part, lanes, least); }
  void take(Index lane, double x) { part[lane] = x > part[lane] ? x : part[lane]; }
  double total() const { return *std::max_element(part, part + lanes); }
};

}  // namespace attest::bounds

/// Marks a function whose loops have independent lanes: compiled once per level of vector instructions and
/// chosen at run time. Nothing is contracted, so every version gives the same bits.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define ATTEST_VECTORISED \
  __attribute__((flatten, target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define ATTEST_VECTORISED
#endif
