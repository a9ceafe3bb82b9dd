// Tests of core/dtype: every 8- and 16-bit pattern, every tie between neighbours, and random doubles, against
// values computed by formula and by the compiler's own conversions.
#include "core/dtype.hpp"

#include <bit>
#include <cfenv>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "tests/catch.hpp"
#include "tests/core/dtype_oracle.hpp"

using namespace attest;
using namespace attest::test;

// Not every compiler has the type; the formula covers float16 without it.
#if defined(__FLT16_MANT_DIG__) && !defined(__clang__)
#define ATTEST_TEST_NATIVE_FLOAT16 1
#endif

#define REQUIRE_NONE(mismatches)                               \
  do {                                                         \
    CAPTURE(std::bit_cast<std::uint64_t>((mismatches).first)); \
    CAPTURE((mismatches).first);                               \
    REQUIRE((mismatches).count == 0);                          \
  } while (false)

TEST_CASE("every 8- and 16-bit pattern decodes to the value of its format's formula") {
  for (const Small& f : small_formats) {
    CAPTURE(format_of(f.dtype).name);
    const std::vector<double> values = ladder(f);
    Mismatches wrong;
    for (std::uint64_t pattern = 0; pattern < 2 * f.sign(); ++pattern) {
      const std::uint64_t magnitude = pattern % f.sign();
      double want = quiet_nan;
      if (magnitude <= f.max_pattern) want = values[magnitude];
      if (f.has_infinity && magnitude == f.max_pattern + 1) want = infinity;
      if (pattern >= f.sign()) want = -want;
      wrong.unless(same(decode(pattern, f.dtype), want), want);
    }
    REQUIRE_NONE(wrong);
  }
}

TEST_CASE("the fp8 formats have the extreme values of the OCP specification") {
  struct Row {
    DType dtype;
    std::uint64_t pattern;
    double value;
  };
  const Row rows[] = {
      {DType::float8_e4m3fn, 0x7e, 448},         {DType::float8_e4m3fn, 0x08, 0.015625},
      {DType::float8_e4m3fn, 0x07, 0.013671875}, {DType::float8_e4m3fn, 0x01, 0.001953125},
      {DType::float8_e5m2, 0x7b, 57344},         {DType::float8_e5m2, 0x04, 1 / 16384.0},
      {DType::float8_e5m2, 0x03, 0.75 / 16384},  {DType::float8_e5m2, 0x01, 1 / 65536.0},
  };
  for (const Row& row : rows) {
    REQUIRE(decode(row.pattern, row.dtype) == row.value);
    REQUIRE(decode(row.pattern | 0x80, row.dtype) == -row.value);
  }
  REQUIRE(std::isnan(decode(0x7f, DType::float8_e4m3fn)));
  REQUIRE(std::isnan(decode(0xff, DType::float8_e4m3fn)));
  REQUIRE(decode(0x7c, DType::float8_e5m2) == infinity);
  REQUIRE(decode(0xfc, DType::float8_e5m2) == -infinity);
}

TEST_CASE("a bfloat16 pattern is the upper half of a float's") {
  Mismatches wrong;
  for (std::uint32_t pattern = 0; pattern < 0x10000; ++pattern) {
    const double want = std::bit_cast<float>(pattern << 16);
    wrong.unless(same(decode(pattern, DType::bfloat16), want), want);
  }
  REQUIRE_NONE(wrong);
}

TEST_CASE("the encoding of a decoded pattern is the pattern") {
  for (const Small& f : small_formats) {
    CAPTURE(format_of(f.dtype).name);
    Mismatches wrong;
    for (std::uint64_t pattern = 0; pattern < 2 * f.sign(); ++pattern) {
      const double x = decode(pattern, f.dtype);
      const std::uint64_t want = std::isnan(x) ? f.nan_pattern : pattern;
      for (const Rounding rounding : both_roundings) {
        wrong.unless(encode(x, f.dtype, rounding) == want, x);
        wrong.unless(same(round_to(x, f.dtype, rounding), x), x);
      }
    }
    REQUIRE_NONE(wrong);
  }
}

TEST_CASE("bits above the format's width are ignored") {
  REQUIRE(decode(0xabcd3c00, DType::float16) == 1);
  REQUIRE(decode(0xab38, DType::float8_e4m3fn) == 1);
  REQUIRE(decode(0xabcdef013f800000, DType::float32) == 1);
}

