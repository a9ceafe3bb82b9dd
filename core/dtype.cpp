// Element types: the format table and the one algorithm that decodes, rounds and encodes for all of its rows.
#include "core/dtype.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cassert>
#include <cmath>
#include <cstddef>
#include <limits>

namespace attest {
namespace {

constexpr std::array<Format, 6> formats{{
    {DType::float64, "float64", 64, 53, -1022, 1023, 0x1.fffffffffffffp1023, true},
    {DType::float32, "float32", 32, 24, -126, 127, 0x1.fffffep127, true},
    {DType::float16, "float16", 16, 11, -14, 15, 65504, true},
    {DType::bfloat16, "bfloat16", 16, 8, -126, 127, 0x1.fep127, true},
    {DType::float8_e4m3fn, "float8_e4m3fn", 8, 4, -6, 8, 448, false},
    {DType::float8_e5m2, "float8_e5m2", 8, 3, -14, 15, 57344, true},
}};

constexpr bool rows_follow_the_enum() {
  for (std::size_t i = 0; i < formats.size(); ++i) {
    if (formats[i].dtype != static_cast<DType>(i)) return false;
  }
  return true;
}
static_assert(rows_follow_the_enum(), "format_of indexes the table by the enumerator");

static_assert(std::numeric_limits<double>::is_iec559 && std::numeric_limits<double>::digits == 53);
constexpr const Format& binary64 = formats[0];  // the format of `double` itself
constexpr double quiet_nan = std::numeric_limits<double>::quiet_NaN();
constexpr std::uint64_t one = 1;

/// 2^e for -1074 <= e <= 1023.
double power_of_two(int e) {
  if (e < -1022) return std::bit_cast<double>(one << (e + 1074));
  return std::bit_cast<double>(static_cast<std::uint64_t>(e + 1023) << 52);
}

/// floor(log2 |x|) of a finite x; -1023, which is below every emin, for zero and the subnormals of double.
int exponent_of(double x) {
  return static_cast<int>(std::bit_cast<std::uint64_t>(x) >> 52 & 0x7ff) - 1023;
}

/// |x| / ulp(x, float64) of a finite x: an integer below 2^53.
std::uint64_t significand_of(double x) {
  const std::uint64_t bits = std::bit_cast<std::uint64_t>(x);
  const std::uint64_t hidden = (bits >> 52 & 0x7ff) != 0 ? one << 52 : 0;
  return hidden | (bits & ((one << 52) - 1));
}

/// log2 ulp(x) of a finite x.
int last_place(double x, const Format& f) {
  return std::max(exponent_of(x), f.emin) - (f.precision - 1);
}

/// How many low bits of significand_of(x) lie below the format's last place. From 54 on, all of them lie
/// below half of it and the exact number no longer matters.
int bits_below(double x, const Format& f) {
  return std::min(last_place(x, f) - last_place(x, binary64), 54);
}

std::uint64_t sign_bit(const Format& f) {
  return one << (f.bits - 1);
}

/// The pattern of f.max. In every format the non-negative patterns are in the order of their values, and the
/// next one up is infinity, or in a format without infinities the NaN.
std::uint64_t pattern_of_max(const Format& f) {
  if (!f.has_infinity) return sign_bit(f) - 2;
  const int infinity_field = f.emax - f.emin + 2;
  return (static_cast<std::uint64_t>(infinity_field) << (f.precision - 1)) - 1;
}

std::uint64_t pattern_of_nan(const Format& f) {
  const std::uint64_t after_max = pattern_of_max(f) + 1;
  return f.has_infinity ? after_max | one << (f.precision - 2) : after_max;
}

}  // namespace

const Format& format_of(DType dtype) {
  const auto row = static_cast<std::size_t>(dtype);
  assert(row < formats.size());
  return formats[row];
}

std::span<const Format> all_formats() {
  return formats;
}

std::optional<DType> dtype_named(std::string_view name) {
  for (const Format& f : formats) {
    if (f.name == name) return f.dtype;
  }
  return std::nullopt;
}

double decode(std::uint64_t bits_value, DType dtype) {
  const Format& f = format_of(dtype);
  const std::uint64_t magnitude = bits_value & (sign_bit(f) - 1);
  const double sign = (bits_value & sign_bit(f)) != 0 ? -1.0 : 1.0;
  if (magnitude > pattern_of_max(f)) {
    const bool is_infinity = f.has_infinity && magnitude == pattern_of_max(f) + 1;
    return is_infinity ? sign * std::numeric_limits<double>::infinity() : quiet_nan;
  }
  const std::uint64_t hidden = one << (f.precision - 1);
  const int field = static_cast<int>(magnitude >> (f.precision - 1));
  const std::uint64_t significand = (magnitude & (hidden - 1)) | (field > 0 ? hidden : 0);
  const int exponent = std::max(field - 1, 0) + f.emin - (f.precision - 1);
  return sign * static_cast<double>(static_cast<std::int64_t>(significand)) * power_of_two(exponent);
}

double round_to(double x, DType dtype, Rounding rounding) {
  const Format& f = format_of(dtype);
  if (!std::isfinite(x)) return std::isinf(x) && f.has_infinity ? x : quiet_nan;

  const int below = bits_below(x, f);
  const std::uint64_t unit = one << below;
  std::uint64_t units = significand_of(x) >> below;
  if (rounding == Rounding::to_nearest_even) {
    const std::uint64_t twice_rest = 2 * (significand_of(x) & (unit - 1));
    const bool is_odd = (units & 1) != 0;
    units += twice_rest > unit || (twice_rest == unit && is_odd);
  }
  // At most `precision` bits times a power of two: exact in any rounding mode of the processor, or too large.
  const double magnitude =
      static_cast<double>(static_cast<std::int64_t>(units)) * power_of_two(last_place(x, f));
  if (magnitude <= f.max) return std::copysign(magnitude, x);
  if (rounding == Rounding::toward_zero) return std::copysign(f.max, x);
  return f.has_infinity ? std::copysign(std::numeric_limits<double>::infinity(), x) : quiet_nan;
}

std::uint64_t encode(double x, DType dtype, Rounding rounding) {
  const Format& f = format_of(dtype);
  const double y = round_to(x, dtype, rounding);
  if (std::isnan(y)) return pattern_of_nan(f);
  const std::uint64_t sign = std::signbit(y) ? sign_bit(f) : 0;
  if (std::isinf(y)) return sign | (pattern_of_max(f) + 1);
  // y is a value of the format, so that the shift drops only zeros. The hidden bit of a normal value adds the
  // one by which its exponent field exceeds that of the subnormals.
  const auto binade = static_cast<std::uint64_t>(std::max(exponent_of(y) - f.emin, 0));
  return sign | ((binade << (f.precision - 1)) + (significand_of(y) >> bits_below(y, f)));
}

double unit_roundoff(DType dtype) {
  return power_of_two(-format_of(dtype).precision);
}

double ulp(double x, DType dtype) {
  return std::isfinite(x) ? power_of_two(last_place(x, format_of(dtype))) : quiet_nan;
}

}  // namespace attest
