// Random numbers that can be had in any order: number n of a stream is a fixed function of seed, name and n.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "core/view.hpp"
#include "verify/inputs/philox.hpp"

namespace attest {

/// The normal quantile of (word + 1/2) / 2^32, within 1e-15 relative; |x| < 6.34. Made of additions,
/// multiplications, divisions and square roots only, so that its bits are the same on every platform.
double normal_quantile(std::uint32_t word);

/// Words of 32 bits: four to a block of Philox4x32-10 whose key is the seed and whose counter is (number of
/// the block, hash of the name).
class RandomStream {
 public:
  RandomStream(std::uint64_t seed, std::string_view name);

  std::uint32_t word(Index n) const { return block(n / 4)[static_cast<std::size_t>(n % 4)]; }
  /// In (0, 1), a multiple of 2^-33.
  double uniform(Index n) const { return (word(n) + 0.5) * 0x1p-32; }
  double normal(Index n) const { return normal_quantile(word(n)); }
  /// One of 0 .. count - 1, for count up to 2^32.
  Index below(Index n, Index count) const {
    return static_cast<Index>((std::uint64_t{word(n)} * static_cast<std::uint64_t>(count)) >> 32);
  }
  /// Numbers first, first + 1, ...
  void normals(Index first, std::span<double> out) const;
  void uniforms(Index first, std::span<double> out) const;

 private:
  PhiloxCounter block(Index n) const {
    const auto bits = static_cast<std::uint64_t>(n);
    return philox({static_cast<std::uint32_t>(bits), static_cast<std::uint32_t>(bits >> 32), name_, 0}, key_);
  }
  template <class Take>
  void for_words(Index first, std::span<double> out, Take take) const;

  PhiloxKey key_;
  std::uint32_t name_;
};

}  // namespace attest