TEST_CASE("the midpoint of two neighbours rounds to the even one, and anything beside it to the nearer") {
  for (const Small& f : small_formats) {
    CAPTURE(format_of(f.dtype).name);
    const std::vector<double> values = ladder(f);
    Mismatches wrong;
    for (std::uint64_t low = 0; low <= f.max_pattern; ++low) {
      const double middle = (values[low] + values[low + 1]) / 2;
      const double points[] = {std::nextafter(middle, 0.0), middle, std::nextafter(middle, infinity)};
      const std::uint64_t nearest[] = {low, low + low % 2, low + 1};
      for (int i = 0; i < 3; ++i) {
        for (const bool negative : {false, true}) {
          const double x = negative ? -points[i] : points[i];
          const std::uint64_t sign = negative ? f.sign() : 0;
          const std::uint64_t want =
              nearest[i] > f.max_pattern ? f.overflow_pattern(negative) : sign | nearest[i];
          wrong.unless(encode(x, f.dtype) == want, x);
          wrong.unless(encode(x, f.dtype, Rounding::toward_zero) == (sign | low), x);
          for (const Rounding rounding : both_roundings) {
            wrong.unless(same(round_to(x, f.dtype, rounding), decode(encode(x, f.dtype, rounding), f.dtype)),
                         x);
          }
        }
      }
    }
    REQUIRE_NONE(wrong);
  }
}

TEST_CASE("random doubles round to the neighbour that a search finds") {
  Random random{1};
  for (const Small& f : small_formats) {
    CAPTURE(format_of(f.dtype).name);
    const std::vector<double> values = ladder(f);
    const int bottom = std::ilogb(values[1]) - 3, top = std::ilogb(values[f.max_pattern]) + 3;
    Mismatches wrong;
    for (int i = 0; i < 400'000; ++i) {
      const double x = i % 8 == 0 ? random.number(-1022, 1023) : random.number(bottom, top);
      for (const Rounding rounding : both_roundings) {
        const std::uint64_t want = encode_by_search(x, f, values, rounding);
        wrong.unless(encode(x, f.dtype, rounding) == want, x);
        wrong.unless(same(round_to(x, f.dtype, rounding), decode(want, f.dtype)), x);
      }
    }
    REQUIRE_NONE(wrong);
  }
}

TEST_CASE("float32 rounds as the compiler does, and toward zero to the float at or below in magnitude") {
  Random random{2};
  Mismatches wrong;
  for (int i = 0; i < 1'500'000; ++i) {
    // All doubles, those around the subnormal floats, and those around the range of the floats, in turn.
    const double x = i % 3 == 0   ? std::bit_cast<double>(random.next())
                     : i % 3 == 1 ? random.number(-152, -120)
                                  : random.number(-152, 129);
    const float nearest = static_cast<float>(x);
    wrong.unless(same(round_to(x, DType::float32), nearest), x);
    if (std::isnan(x)) continue;
    wrong.unless(encode(x, DType::float32) == std::bit_cast<std::uint32_t>(nearest), x);
    const bool is_beyond = std::fabs(static_cast<double>(nearest)) > std::fabs(x);
    const float inner = is_beyond ? std::copysign(std::nextafter(nearest, 0.0f), nearest) : nearest;
    wrong.unless(same(round_to(x, DType::float32, Rounding::toward_zero), inner), x);
  }
  REQUIRE_NONE(wrong);
}

TEST_CASE("random float32 and float64 patterns survive decoding and encoding") {
  Random random{3};
  Mismatches wrong;
  for (int i = 0; i < 1'000'000; ++i) {
    std::uint64_t bits = random.next();
    if (i % 4 == 0) bits &= 0x800fffff807fffff;  // subnormal in both formats
    const auto low = static_cast<std::uint32_t>(bits);
    const double x = std::bit_cast<double>(bits), y = std::bit_cast<float>(low);
    wrong.unless(same(decode(bits, DType::float64), x), x);
    wrong.unless(same(decode(low, DType::float32), y), y);
    for (const Rounding rounding : both_roundings) {
      wrong.unless(same(round_to(x, DType::float64, rounding), x), x);
      wrong.unless(encode(x, DType::float64, rounding) == bits || std::isnan(x), x);
      wrong.unless(encode(y, DType::float32, rounding) == low || std::isnan(y), y);
    }
  }
  REQUIRE_NONE(wrong);
}

#ifdef ATTEST_TEST_NATIVE_FLOAT16
TEST_CASE("float16 decodes and rounds as the compiler does") {
  Mismatches wrong;
  for (int pattern = 0; pattern < 0x10000; ++pattern) {
    const auto want = static_cast<double>(std::bit_cast<_Float16>(static_cast<std::uint16_t>(pattern)));
    wrong.unless(same(decode(static_cast<std::uint64_t>(pattern), DType::float16), want), want);
  }
  Random random{4};
  for (int i = 0; i < 1'000'000; ++i) {
    const double x = i % 4 == 0   ? std::bit_cast<double>(random.next())
                     : i % 4 == 1 ? random.number(-28, -12)
                                  : random.number(-28, 18);
    const auto nearest = static_cast<_Float16>(x);
    wrong.unless(same(round_to(x, DType::float16), static_cast<double>(nearest)), x);
    if (!std::isnan(x)) wrong.unless(encode(x, DType::float16) == std::bit_cast<std::uint16_t>(nearest), x);
  }
  REQUIRE_NONE(wrong);
}
#endif

