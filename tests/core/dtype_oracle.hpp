// What the tests of core/dtype compare with: the small formats from their standards, values by formula,
// rounding by search, and reproducible random numbers. Shares no code with core/dtype.cpp.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "core/dtype.hpp"

namespace attest::test {

inline constexpr double infinity = std::numeric_limits<double>::infinity();
inline constexpr double quiet_nan = std::numeric_limits<double>::quiet_NaN();
inline constexpr Rounding both_roundings[] = {Rounding::to_nearest_even, Rounding::toward_zero};

/// The small formats once more, as their standards print them: width of the exponent and fraction fields, and
/// the pattern of the largest finite value.
struct Small {
  DType dtype;
  int exponent_bits, fraction_bits;
  std::uint64_t max_pattern, nan_pattern;
  bool has_infinity;

  int bits() const { return 1 + exponent_bits + fraction_bits; }
  std::uint64_t sign() const { return 1ULL << (bits() - 1); }
  std::uint64_t overflow_pattern(bool negative) const {
    return has_infinity ? (max_pattern + 1) | (negative ? sign() : 0) : nan_pattern;
  }
};

inline constexpr Small small_formats[] = {
    {DType::float16, 5, 10, 0x7bff, 0x7e00, true},
    {DType::bfloat16, 8, 7, 0x7f7f, 0x7fc0, true},
    {DType::float8_e4m3fn, 4, 3, 0x7e, 0x7f, false},
    {DType::float8_e5m2, 5, 2, 0x7b, 0x7e, true},
};

/// The values of patterns 0 ... max_pattern, and after them the value that would come next if the exponents
/// went on: what rounds to it overflows.
inline std::vector<double> ladder(const Small& f) {
  const int bias = (1 << (f.exponent_bits - 1)) - 1;
  const int steps = 1 << f.fraction_bits;
  std::vector<double> values;
  for (std::uint64_t pattern = 0; pattern <= f.max_pattern + 1; ++pattern) {
    const int field = static_cast<int>(pattern) / steps;
    const double fraction = static_cast<double>(static_cast<int>(pattern) % steps) / steps;
    values.push_back(field == 0 ? std::ldexp(fraction, 1 - bias) : std::ldexp(1 + fraction, field - bias));
  }
  return values;
}

/// The pattern that `x` rounds to, found by looking between which two values of the ladder it lies.
inline std::uint64_t encode_by_search(double x, const Small& f, const std::vector<double>& values,
                                      Rounding rounding) {
  if (std::isnan(x)) return f.nan_pattern;
  const double magnitude = std::fabs(x);
  const bool negative = std::signbit(x);
  if (magnitude == infinity) return f.overflow_pattern(negative);
  const auto above = std::upper_bound(values.begin(), values.end(), magnitude);
  auto pattern = static_cast<std::uint64_t>(above - values.begin()) - 1;
  if (rounding == Rounding::toward_zero) {
    pattern = std::min(pattern, f.max_pattern);
  } else if (above != values.end()) {
    const double middle = (*(above - 1) + *above) / 2;
    if (magnitude > middle || (magnitude == middle && pattern % 2 == 1)) ++pattern;
  }
  if (pattern > f.max_pattern) return f.overflow_pattern(negative);
  return pattern | (negative ? f.sign() : 0);
}

/// The same bits, or both of them NaN.
inline bool same(double a, double b) {
  return (std::isnan(a) && std::isnan(b)) ||
         std::bit_cast<std::uint64_t>(a) == std::bit_cast<std::uint64_t>(b);
}

/// Counts what went wrong in a loop and remembers the first case of it.
struct Mismatches {
  long count = 0;
  double first = 0;
  void unless(bool ok, double x) {
    if (!ok && count++ == 0) first = x;
  }
};

/// splitmix64: the same numbers on every platform.
struct Random {
  std::uint64_t state;
  std::uint64_t next() {
    std::uint64_t z = state += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  /// Either sign, exponent uniform in [first, last], and a significand with a random number of trailing
  /// zeros, so that values of narrow formats and the ties between them are frequent.
  double number(int first, int last) {
    const std::uint64_t sign = next() & (1ULL << 63);
    const std::uint64_t exponent =
        static_cast<std::uint64_t>(first + 1023) + next() % static_cast<std::uint64_t>(last - first + 1);
    const std::uint64_t fraction = (next() >> 12) >> (next() % 53) << (next() % 53) & ((1ULL << 52) - 1);
    return std::bit_cast<double>(sign | exponent << 52 | fraction);
  }
};

}  // namespace attest::test
