// Rounding to formats that contracts do not have, for kernels that are simulated in a diagnosis.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <functional>

namespace attest {

/// Values of so many significand bits, at least 2^(emin - precision + 1) apart.
struct Grid {
  const char* name;
  int precision, emin;

  double round(double x, bool cuts_off = false) const {
    if (x == 0 || !std::isfinite(x)) return x;
    const double step = spacing(x);
    return (cuts_off ? std::trunc(x / step) : std::nearbyint(x / step)) * step;
  }
  /// Of numbers near x, which is not 0.
  double spacing(double x) const {
    constexpr int fraction_bits = 52, bias = 1023;
    const int exponent =
        static_cast<int>(std::bit_cast<std::uint64_t>(x) >> fraction_bits & 0x7ff) - bias;  // of normal x
    const int step = std::max(exponent, emin) - precision + 1;
    return std::bit_cast<double>(static_cast<std::uint64_t>(step + bias) << fraction_bits);
  }
};

inline constexpr Grid tf32{"tf32", 11, -126};
inline constexpr Grid narrow_grids[] = {
    {"float16", 11, -14}, {"bfloat16", 8, -126}, {"float8_e4m3fn", 4, -6}, {"float8_e5m2", 3, -14}};

using Round = std::function<double(double)>;

/// Rounds x unit, and takes the unit away again.
inline Round to(const Grid& grid, double unit = 1, bool cuts_off = false) {
  return [=](double x) { return grid.round(x * unit, cuts_off) / unit; };
}

}  // namespace attest
