// Vectors of double-double numbers: arithmetic, exp, log and tanh. The errors are derived in
// docs/double_double.md.
//
// Compiled once per instruction set level, as simd.hpp says, and with -ffp-contract=off: where a product and
// a sum are one operation, that is written out.
#pragma once

#include <immintrin.h>

#include "tiled/double_double_table.hpp"
#include "tiled/simd.hpp"

namespace attest::tiled::ATTEST_TILED_LEVEL {

using Doubles = Vector<double>;
using Longs = Integers<double>;
constexpr Index double_lanes = lanes<double>;
constexpr bool has_fused = vector_bytes > 16;

/// a b + c in one rounding; on x86-64-v2, which cannot, in two.
ATTEST_ALWAYS_INLINE Doubles multiply_add(Doubles a, Doubles b, Doubles c) {
#if ATTEST_TILED_VECTOR_BYTES == 64
  return (Doubles)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif ATTEST_TILED_VECTOR_BYTES == 32
  return (Doubles)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#else
  return a * b + c;
#endif
}

/// hi + lo; "normal" if hi is the double nearest to it.
struct Wide {
  Doubles hi, lo;
};

/// a + b exactly.
ATTEST_ALWAYS_INLINE Wide two_sum(Doubles a, Doubles b) {
  const Doubles s = a + b, a_part = s - b, b_part = s - a_part;
  return {s, (a - a_part) + (b - b_part)};
}
/// The same where |a| >= |b|, a = 0, or a is a multiple of ulp(b).
ATTEST_ALWAYS_INLINE Wide fast_two_sum(Doubles a, Doubles b) {
  const Doubles s = a + b;
  return {s, b - (s - a)};
}
/// The upper and the lower half of the bits (Veltkamp).
ATTEST_ALWAYS_INLINE Wide halves(Doubles a) {
  const Doubles scaled = a * 134217729.0, hi = scaled - (scaled - a);
  return {hi, a - hi};
}
/// a * b exactly; without fused operations, by Dekker's products of halves, where |a| and |b| < 2^996.
ATTEST_ALWAYS_INLINE Wide two_product(Doubles a, Doubles b) {
  const Doubles p = a * b;
  if constexpr (has_fused) return {p, multiply_add(a, b, -p)};
  const Wide x = halves(a), y = halves(b);
  return {p, ((x.hi * y.hi - p) + x.hi * y.lo + x.lo * y.hi) + x.lo * y.lo};
}

/// Off by 2^-103 (|x| + |y|).
ATTEST_ALWAYS_INLINE Wide add(Wide x, Wide y) {
  const Wide s = two_sum(x.hi, y.hi);
  return fast_two_sum(s.hi, s.lo + (x.lo + y.lo));
}
ATTEST_ALWAYS_INLINE Wide negated(Wide x) {
  return {-x.hi, -x.lo};
}
/// Off by 2^-102 relative, as the next two.
ATTEST_ALWAYS_INLINE Wide multiply(Wide x, Wide y) {
  const Wide p = two_product(x.hi, y.hi);
  return fast_two_sum(p.hi, multiply_add(x.hi, y.lo, multiply_add(x.lo, y.hi, p.lo)));
}
ATTEST_ALWAYS_INLINE Wide multiply(Wide x, Doubles y) {
  const Wide p = two_product(x.hi, y);
  return fast_two_sum(p.hi, multiply_add(x.lo, y, p.lo));
}
ATTEST_ALWAYS_INLINE Wide divide(Wide x, Wide y) {
  const Doubles q = x.hi / y.hi;
  const Wide p = multiply(y, q);
  return fast_two_sum(q, ((x.hi - p.hi) + (x.lo - p.lo)) / y.hi);
}

ATTEST_ALWAYS_INLINE Wide where(Longs condition, Wide yes, Wide no) {
  return {condition ? yes.hi : no.hi, condition ? yes.lo : no.lo};
}
ATTEST_ALWAYS_INLINE Doubles absolute(Doubles x) {
  return (Doubles)((Longs)x & 0x7fffffffffffffff);
}

/// n ln 2 for an integer n < 2^53.
ATTEST_ALWAYS_INLINE Wide times_ln_2(Doubles n) {
  return multiply(Wide{broadcast(0x1.62e42fefa39efp-1), broadcast(0x1.abc9e3b39803fp-56)}, n);
}

// exp(x) = 2^k 2^(j/64) exp(f), 0 <= j < 64 and |f| < 0.0055, in three steps: callers that take many run each
// over all of them, because one alone is a long chain of operations that wait for each other.

/// `n` holds 64 k + j in its lowest bits, and with them the exponent field of 2^k.
struct ExpArgument {
  Wide f;
  Doubles n;
};
/// For x < 709. Below -700, so for -inf whatever lo is, 2^k becomes 0.
ATTEST_ALWAYS_INLINE ExpArgument reduced(Wide x) {
  constexpr double shift = 0x1.8p52 + 1023 * 64;
  const Doubles limited = at_most(709.0, at_least(-701.0, x.hi));
  const Doubles shifted = multiply_add(limited, broadcast(0x1.71547652b82fep+6), broadcast(shift));
  const Doubles n = shifted - shift;
  // ln(2) / 64 in three parts, the first of 36 bits: n times it is exact, and so is what it leaves of x.
  const Doubles left = x.hi - n * 0x1.62e42fefap-7;
  const Wide second = two_product(n, broadcast(0x1.cf79abc9e3b3ap-46));
  const Wide d = two_sum(left, -second.hi);
  const Doubles third = multiply_add(n, broadcast(-0x1.ff0342542fc33p-100), second.lo);
  const Wide f = fast_two_sum(d.hi, (d.lo + x.lo) - third);
  const Longs is_small = x.hi < -700.0;
  return {where(is_small, {Doubles{}, Doubles{}}, f), is_small ? broadcast(0x1.8p52) : shifted};
}

/// exp(f) - 1 = f + f^2/2 + ..., not normal: |lo| < 2^-50 |hi|. From f^6 on double is enough.
ATTEST_ALWAYS_INLINE Wide exp_series(Wide f) {
  Doubles tail = broadcast(0x1.27e4fb7789f5cp-22);  // 1/10!
  tail = multiply_add(tail, f.hi, broadcast(0x1.71de3a556c734p-19));
  tail = multiply_add(tail, f.hi, broadcast(0x1.a01a01a01a01ap-16));
  tail = multiply_add(tail, f.hi, broadcast(0x1.a01a01a01a01ap-13));
  tail = multiply_add(tail, f.hi, broadcast(0x1.6c16c16c16c17p-10));
  constexpr double inverse_factorial[][2] = {{0x1.1111111111111p-7, 0x1.1111111111111p-63},  // 1/5!
                                             {0x1.5555555555555p-5, 0x1.5555555555555p-59},
                                             {0x1.5555555555555p-3, 0x1.5555555555555p-57},
                                             {0.5, 0},
                                             {1, 0}};
  Wide p = {tail * f.hi, Doubles{}};
#pragma GCC unroll 8
  for (int k = 0; k < 5; ++k) {  // p = c_k + p, and times f
    const Wide sum = fast_two_sum(broadcast(inverse_factorial[k][0]), p.hi);
    p = {sum.hi, sum.lo + (p.lo + inverse_factorial[k][1])};
    const Wide product = two_product(p.hi, f.hi);
    p = {product.hi, multiply_add(p.hi, f.lo, multiply_add(p.lo, f.hi, product.lo))};
  }
  return p;
}

struct ExpScale {
  Doubles power;  // 2^k
  Wide t;         // 2^(j/64)
};
ATTEST_ALWAYS_INLINE ExpScale exp_scale(Doubles n) {
  const Longs bits = (Longs)n;
  ExpScale e{(Doubles)((bits >> 6) << 52), {}};
  for (Index i = 0; i < double_lanes; ++i) {
    const double* entry = power_of_two_table[bits[i] & 63];
    e.t.hi[i] = entry[0];
    e.t.lo[i] = entry[1];
  }
  return e;
}

/// 2^k t (1 + r).
ATTEST_ALWAYS_INLINE Wide scaled_exp(Doubles n, Wide r) {
  const auto [power, t] = exp_scale(n);
  const Wide p = two_product(t.hi, r.hi);
  const Doubles p_lo = multiply_add(t.hi, r.lo, multiply_add(t.lo, r.hi, p.lo));
  const Wide s = fast_two_sum(t.hi, p.hi);
  const Wide y = fast_two_sum(s.hi, s.lo + (t.lo + p_lo));
  return {y.hi * power, y.lo * power};
}

/// exp(x) for x = hi + lo: off by 2^-101 + 2^-105 |x| relative. 0 below -700, so for -inf whatever lo is,
/// infinity above 709; NaN gives NaN.
ATTEST_ALWAYS_INLINE Wide exp(Wide x) {
  const ExpArgument e = reduced(x);
  return where(x.hi > 709.0, {broadcast(infinity<double>), Doubles{}}, scaled_exp(e.n, exp_series(e.f)));
}

/// exp(x) - 1 for x <= 0: off by 2^-97 relative. -1 below -700.
ATTEST_ALWAYS_INLINE Wide exp_minus_one(Wide x) {
  const ExpArgument e = reduced(x);
  const ExpScale scale = exp_scale(e.n);
  const Wide t = {scale.t.hi * scale.power, scale.t.lo * scale.power}, r = exp_series(e.f);
  const Wide p = two_product(t.hi, r.hi);
  const Doubles p_lo = multiply_add(t.hi, r.lo, multiply_add(t.lo, r.hi, p.lo));
  const Wide less_one = two_sum(t.hi, broadcast(-1.0));
  const Wide s = two_sum(less_one.hi, p.hi);
  return fast_two_sum(s.hi, s.lo + (less_one.lo + (t.lo + p_lo)));
}

/// tanh x and 1 - tanh^2 x. With e = exp(-2 |x|) - 1 they are -e / (2 + e) with the sign of x, and
/// 4 (1 + e) / (2 + e)^2.
struct TanhAndSlope {
  Wide tanh, slope;
};
ATTEST_ALWAYS_INLINE TanhAndSlope tanh_and_slope(Wide x) {
  const Longs is_negative = x.hi < 0.0;
  const Wide magnitude = where(is_negative, negated(x), x);
  const Wide argument = {-2.0 * magnitude.hi, -2.0 * magnitude.lo};
  const Wide e = exp_minus_one(argument), one_more = exp(argument);
  const Wide denominator = add({broadcast(2.0), Doubles{}}, e);
  const Wide t = divide(negated(e), denominator), half = divide({broadcast(2.0), Doubles{}}, denominator);
  return {where(is_negative, negated(t), t), multiply(multiply(one_more, half), half)};
}

/// ln x for 2^-1000 < x < 2^1000: off by 2^-99 (1 + |ln x|). 0 gives -inf, NaN gives NaN.
ATTEST_ALWAYS_INLINE Wide log(Wide x) {
  Doubles y = x.hi;
  for (Index i = 0; i < double_lanes; ++i) y[i] = __builtin_log(x.hi[i]);
  // x exp(-y) = 1 + z with z of a few 2^-53, and ln(1 + z) = z - z^2 / 2 + ...
  const Wide e = multiply(x, exp({-y, Doubles{}}));
  const Doubles z = (e.hi - 1.0) + e.lo;
  const Wide result = fast_two_sum(y, z - 0.5 * z * z);
  return where(x.hi == 0.0, {broadcast(-infinity<double>), Doubles{}}, result);
}

}  // namespace attest::tiled::ATTEST_TILED_LEVEL
