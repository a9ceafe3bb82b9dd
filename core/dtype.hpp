// Element types: their formats, exact decoding to double, rounding to them, and the spacing of their values.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace attest {

enum class DType { float64, float32, float16, bfloat16, float8_e4m3fn, float8_e5m2 };

/// Values are (-1)^s 2^e (1 + f) with emin <= e, and subnormals (-1)^s 2^emin f; f has precision - 1 bits.
struct Format {
  DType dtype;
  std::string_view name;  // as numpy, PyTorch and ml_dtypes spell it
  int bits;               // storage width
  int precision;          // significand bits p, the hidden one included; unit roundoff is 2^-p
  int emin, emax;         // exponents of the smallest and the largest normal value
  double max;             // largest finite value
  bool has_infinity;      // false for float8_e4m3fn, whose overflow is NaN
};

enum class Rounding { to_nearest_even, toward_zero };

const Format& format_of(DType dtype);
std::span<const Format> all_formats();
std::optional<DType> dtype_named(std::string_view name);

/// The exact value of a bit pattern (the low Format::bits of `bits_value`). Every NaN pattern, whatever its
/// sign and payload, gives the positive quiet NaN.
double decode(std::uint64_t bits_value, DType dtype);

/// The bit pattern of x rounded once to the format, whatever rounding mode the processor is in; zeros keep
/// their sign. x overflows if it would round beyond the largest value in a format of unlimited exponents;
/// overflow gives infinity (NaN in float8_e4m3fn) to nearest and the largest finite value toward zero. In
/// either rounding an infinity stays one (NaN in float8_e4m3fn). Every NaN is the positive quiet one.
std::uint64_t encode(double x, DType dtype, Rounding rounding = Rounding::to_nearest_even);

/// decode(encode(x)), without the detour.
double round_to(double x, DType dtype, Rounding rounding = Rounding::to_nearest_even);

/// 2^-p, the largest relative error of rounding a normal value to nearest.
double unit_roundoff(DType dtype);

/// Spacing of the format's values in the binade of |x|, without an upper end: ulp(0) is the smallest
/// subnormal and ulp(x) above the largest value goes on as if the exponent range did. Infinite or NaN x gives
/// NaN.
double ulp(double x, DType dtype);

}  // namespace attest
