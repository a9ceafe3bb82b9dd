// Vectors of float or double and the elementary functions that attention needs, in compiler vector
// extensions.
//
// Everything in this room that depends on the instruction set is compiled once per level (x86-64-v2, v3, v4)
// into a namespace of that name, from kernels.cpp. Nothing there may be an inline function of another
// namespace: the linker would keep one copy of it, perhaps one with instructions that the machine lacks.
#pragma once

#include <cstdint>

#include "core/view.hpp"

#define ATTEST_ALWAYS_INLINE inline __attribute__((always_inline))
#define ATTEST_INLINE_LAMBDA __attribute__((always_inline))

namespace attest::tiled::ATTEST_TILED_LEVEL {

constexpr int vector_bytes = ATTEST_TILED_VECTOR_BYTES;
constexpr int vector_registers = vector_bytes == 64 ? 32 : 16;

template <class Real>
struct VectorOf {
  typedef Real Type __attribute__((vector_size(vector_bytes)));
  typedef Real Unaligned __attribute__((vector_size(vector_bytes), aligned(alignof(Real)), may_alias));
};
template <class Real>
using Vector = typename VectorOf<Real>::Type;
template <class Real>
constexpr int lanes = vector_bytes / static_cast<int>(sizeof(Real));

/// The integer of the same width, and the layout of the floating-point number.
template <class Real>
struct Layout;
template <>
struct Layout<float> {
  using Integer = std::int32_t;
  static constexpr int fraction_bits = 23, exponent_bias = 127;
};
template <>
struct Layout<double> {
  using Integer = std::int64_t;
  static constexpr int fraction_bits = 52, exponent_bias = 1023;
};
template <class Real>
using Integer = typename Layout<Real>::Integer;
template <class Real>
struct IntegersOf {
  typedef Integer<Real> Type __attribute__((vector_size(vector_bytes), may_alias));
};
template <class Real>
using Integers = typename IntegersOf<Real>::Type;

template <class Real>
ATTEST_ALWAYS_INLINE Vector<Real> load(const Real* p) {
  return (Vector<Real>)*reinterpret_cast<const typename VectorOf<Real>::Unaligned*>(p);
}
template <class Real>
ATTEST_ALWAYS_INLINE void store(Real* p, Vector<Real> x) {
  *reinterpret_cast<typename VectorOf<Real>::Unaligned*>(p) = x;
}
template <class Real>
ATTEST_ALWAYS_INLINE Vector<Real> broadcast(Real x) {
  return x - Vector<Real>{};
}

constexpr Index least(Index a, Index b) {
  return a < b ? a : b;
}
constexpr Index most(Index a, Index b) {
  return a > b ? a : b;
}
constexpr Index round_up(Index n, Index step) {
  return (n + step - 1) / step * step;
}

template <class Real>
constexpr Real infinity = static_cast<Real>(__builtin_inf());
template <class Real>
constexpr Real log2_of_e = static_cast<Real>(1.44269504088896340736L);
template <class Real>
constexpr Real ln_2 = static_cast<Real>(0.693147180559945309417L);

/// b where either is NaN, as the machine's maximum has it.
template <class Real>
ATTEST_ALWAYS_INLINE Vector<Real> maximum(Vector<Real> a, Vector<Real> b) {
  return a > b ? a : b;
}
/// The larger of a constant and x, NaN where x is NaN. Hiding the constant from the compiler keeps it from
/// exchanging the operands, which costs a comparison and a blend.
template <class Real>
ATTEST_ALWAYS_INLINE Vector<Real> at_least(Real constant, Vector<Real> x) {
  Vector<Real> c = broadcast(constant);
  asm("" : "+v"(c));
  return c > x ? c : x;
}
template <class Real>
ATTEST_ALWAYS_INLINE Vector<Real> at_most(Real constant, Vector<Real> x) {
  Vector<Real> c = broadcast(constant);
  asm("" : "+v"(c));
  return c < x ? c : x;
}

/// (2^f - 1) / f on |f| <= 1/2, interpolated at the Chebyshev nodes: 1 + f P(f) is within 5.1e-9 (float) and
/// 8.5e-18 (double) of 2^f.
template <class Real>
struct Exp2Polynomial;
template <>
struct Exp2Polynomial<float> {
  static constexpr int terms = 6;
  static constexpr float c[terms] = {6.93147188026228781e-1f, 2.40226507605681269e-1f,
                                     5.55035711421907782e-2f, 9.61808255727785149e-3f,
                                     1.33908633646712344e-3f, 1.54531629451206902e-4f};
};
template <>
struct Exp2Polynomial<double> {
  static constexpr int terms = 11;
  static constexpr double c[terms] = {6.93147180559945309e-1, 2.40226506959100982e-1, 5.55041086648215943e-2,
                                      9.61812910760688853e-3, 1.33335581464169353e-3, 1.54035304417360502e-4,
                                      1.52527338298361184e-5, 1.32154425879216897e-6, 1.01780624458457735e-7,
                                      7.07258596924922370e-9, 4.45496059818651839e-10};
};

/// x = n + f with n an integer and |f| <= 1/2: 2^n and P(f).
template <class Real>
struct Exp2Parts {
  Vector<Real> power, f, polynomial;
};
template <class Real>
ATTEST_ALWAYS_INLINE Exp2Parts<Real> exp2_parts(Vector<Real> x) {
  using L = Layout<Real>;
  // Adding 1.5 2^fraction_bits leaves n, and with the bias the exponent field of 2^n, in the lowest bits.
  constexpr Real shift = static_cast<Real>((Integer<Real>{3} << (L::fraction_bits - 1)) + L::exponent_bias);
  const Vector<Real> shifted = x + shift;
  const Vector<Real> power = (Vector<Real>)((Integers<Real>)shifted << L::fraction_bits);
  const Vector<Real> f = x - (shifted - shift);
  using P = Exp2Polynomial<Real>;
  Vector<Real> p = broadcast(P::c[P::terms - 1]);
#pragma GCC unroll 16
  for (int n = P::terms - 2; n >= 0; --n) p = p * f + P::c[n];
  return {power, f, p};
}

/// 2^x for x <= 1 + emax, with a relative error of at most 2^(2 - precision)
/// (tests/tiled/test_functions.cpp). Below 2^emin, the smallest normal value, it stays at 2^emin. NaN gives
/// NaN.
template <class Real>
ATTEST_ALWAYS_INLINE Vector<Real> exp2(Vector<Real> x) {
  const auto [power, f, p] = exp2_parts<Real>(at_least<Real>(1 - Layout<Real>::exponent_bias, x));
  return (p * f + Real{1}) * power;
}

/// tanh x. With e = exp(-2 |x|) - 1, computed without cancellation, it is -e / (2 + e) and the sign of x.
template <class Real>
ATTEST_ALWAYS_INLINE Vector<Real> tanh(Vector<Real> x) {
  const Vector<Real> magnitude = x < Real{0} ? -x : x;
  const Vector<Real> argument = magnitude * (-2 * log2_of_e<Real>);
  const auto [power, f, p] = exp2_parts<Real>(at_least<Real>(1 - Layout<Real>::exponent_bias, argument));
  const Vector<Real> e = p * f * power + (power - Real{1});
  const Vector<Real> t = -e / (Real{2} + e);
  return x < Real{0} ? -t : t;
}

/// log2 x of normal x. With x = 2^n (1 + r) / (1 - r), n log2 and the series of 2 artanh r, |r| < 0.172.
template <class Real>
ATTEST_ALWAYS_INLINE Vector<Real> log2(Vector<Real> x) {
  using L = Layout<Real>;
  constexpr Integer<Real> one = Integer<Real>{L::exponent_bias} << L::fraction_bits;
  constexpr Integer<Real> root_half =
      one - (Integer<Real>{1} << (L::fraction_bits - 1)) -
      static_cast<Integer<Real>>(0.0857864376269049512 * (Integer<Real>{1} << L::fraction_bits));
  const Integers<Real> n = ((Integers<Real>)x - root_half) >> L::fraction_bits;
  const Vector<Real> fraction = (Vector<Real>)((Integers<Real>)x - (n << L::fraction_bits));
  const Vector<Real> r = (fraction - Real{1}) / (fraction + Real{1});
  const Vector<Real> square = r * r;
  constexpr int terms = sizeof(Real) == 4 ? 5 : 11;
  Vector<Real> sum = broadcast(Real{1} / (2 * terms - 1));
#pragma GCC unroll 16
  for (int k = terms - 2; k >= 0; --k) sum = sum * square + Real{1} / static_cast<Real>(2 * k + 1);
  return r * sum * (2 * log2_of_e<Real>)+__builtin_convertvector(n, Vector<Real>);
}

}  // namespace attest::tiled::ATTEST_TILED_LEVEL
