// Attention over disjoint sets of keys, merged into attention over all of them (flash decoding).
#pragma once

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>
#include <span>

#include "tiled/attention.hpp"

namespace attest::tiled {

/// What one worker found for all rows with its share of the keys, as attention_forward writes it. Rows that
/// saw none of them have m = -inf; their o and l are not read.
template <class Real>
struct Part {
  View<const Real, 3> o;  // [Hq, Sq, E]
  View<const Real, 2> m;  // [Hq, Sq], natural log
  View<const Real, 2> l;  // [Hq, Sq]; empty: m holds lse, as if l were 1
};

/// Row i of head h from all parts, in their order:
///   m = max m_n,  w_n = exp(m_n - m) l_n,  l = sum w_n,  o = sum w_n o_n / l,  lse = m + log l.
/// A sink belongs to one part only. A row whose parts all have m = -inf gets m = lse = -inf and l = 0; its o
/// is not written, and the result is false. Without l in the parts, m and l of the result mean something
/// together only. A NaN in m or l of a part makes the whole row NaN. `exponential` and `logarithm` are
/// functions of Real.
template <class Real, class Exponential, class Logarithm>
bool merge_row(std::span<const Part<Real>> parts, const Outputs<Real>& out, Index h, Index i,
               const Exponential& exponential, const Logarithm& logarithm) {
  constexpr Real infinity = std::numeric_limits<Real>::infinity();
  Real m = -infinity, l = 0;
  for (const Part<Real>& part : parts) m = std::max(m, part.m(h, i));
  const auto weight = [&](const Part<Real>& part) {
    return exponential(part.m(h, i) - m) * (part.l ? part.l(h, i) : Real{1});
  };
  const auto is_empty = [&](const Part<Real>& part) { return part.m(h, i) == -infinity; };
  for (const Part<Real>& part : parts) l += is_empty(part) ? Real{0} : weight(part);

  const bool has_keys = !std::all_of(parts.begin(), parts.end(), is_empty);
  const Real undefined = l - l;  // NaN where l is
  if (out.lse) out.lse(h, i) = has_keys ? m + logarithm(l) + undefined : -infinity;
  if (out.m) out.m(h, i) = has_keys ? m + undefined : -infinity;
  if (out.l) out.l(h, i) = l;
  if (!out.o || !has_keys) return has_keys;
  for (Index e = 0; e < out.o.extent(2); ++e) out.o(h, i, e) = undefined;
  for (const Part<Real>& part : parts) {
    if (is_empty(part)) continue;
    const Real share = weight(part) / l;
    for (Index e = 0; e < out.o.extent(2); ++e) out.o(h, i, e) += share * part.o(h, i, e);
  }
  return true;
}

template <class Real>
bool merge_row(std::span<const Part<Real>> parts, const Outputs<Real>& out, Index h, Index i) {
  return merge_row(
      parts, out, h, i, [](Real x) { return std::exp(x); }, [](Real x) { return std::log(x); });
}

/// All rows; o of those that saw no key keeps what it was.
template <class Real>
void merge(std::span<const Part<Real>> parts, const Outputs<Real>& out) {
  if (parts.empty()) return;
  for (Index h = 0; h < parts[0].m.extent(0); ++h) {
    for (Index i = 0; i < parts[0].m.extent(1); ++i) merge_row(parts, out, h, i);
  }
}

}  // namespace attest::tiled