TEST_CASE("overflow begins half a spacing above the largest value, and never toward zero") {
  struct Row {
    DType dtype;
    double largest, threshold;
    bool tie_overflows;
  };
  const Row rows[] = {
      {DType::float32, 0x1.fffffep127, 0x1.ffffffp127, true},
      {DType::float16, 65504, 65520, true},
      {DType::bfloat16, 0x1.fep127, 0x1.ffp127, true},
      {DType::float8_e4m3fn, 448, 464, false},  // 448 has an even significand: the tie goes to it
      {DType::float8_e5m2, 57344, 61440, true},
  };
  for (const Row& row : rows) {
    CAPTURE(format_of(row.dtype).name);
    const double overflow = format_of(row.dtype).has_infinity ? infinity : quiet_nan;
    for (const double sign : {1.0, -1.0}) {
      const double inside = sign * std::nextafter(row.threshold, 0.0);
      const double tie = sign * row.threshold;
      const double outside = sign * std::nextafter(row.threshold, infinity);
      REQUIRE(round_to(inside, row.dtype) == sign * row.largest);
      REQUIRE(same(round_to(tie, row.dtype), sign * (row.tie_overflows ? overflow : row.largest)));
      REQUIRE(same(round_to(outside, row.dtype), sign * overflow));
      REQUIRE(same(round_to(sign * 0x1.fffffffffffffp1023, row.dtype), sign * overflow));
      for (const double x : {inside, tie, outside, sign * 0x1.fffffffffffffp1023}) {
        REQUIRE(round_to(x, row.dtype, Rounding::toward_zero) == sign * row.largest);
      }
    }
  }
}

TEST_CASE("zeros keep their sign, infinities stay or become NaN, and NaN is the positive quiet one") {
  const double smallest = std::numeric_limits<double>::denorm_min();
  for (const Format& f : all_formats()) {
    CAPTURE(f.name);
    const double kept_infinity = f.has_infinity ? infinity : quiet_nan;
    for (const Rounding rounding : both_roundings) {
      REQUIRE(same(round_to(0.0, f.dtype, rounding), 0.0));
      REQUIRE(same(round_to(-0.0, f.dtype, rounding), -0.0));
      REQUIRE(encode(-0.0, f.dtype, rounding) == 1ULL << (f.bits - 1));
      if (f.bits < 64) REQUIRE(same(round_to(-smallest, f.dtype, rounding), -0.0));
      REQUIRE(same(round_to(infinity, f.dtype, rounding), kept_infinity));
      REQUIRE(same(round_to(-infinity, f.dtype, rounding), -kept_infinity));
      REQUIRE(encode(-quiet_nan, f.dtype, rounding) == encode(quiet_nan, f.dtype, rounding));
      REQUIRE_FALSE(std::signbit(round_to(-quiet_nan, f.dtype, rounding)));
      REQUIRE_FALSE(std::signbit(decode(~0ULL, f.dtype)));
    }
  }
  REQUIRE(encode(quiet_nan, DType::float64) == 0x7ff8000000000000);
  REQUIRE(encode(quiet_nan, DType::float32) == 0x7fc00000);
  REQUIRE(encode(quiet_nan, DType::float16) == 0x7e00);
  REQUIRE(encode(quiet_nan, DType::bfloat16) == 0x7fc0);
  REQUIRE(encode(quiet_nan, DType::float8_e4m3fn) == 0x7f);
  REQUIRE(encode(quiet_nan, DType::float8_e5m2) == 0x7e);
}

TEST_CASE("a double just above a tie is not rounded by way of float") {
  const double x = 1 + 0x1p-11 + 0x1p-40;  // float would make it the tie 1 + 2^-11, and float16 of that is 1
  REQUIRE(round_to(x, DType::float16) == 1 + 0x1p-10);
  REQUIRE(round_to(1 + 0x1p-8 + 0x1p-40, DType::bfloat16) == 1 + 0x1p-7);
}

