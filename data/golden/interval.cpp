// Intervals with MPFR ends.
#include "data/golden/interval.hpp"

#include <bit>
#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace attest::golden {
namespace {

long precision = 256;

/// A number of the current precision for intermediate results, kept for each thread and use.
struct Scratch {
  mpfr_t x;
  Scratch() { mpfr_init2(x, precision); }
  ~Scratch() { mpfr_clear(x); }
  mpfr_ptr get() {
    if (mpfr_get_prec(x) != precision) mpfr_set_prec(x, precision);
    return x;
  }
};

/// The double whose rounding to any narrower format is that of x: rounded to odd (Boldo and Melquiond, When
/// double rounding is odd, 2005). It needs two more bits than the format, and subnormals below the format's.
double rounded_to_odd(mpfr_srcptr x) {
  const double toward_zero = mpfr_get_d(x, MPFR_RNDZ);
  if (mpfr_cmp_d(x, toward_zero) == 0) return toward_zero;
  return std::bit_cast<double>(std::bit_cast<std::uint64_t>(toward_zero) | 1);
}

double rounded(mpfr_srcptr x, DType dtype) {
  if (mpfr_zero_p(x)) return 0;
  return dtype == DType::float64 ? mpfr_get_d(x, MPFR_RNDN) : round_to(rounded_to_odd(x), dtype);
}

/// A formula that leaves its domain must not end in a golden.
void require(bool holds, const char* what) {
  if (!holds) throw std::logic_error(std::string("golden tensors: ") + what);
}

bool same_value(double a, double b) {
  return (std::isnan(a) && std::isnan(b)) || (a == b && std::signbit(a) == std::signbit(b));
}

}  // namespace

void set_precision(long bits) {
  precision = bits;
  mpfr_set_emin(mpfr_get_emin_min());
  mpfr_set_emax(mpfr_get_emax_max());
}

Interval::Interval(double exact) {
  require(std::isfinite(exact), "an interval of what is not finite");
  mpfr_init2(lo_, precision);
  mpfr_init2(hi_, precision);
  mpfr_set_d(lo_, exact, MPFR_RNDD);
  mpfr_set_d(hi_, exact, MPFR_RNDU);
}

Interval::Interval(const Interval& other) {
  mpfr_init2(lo_, mpfr_get_prec(other.lo_));
  mpfr_init2(hi_, mpfr_get_prec(other.hi_));
  mpfr_set(lo_, other.lo_, MPFR_RNDD);
  mpfr_set(hi_, other.hi_, MPFR_RNDU);
}

Interval::~Interval() {
  mpfr_clear(lo_);
  mpfr_clear(hi_);
}

Interval& Interval::operator+=(const Interval& x) {
  mpfr_add(lo_, lo_, x.lo_, MPFR_RNDD);
  mpfr_add(hi_, hi_, x.hi_, MPFR_RNDU);
  return *this;
}

Interval& Interval::operator-=(const Interval& x) {
  thread_local Scratch scratch;
  const mpfr_ptr low = scratch.get();  // x may be *this
  mpfr_sub(low, lo_, x.hi_, MPFR_RNDD);
  mpfr_sub(hi_, hi_, x.lo_, MPFR_RNDU);
  mpfr_set(lo_, low, MPFR_RNDD);
  return *this;
}

Interval operator-(const Interval& x) {
  Interval y;
  mpfr_neg(y.lo_, x.hi_, MPFR_RNDD);
  mpfr_neg(y.hi_, x.lo_, MPFR_RNDU);
  return y;
}

Interval& Interval::operator*=(const Interval& x) {
  Interval y;
  if (mpfr_sgn(x.lo_) >= 0) {  // the usual case, with two products
    mpfr_mul(y.lo_, lo_, mpfr_sgn(lo_) >= 0 ? x.lo_ : x.hi_, MPFR_RNDD);
    mpfr_mul(y.hi_, hi_, mpfr_sgn(hi_) >= 0 ? x.hi_ : x.lo_, MPFR_RNDU);
  } else {
    const mpfr_srcptr ends[2][2] = {{lo_, hi_}, {x.lo_, x.hi_}};
    Interval product;
    for (int n = 0; n < 4; ++n) {
      mpfr_mul(product.lo_, ends[0][n / 2], ends[1][n % 2], MPFR_RNDD);
      mpfr_mul(product.hi_, ends[0][n / 2], ends[1][n % 2], MPFR_RNDU);
      if (n == 0 || mpfr_less_p(product.lo_, y.lo_)) mpfr_set(y.lo_, product.lo_, MPFR_RNDD);
      if (n == 0 || mpfr_greater_p(product.hi_, y.hi_)) mpfr_set(y.hi_, product.hi_, MPFR_RNDU);
    }
  }
  swap(y);
  return *this;
}

Interval& Interval::operator/=(const Interval& x) {
  require(x.is_positive() || x.is_negative(), "a quotient by what may be 0");
  if (x.is_negative()) {
    *this = -*this;
    return *this /= -x;
  }
  Interval y;
  mpfr_div(y.lo_, lo_, mpfr_sgn(lo_) >= 0 ? x.hi_ : x.lo_, MPFR_RNDD);
  mpfr_div(y.hi_, hi_, mpfr_sgn(hi_) >= 0 ? x.lo_ : x.hi_, MPFR_RNDU);
  swap(y);
  return *this;
}

