// The unit of the bounds' inner loops: eight columns at a time, whose sums stay in registers.
#pragma once

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

}  // namespace attest::bounds

/// Marks a function whose loops have independent lanes: compiled once per level of vector instructions and
/// chosen at run time. Nothing is contracted, so every version gives the same bits.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define ATTEST_VECTORISED __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define ATTEST_VECTORISED
#endif
