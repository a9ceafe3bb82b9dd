// Rounding to a storage format in loops that the compiler turns into vector instructions.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

#include "core/dtype.hpp"

namespace attest::bounds {

/// The values of a format of at most 51 significand bits, as if they went on beyond the largest.
struct StorageGrid {
  double smallest_normal, relative_spacing;

  explicit StorageGrid(DType dtype)
      : smallest_normal(std::ldexp(1.0, format_of(dtype).emin)),
        relative_spacing(std::ldexp(1.0, 1 - format_of(dtype).precision)) {}

  /// ulp(x, dtype) of a finite x.
  double spacing(double x) const {
    const double power = std::bit_cast<double>(std::bit_cast<std::uint64_t>(x) & 0x7ff0000000000000);
    return std::max(power, smallest_normal) * relative_spacing;
  }
  /// round_to(x, dtype) of an x that does not overflow: adding so large a number leaves whole spacings.
  double round(double x) const {
    const double shift = 0x1.8p52 * spacing(x);
    return (x + shift) - shift;
  }
};

}  // namespace attest::bounds
