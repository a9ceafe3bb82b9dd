// Intervals with MPFR ends: every operation encloses all values that its operands enclose.
#pragma once

#include <mpfr.h>

#include <optional>
#include <utility>

#include "core/dtype.hpp"

namespace attest::golden {

/// Bits of significand of every Interval that is made from here on. At least 64, so that a double is exact.
void set_precision(long bits);

/// [lo, hi], lo <= hi, both finite. Lower ends are rounded down and upper ends up, so that the exact value of
/// a formula stays inside. Where all roundings were exact, lo = hi is the value itself. What is not defined
/// for all values of an operand throws std::logic_error.
class Interval {
 public:
  Interval(double exact = 0);  // a double is one, hence not explicit
  Interval(const Interval& other);
  Interval(Interval&& other) noexcept : Interval() { swap(other); }
  Interval& operator=(Interval other) noexcept {
    swap(other);
    return *this;
  }
  ~Interval();

  bool is_exact() const { return mpfr_equal_p(lo_, hi_) != 0; }
  bool is(double x) const { return mpfr_cmp_d(lo_, x) == 0 && mpfr_cmp_d(hi_, x) == 0; }
  bool is_positive() const { return mpfr_sgn(lo_) > 0; }
  bool is_negative() const { return mpfr_sgn(hi_) < 0; }
  /// Every value of this is at most every value of other, or less.
  bool is_at_most(const Interval& other) const { return mpfr_lessequal_p(hi_, other.lo_) != 0; }
  bool is_below(const Interval& other) const { return mpfr_less_p(hi_, other.lo_) != 0; }
  /// By the upper ends, to choose by; says nothing certain.
  bool seems_above(const Interval& other) const { return mpfr_greater_p(hi_, other.hi_) != 0; }

  Interval& operator+=(const Interval& x);
  Interval& operator-=(const Interval& x);
  Interval& operator*=(const Interval& x);
  Interval& operator/=(const Interval& x);  // x does not contain 0
  /// this += x y, for sums of many terms.
  Interval& add_product(double x, double y);
  Interval& add_product(const Interval& x, double y);
  Interval& add_product(const Interval& x, const Interval& y) { return *this += x * y; }

  friend Interval operator+(Interval x, const Interval& y) { return x += y; }
  friend Interval operator-(Interval x, const Interval& y) { return x -= y; }
  friend Interval operator*(Interval x, const Interval& y) { return x *= y; }
  friend Interval operator/(Interval x, const Interval& y) { return x /= y; }
  friend Interval operator-(const Interval& x);

  friend Interval exp(const Interval& x);
  friend Interval log(const Interval& x);    // x > 0
  friend Interval log1p(const Interval& x);  // x > -1
  friend Interval sqrt(const Interval& x);   // x >= 0
  friend Interval tanh(const Interval& x);
  friend Interval erfc(const Interval& x);
  friend Interval sin(const Interval& x);
  friend Interval cos(const Interval& x);
  friend Interval square(const Interval& x);
  friend Interval pi();
  /// A number that rounds to every element type as x + rest does, also where x is exact and rest so small
  /// that x + rest lies between x and the next number of this precision: every number at which a rounding
  /// changes is one of this precision, so that none lies strictly between them.
  friend Interval nudged(const Interval& x, const Interval& rest);
  /// floor(x), if all values of x agree on it; likewise the nearest value of an element type, ties to even:
  /// NaN where float8_e4m3fn overflows, and +0 for zero.
  friend std::optional<double> floor(const Interval& x);
  friend std::optional<double> nearest(const Interval& x, DType dtype);

 private:
  using Function = int (*)(mpfr_ptr, mpfr_srcptr, mpfr_rnd_t);
  static Interval increasing(Function f, const Interval& x);
  static Interval with_slope_below_one(Function f, const Interval& x);
  void swap(Interval& other) noexcept {
    mpfr_swap(lo_, other.lo_);
    mpfr_swap(hi_, other.hi_);
  }

  mpfr_t lo_, hi_;
};

Interval square(const Interval& x);
Interval pi();
Interval nudged(const Interval& x, const Interval& rest);
std::optional<double> floor(const Interval& x);
std::optional<double> nearest(const Interval& x, DType dtype);
Interval power(const Interval& base, const Interval& exponent);  // base > 0

}  // namespace attest::golden
