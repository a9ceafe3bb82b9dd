// A row of queries that would be alone in a vector: the last of 577, or the one of decoding. Its lanes are
// keys, and columns of v; otherwise it is a panel like any other.
#pragma once

#include "tiled/arithmetic.hpp"

namespace attest::tiled::ATTEST_TILED_LEVEL {

/// s[j] = sum over d of q[d] k[j, d] for the keys [0, keys). Writes whole vectors.
template <class Real>
__attribute__((noinline)) void multiply_query(const Real* q, const Rows<Real>& k, Index depth, Index keys,
                                              Real* s) {
  constexpr Index w = lanes<Real>;
  const Index whole = depth / w * w;
  for (Index j = 0; j < keys; j += w) {
    const Real* row[w];
    Vector<Real> sums[w];
#pragma GCC unroll 16
    for (Index n = 0; n < w; ++n) {
      row[n] = k.data + least(j + n, keys - 1) * k.stride;
      sums[n] = Vector<Real>{};
    }
    for (Index d = 0; d < whole; d += w) {
      const Vector<Real> x = load(q + d);
#pragma GCC unroll 16
      for (Index n = 0; n < w; ++n) {
        sums[n] += x * load(row[n] + d);
        __builtin_prefetch(row[n] + w * k.stride + d, 0, 2);
      }
    }
    Vector<Real> sum = sums_of_lanes<Real>(sums);
    for (Index d = whole; d < depth; ++d) {
      for (Index n = 0; n < w; ++n) sum[n] += q[d] * row[n][d];
    }
    store(s + j, sum);
  }
}

/// As `attend`, which it stands beside, for a panel of one row. Lane 0 of its m and l counts.
template <class Arithmetic, class Panel, class Scratch, class Real = typename Arithmetic::Real>
void attend_alone(const Arithmetic& arithmetic, Normalisation normalisation, Panel& panel,
                  const Rows<Real>& k, const Rows<Real>& v, const Scratch& own) {
  constexpr Index w = lanes<Real>;
  const auto& tile = panel.tile;
  const auto [first, last] = tile.some[0];
  const Index keys = last - first;
  for (Index j = first; j < last; ++j) {  // one row alone waits for memory, not for sums
    for (Index e = 0; e < own.o_stride; e += w) __builtin_prefetch(v.data + j * v.stride + e, 0, 2);
  }
  multiply_query(panel.q, {k.data + first * k.stride, k.stride}, tile.head.q.columns, keys, own.s);  // 8

  const Vector<Real> hidden = broadcast(-infinity<Real>);
  Vector<Real> largest = hidden;  // 9: m, P, l
  for (Index j = 0; j < keys; j += w) {
    Vector<Real> s = load(own.s + j);
    if (is_adjusted(tile.head)) {
      s = tile.adjusted(s, [&](Index i) {
        return Place{tile.first_row, tile.first_key + first + least(j + i, keys - 1)};
      });
    }
    for (Index i = keys - j; i < w; ++i) s[i] = -infinity<Real>;
    largest = maximum<Real>(largest, s);
    store(own.s + j, s);
  }
  Real m = panel.m[0][0];
  for (Index i = 0; i < w; ++i) m = m > largest[i] ? m : largest[i];
  const Vector<Real> reference = broadcast(m == -infinity<Real> ? Real{0} : m);
  Vector<Real> sum{};
  for (Index j = 0; j < keys; j += w) {
    const Vector<Real> s = load(own.s + j);
    const Vector<Real> p = s == hidden ? Vector<Real>{} : arithmetic.weight(s, reference);
    sum += p;
    store(own.s + j, p);
  }
  Real factor = arithmetic.rescaling(panel.m[0], reference)[0], l = panel.l[0][0] * factor;
  for (Index i = 0; i < w; ++i) l += sum[i];

  if (normalisation == Normalisation::per_step) {  // 10, or 12 of FlashAttention-1
    const Real inverse = l == 0 ? Real{0} : Real{1} / l;
    for (Index j = 0; j < keys; j += w) store(own.s + j, load(own.s + j) * inverse);
    factor *= panel.l[0][0] * inverse;
  }
  arithmetic.pv.template multiply<Operand::plain>(
      {keys, own.s, 0, v.data + first * v.stride, v.stride, panel.o, own.o_stride, true, &factor}, 1,
      own.o_stride / w);
  panel.m[0] = broadcast(m);
  panel.l[0] = broadcast(l);
}

}  // namespace attest::tiled::ATTEST_TILED_LEVEL