Interval& Interval::add_product(double x, double y) {
  const double product = x * y, rest = std::fma(x, y, -product);
  const bool is_exact = rest == 0 && (product != 0 || x == 0 || y == 0) && std::isfinite(product);
  if (!is_exact) return add_product(Interval(x), y);
  mpfr_add_d(lo_, lo_, product, MPFR_RNDD);
  mpfr_add_d(hi_, hi_, product, MPFR_RNDU);
  return *this;
}

Interval& Interval::add_product(const Interval& x, double y) {
  thread_local Scratch scratch;
  const mpfr_ptr product = scratch.get();
  mpfr_mul_d(product, y >= 0 ? x.lo_ : x.hi_, y, MPFR_RNDD);
  mpfr_add(lo_, lo_, product, MPFR_RNDD);
  mpfr_mul_d(product, y >= 0 ? x.hi_ : x.lo_, y, MPFR_RNDU);
  mpfr_add(hi_, hi_, product, MPFR_RNDU);
  return *this;
}

Interval Interval::increasing(Function f, const Interval& x) {
  Interval y;
  f(y.lo_, x.lo_, MPFR_RNDD);
  f(y.hi_, x.hi_, MPFR_RNDU);
  return y;
}

/// Of a function that moves by no more than its argument: its value at the lower end, widened by hi - lo.
Interval Interval::with_slope_below_one(Function f, const Interval& x) {
  Interval y, width;
  mpfr_sub(width.hi_, x.hi_, x.lo_, MPFR_RNDU);
  f(y.lo_, x.lo_, MPFR_RNDD);
  f(y.hi_, x.lo_, MPFR_RNDU);
  mpfr_sub(y.lo_, y.lo_, width.hi_, MPFR_RNDD);
  mpfr_add(y.hi_, y.hi_, width.hi_, MPFR_RNDU);
  return y;
}

Interval exp(const Interval& x) {
  return Interval::increasing(mpfr_exp, x);
}
Interval log(const Interval& x) {
  require(x.is_positive(), "the logarithm of what may not be positive");
  return Interval::increasing(mpfr_log, x);
}
Interval log1p(const Interval& x) {
  return Interval::increasing(mpfr_log1p, x);
}
Interval sqrt(const Interval& x) {
  require(mpfr_sgn(x.lo_) >= 0, "the root of what may be negative");
  return Interval::increasing(mpfr_sqrt, x);
}
Interval tanh(const Interval& x) {
  return Interval::increasing(mpfr_tanh, x);
}
Interval erfc(const Interval& x) {
  Interval y;
  mpfr_erfc(y.lo_, x.hi_, MPFR_RNDD);
  mpfr_erfc(y.hi_, x.lo_, MPFR_RNDU);
  return y;
}
Interval sin(const Interval& x) {
  return Interval::with_slope_below_one(mpfr_sin, x);
}
Interval cos(const Interval& x) {
  return Interval::with_slope_below_one(mpfr_cos, x);
}

Interval square(const Interval& x) {
  if (x.is_negative()) return square(-x);
  Interval y;
  if (mpfr_sgn(x.lo_) >= 0) {
    mpfr_sqr(y.lo_, x.lo_, MPFR_RNDD);
    mpfr_sqr(y.hi_, x.hi_, MPFR_RNDU);
  } else {  // x contains 0
    mpfr_sqr(y.hi_, mpfr_cmpabs(x.lo_, x.hi_) > 0 ? x.lo_ : x.hi_, MPFR_RNDU);
  }
  return y;
}

Interval pi() {
  Interval y;
  mpfr_const_pi(y.lo_, MPFR_RNDD);
  mpfr_const_pi(y.hi_, MPFR_RNDU);
  return y;
}

Interval nudged(const Interval& x, const Interval& rest) {
  Interval sum = x + rest;
  const bool is_up = rest.is_positive();
  if (!x.is_exact() || x.is(0) || (!is_up && !rest.is_negative())) return sum;
  mpfr_srcptr near = is_up ? sum.lo_ : sum.hi_, far = is_up ? sum.hi_ : sum.lo_;
  if (!mpfr_equal_p(near, x.lo_)) return sum;
  Interval next = x;
  is_up ? mpfr_nextabove(next.lo_) : mpfr_nextbelow(next.lo_);
  if (!mpfr_equal_p(far, next.lo_)) return sum;
  mpfr_set_prec(sum.lo_, precision + 2);
  mpfr_add(sum.lo_, x.lo_, next.lo_, MPFR_RNDN);
  mpfr_div_2ui(sum.lo_, sum.lo_, 1, MPFR_RNDN);
  mpfr_set_prec(sum.hi_, precision + 2);
  mpfr_set(sum.hi_, sum.lo_, MPFR_RNDN);
  return sum;
}

Interval power(const Interval& base, const Interval& exponent) {
  return exp(exponent * log(base));
}

std::optional<double> floor(const Interval& x) {
  Interval y =
      Interval::increasing([](mpfr_ptr r, mpfr_srcptr a, mpfr_rnd_t) { return mpfr_floor(r, a); }, x);
  if (!y.is_exact()) return std::nullopt;
  return mpfr_get_d(y.lo_, MPFR_RNDN);
}

std::optional<double> nearest(const Interval& x, DType dtype) {
  require(mpfr_number_p(x.lo_) && mpfr_number_p(x.hi_), "the rounding of what is not finite");
  // Rounding is monotonic: where both ends round to the same value, so does everything between them.
  const double low = rounded(x.lo_, dtype), high = rounded(x.hi_, dtype);
  if (!same_value(low, high)) return std::nullopt;
  return low;
}

}  // namespace attest::golden
