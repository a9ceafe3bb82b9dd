// Random numbers for tests: a counter-based generator, so that a seed names the same data on every platform.
#pragma once

#include <cstdint>

#include "core/view.hpp"

namespace attest::test {

/// SplitMix64 (Steele, Lea, Flood 2014): number n of a seed is a fixed function of (seed, n).
class Random {
 public:
  explicit Random(std::uint64_t seed) : seed_(seed) {}

  std::uint64_t bits() {
    std::uint64_t x = seed_ + ++count_ * 0x9E3779B97F4A7C15;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
    return x ^ (x >> 31);
  }
  /// In [-1, 1), a multiple of 2^-20: sums of a few such numbers and small integers are exact in double.
  double symmetric() { return static_cast<double>(bits() >> 43) * 0x1p-20 - 1; }
  /// One of 0 .. n - 1.
  Index below(Index n) { return static_cast<Index>(bits() % static_cast<std::uint64_t>(n)); }
  /// True once in n calls.
  bool one_in(Index n) { return below(n) == 0; }

 private:
  std::uint64_t seed_, count_ = 0;
};

}  // namespace attest::test
