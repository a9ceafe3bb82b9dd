// The unit of the bounds' inner loops: eight columns at a time, whose sums stay in registers.
#pragma once

#include <new>
#include <vector>

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

/// Memory on cache lines of its own, so that no group of lanes straddles two.
template <class T>
struct CacheLineAllocator {
  using value_type = T;
  static constexpr std::align_val_t alignment{64};

  CacheLineAllocator() = default;
  template <class U>
  CacheLineAllocator(const CacheLineAllocator<U>&) {}
  T* allocate(std::size_t n) { return static_cast<T*>(::operator new(n * sizeof(T), alignment)); }
  void deallocate(T* p, std::size_t) { ::operator delete(p, alignment); }
  bool operator==(const CacheLineAllocator&) const { return true; }
};
using Lanes = std::vector<double, CacheLineAllocator<double>>;

}  // namespace attest::bounds

/// Marks a function whose loops have independent lanes: compiled once per level of vector instructions and
/// chosen at run time. Nothing is contracted, so every version gives the same bits.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define ATTEST_VECTORISED __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define ATTEST_VECTORISED
#endif