TEST_CASE("the processor's rounding mode changes nothing") {
  const int mode = std::fegetround();
  Random random{5};
  Mismatches wrong;
  for (int i = 0; i < 20'000; ++i) {
    const double x = i % 2 == 0 ? random.number(-1022, 1023) : random.number(-30, 20);
    for (const Format& f : all_formats()) {
      for (const Rounding rounding : both_roundings) {
        const double want = round_to(x, f.dtype, rounding);
        const std::uint64_t want_pattern = encode(x, f.dtype, rounding);
        for (const int other : {FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO}) {
          std::fesetround(other);
          const bool ok = same(round_to(x, f.dtype, rounding), want) &&
                          encode(x, f.dtype, rounding) == want_pattern &&
                          same(decode(want_pattern, f.dtype), want);
          std::fesetround(mode);
          wrong.unless(ok, x);
        }
      }
    }
  }
  REQUIRE_NONE(wrong);
}

TEST_CASE("ulp is the gap above a value in magnitude, over every binade edge") {
  for (const Small& f : small_formats) {
    CAPTURE(format_of(f.dtype).name);
    const std::vector<double> values = ladder(f);
    Mismatches wrong;
    for (std::uint64_t low = 0; low <= f.max_pattern; ++low) {
      const double gap = values[low + 1] - values[low];
      for (const double x : {values[low], values[low] + gap / 2, std::nextafter(values[low + 1], 0.0)}) {
        wrong.unless(ulp(x, f.dtype) == gap, x);
        wrong.unless(ulp(-x, f.dtype) == gap, x);
      }
    }
    REQUIRE_NONE(wrong);
  }
  Random random{6};
  Mismatches wrong;
  for (int i = 0; i < 200'000; ++i) {
    const float x = std::bit_cast<float>(static_cast<std::uint32_t>(random.next() >> 33));
    const double y = std::bit_cast<double>(random.next() >> 1);
    const float x_next = std::nextafter(x, std::numeric_limits<float>::infinity());
    const double y_next = std::nextafter(y, infinity);
    if (std::isfinite(x_next)) wrong.unless(ulp(x, DType::float32) == static_cast<double>(x_next) - x, x);
    if (std::isfinite(y_next)) wrong.unless(ulp(y, DType::float64) == y_next - y, y);
  }
  REQUIRE_NONE(wrong);
}

TEST_CASE(
    "ulp of zero is the smallest subnormal, goes on above the largest value, and is NaN if x is not finite") {
  for (const Format& f : all_formats()) {
    CAPTURE(f.name);
    REQUIRE(ulp(0, f.dtype) == decode(1, f.dtype));
    REQUIRE(ulp(-0.0, f.dtype) == decode(1, f.dtype));
    REQUIRE(ulp(f.max, f.dtype) == std::ldexp(1.0, f.emax - f.precision + 1));
    REQUIRE(ulp(0x1p1023, f.dtype) == std::ldexp(1.0, 1023 - f.precision + 1));
    REQUIRE(std::isnan(ulp(infinity, f.dtype)));
    REQUIRE(std::isnan(ulp(-infinity, f.dtype)));
    REQUIRE(std::isnan(ulp(quiet_nan, f.dtype)));
  }
}

TEST_CASE("the format table agrees with the patterns it describes") {
  for (const Format& f : all_formats()) {
    CAPTURE(f.name);
    REQUIRE(&format_of(f.dtype) == &f);
    REQUIRE(unit_roundoff(f.dtype) == std::ldexp(1.0, -f.precision));
    REQUIRE(decode(encode(f.max, f.dtype), f.dtype) == f.max);
    REQUIRE(std::ilogb(f.max) == f.emax);
    REQUIRE(std::isinf(decode(encode(f.max, f.dtype) + 1, f.dtype)) == f.has_infinity);
    REQUIRE(std::isnan(decode(encode(f.max, f.dtype) + 1, f.dtype)) == !f.has_infinity);
    REQUIRE(encode(std::ldexp(1.0, f.emin), f.dtype) == 1ULL << (f.precision - 1));
  }
  using Float = std::numeric_limits<float>;
  const Format& single = format_of(DType::float32);
  REQUIRE(single.precision == Float::digits);
  REQUIRE(single.max == static_cast<double>(Float::max()));
  REQUIRE(decode(1, DType::float32) == static_cast<double>(Float::denorm_min()));
  REQUIRE(format_of(DType::float64).max == std::numeric_limits<double>::max());
  REQUIRE(decode(1, DType::float64) == std::numeric_limits<double>::denorm_min());
}

TEST_CASE("a format is found by its name and by nothing else") {
  REQUIRE(all_formats().size() == 6);
  for (const Format& f : all_formats()) REQUIRE(dtype_named(f.name) == f.dtype);
  for (const char* name : {"", "float", "Float16", "float16 ", "half", "float8", "float8_e4m3", "e5m2"}) {
    CAPTURE(name);
    REQUIRE_FALSE(dtype_named(name).has_value());
  }
}
