// Numbers of about 106 bits, as unevaluated sums of two doubles (Dekker 1971; Joldes, Muller and Popescu,
// Tight and rigorous error bounds for basic building blocks of double-word arithmetic, ACM TOMS 2017).
#pragma once

#include <cmath>

namespace attest {

/// hi + lo, hi the double nearest to it. The operations are off by at most 2^-100 relative, as long as
/// nothing overflows or comes near the smallest normal double.
struct DoubleDouble {
  double hi = 0, lo = 0;

  DoubleDouble() = default;
  DoubleDouble(double h, double l = 0) : hi(h), lo(l) {}  // a double is one, hence not explicit
};

/// a + b exactly.
inline DoubleDouble two_sum(double a, double b) {
  const double s = a + b, a_part = s - b, b_part = s - a_part;
  return {s, (a - a_part) + (b - b_part)};
}

/// The same where |a| >= |b| or a = 0.
inline DoubleDouble fast_two_sum(double a, double b) {
  const double s = a + b;
  return {s, b - (s - a)};
}

/// a * b exactly.
inline DoubleDouble two_product(double a, double b) {
  const double p = a * b;
  return {p, std::fma(a, b, -p)};
}

inline DoubleDouble operator+(DoubleDouble x, DoubleDouble y) {
  const DoubleDouble s = two_sum(x.hi, y.hi), t = two_sum(x.lo, y.lo);
  const DoubleDouble v = fast_two_sum(s.hi, s.lo + t.hi);
  return fast_two_sum(v.hi, t.lo + v.lo);
}

inline DoubleDouble operator-(DoubleDouble x) {
  return {-x.hi, -x.lo};
}

inline DoubleDouble operator-(DoubleDouble x, DoubleDouble y) {
  return x + -y;
}

inline DoubleDouble operator*(DoubleDouble x, DoubleDouble y) {
  const DoubleDouble p = two_product(x.hi, y.hi);
  return fast_two_sum(p.hi, std::fma(x.hi, y.lo, std::fma(x.lo, y.hi, p.lo)));
}

inline DoubleDouble operator/(DoubleDouble x, DoubleDouble y) {
  const double q = x.hi / y.hi;
  const DoubleDouble rest = x - y * q;
  const double next = rest.hi / y.hi;
  const DoubleDouble last = rest - y * next;
  return DoubleDouble(q) + DoubleDouble(next) + DoubleDouble(last.hi / y.hi);
}

}  // namespace attest
