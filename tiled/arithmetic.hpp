// The native arithmetic of both passes: vectors of Real, and scores in base 2.
#pragma once

#include "tiled/scores.hpp"

namespace attest::tiled::ATTEST_TILED_LEVEL {

/// What there is of a tile when a pass gives notice of it: scores, then weights, then what they were added
/// to.
enum class Stage { scores, weights, sums };

/// An arithmetic that nobody watches: tiled/traced.cpp copies tiles where notice of them is given.
struct Unwatched {
  template <class... Tile>
  ATTEST_ALWAYS_INLINE void notice(Stage, const Tile&...) const {}
};

/// Whatever rounds in the forward pass goes through an arithmetic, so that another one (tiled/emulated.cpp)
/// can round elsewhere in the same algorithm.
template <class R>
struct Native : Unwatched {
  using Real = R;
  static constexpr Index tile = key_tile, longest_tile = longest_key_tile;
  static constexpr Index grid = 1;          // tiles begin and end at multiples of it
  static constexpr bool takes_all = false;  // as in ScoreTile
  static constexpr bool sums_tiles_apart =
      false;  // weights of a tile are added up before they join the row sum

  NativeProducts<Real> qk{}, pv{};

  /// What q is multiplied with before the product, so that scores are exponents of 2.
  Real query_factor(const Head<Real>& head) const { return ATTEST_TILED_LEVEL::query_factor(head); }
  /// e^(s - m) of scores s and their maximum m.
  ATTEST_ALWAYS_INLINE Vector<Real> weight(Vector<Real> s, Vector<Real> m) const { return exp2<Real>(s - m); }
  /// e^(m_old - m_new) of two maxima.
  ATTEST_ALWAYS_INLINE Vector<Real> rescaling(Vector<Real> m_old, Vector<Real> m_new) const {
    return exp2<Real>(m_old - m_new);
  }
  /// A weight as an operand of P V.
  ATTEST_ALWAYS_INLINE Vector<Real> stored(Vector<Real> p) const { return p; }
  /// m, and m + log l, in natural logarithms.
  Vector<Real> natural(Vector<Real> m) const { return m * ln_2<Real>; }
  Vector<Real> lse(Vector<Real> m, Vector<Real> l) const { return (m + log2<Real>(l)) * ln_2<Real>; }
};

}  // namespace attest::tiled::ATTEST_TILED_LEVEL
