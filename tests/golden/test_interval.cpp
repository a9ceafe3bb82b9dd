// The arithmetic behind the goldens: what intervals enclose, and which roundings are decided.
#include "data/golden/interval.hpp"

#include <cmath>
#include <limits>

#include "tests/catch.hpp"

using namespace attest;
using golden::Interval;
using golden::nearest;

namespace {

/// Around 0, with ends of about 2^-64: what is left of ln e where e was rounded.
Interval around_zero() {
  golden::set_precision(64);
  return log(exp(Interval(1))) - Interval(1);
}

}  // namespace

TEST_CASE("an interval around zero decides neither its sign nor its rounding") {
  const Interval x = around_zero();
  CHECK(!x.is_exact());
  CHECK(!x.is_positive());
  CHECK(!x.is_negative());
  for (const Format& f : all_formats()) CHECK(!nearest(x, f.dtype).has_value());  // zero has two signs
}

TEST_CASE("products and quotients enclose those of every pair of ends") {
  const Interval e = around_zero();
  for (const double a : {-3.0, -1.0, 0.0, 1.0, 3.0}) {
    for (const double b : {-3.0, -1.0, 0.0, 1.0, 3.0}) {
      // Around a and b: the product of the two must stay inside.
      const Interval x = Interval(a) + e, y = Interval(b) + e, product = x * y - Interval(a * b);
      CHECK(!product.is_positive());
      CHECK(!product.is_negative());
      if (b == 0) continue;
      const Interval rest = x / y * Interval(b) - Interval(a);
      CHECK(!rest.is_positive());
      CHECK(!rest.is_negative());
      Interval sum(1);
      sum.add_product(x, b);
      sum -= Interval(1 + a * b);
      CHECK(!sum.is_positive());
      CHECK(!sum.is_negative());
    }
  }
  CHECK((Interval(-3) * Interval(5)).is(-15));
  CHECK((Interval(-3) / Interval(-2)).is(1.5));
  CHECK(golden::square(Interval(-3)).is(9));
  CHECK(!golden::square(e).is_negative());
}

TEST_CASE("functions enclose their values") {
  golden::set_precision(128);
  const auto encloses = [](const Interval& x, const Interval& y) {
    return !(x - y).is_positive() && !(x - y).is_negative();
  };
  const Interval x(0.7);
  CHECK(encloses(exp(log(x)), x));
  CHECK(encloses(golden::square(sqrt(x)), x));
  CHECK(encloses(golden::square(sin(x)) + golden::square(cos(x)), Interval(1)));
  CHECK(encloses(log1p(x), log(Interval(1) + x)));
  CHECK(encloses(erfc(x) + erfc(-x), Interval(2)));
  const Interval up = exp(x), down = exp(-x);
  CHECK(encloses(tanh(x), (up - down) / (up + down)));
  CHECK(encloses(golden::power(x, Interval(3)), x * x * x));
  CHECK(encloses(sin(golden::pi()), Interval(0)));
  CHECK(golden::floor(Interval(-2.5)) == -3);
  CHECK(!golden::floor(golden::square(sqrt(Interval(3)))).has_value());
}

TEST_CASE("a tie is decided where it is exact, and where the smallest rest breaks it") {
  golden::set_precision(128);
  const double tie = 1 + 0x1p-8;  // between the bfloat16 numbers 1 and 1 + 2^-7
  CHECK(nearest(Interval(tie), DType::bfloat16) == 1);
  const Interval rest = exp(Interval(-1e6));  // far beyond 128 bits
  CHECK(!nearest(Interval(tie) + rest, DType::bfloat16).has_value());
  CHECK(nearest(golden::nudged(tie, rest), DType::bfloat16) == 1 + 0x1p-7);
  CHECK(nearest(golden::nudged(tie, -rest), DType::bfloat16) == 1);
  CHECK(nearest(golden::nudged(-tie, rest), DType::bfloat16) == -1);
  CHECK(nearest(golden::nudged(-tie, -rest), DType::bfloat16) == -1 - 0x1p-7);
  CHECK(nearest(golden::nudged(tie, rest), DType::float64) == tie);
  CHECK(nearest(golden::nudged(0, rest), DType::float64) == 0);
  // The rest is large enough to be seen.
  CHECK(nearest(golden::nudged(tie, Interval(0x1p-30)), DType::float64) == tie + 0x1p-30);
}

TEST_CASE("a rounding is that of the exact number, not that of its float64") {
  golden::set_precision(256);
  for (const Format& f : all_formats()) {
    if (f.dtype == DType::float64) continue;
    const double half = std::ldexp(1.0, -f.precision);  // half a unit in the last place of 1
    const Interval above = Interval(1 + half) + Interval(0x1p-200),
                   below = Interval(1 + half) - Interval(0x1p-200);
    CHECK(nearest(above, DType::float64) == 1 + half);
    CHECK(nearest(above, f.dtype) == 1 + 2 * half);
    CHECK(nearest(below, f.dtype) == 1);
    // Half the smallest subnormal number, and a little more; the largest number and half a step more.
    const double smallest = ulp(0, f.dtype);
    CHECK(nearest(Interval(smallest / 2), f.dtype) == 0);
    CHECK(nearest(Interval(smallest / 2) * (Interval(1) + Interval(0x1p-200)), f.dtype) == smallest);
    const double edge = f.max + ulp(f.max, f.dtype) / 2;
    CHECK(nearest(Interval(edge) - Interval(0x1p-100), f.dtype) == f.max);
    const double over = nearest(Interval(edge) + Interval(0x1p-100), f.dtype).value();
    CHECK((f.has_infinity ? std::isinf(over) : std::isnan(over)));
  }
  CHECK(nearest(Interval(0x1p-1074) * Interval(0.5), DType::float64) == 0);
  CHECK(nearest(Interval(0x1p-1074) * Interval(0.75), DType::float64) == 0x1p-1074);
  CHECK(nearest(Interval(1e308) * Interval(10), DType::float64) == std::numeric_limits<double>::infinity());
  CHECK(std::signbit(nearest(Interval(-0x1p-1074) * Interval(0x1p-1000), DType::float64).value()));
}
