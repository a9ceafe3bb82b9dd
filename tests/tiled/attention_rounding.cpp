// How far may tiled's arithmetic be off? To first order, with the rest covered by the factor 1 + 1/64 of
// `slack`, which holds while every relative error below is under 2^-7; the bound is refused otherwise.
//
// u is the unit roundoff, eta the smallest subnormal and tiny = 2^emin the smallest normal number. Fused
// multiply-adds round once where (1) of docs/bounds.md counts twice. The elementary functions are within
// (tests/tiled/test_functions.cpp)
//   exp2: 4u relative, but never below tiny      log2: 4u (1 + |log2 x|) absolute      tanh: 12u relative
// and a product with a rounded constant costs 2u. n = Sk + 1 counts the sink, T <= n / tile + 2 the tiles.
//
//  s    q is multiplied with a rounded factor (3u), the sum has D products; softcap: tanh is 1-Lipschitz,
//  12u,
//       and a product with a constant, 2u; ALiBi: two products and a difference, 4u; bias: 3u. Together with
//       M = |scale| sum |q||k| + |alibi| + |bias|
//         E_s = (D + 24) u M + (D + 2) eta (1 + sum |k|),    e = max_j E_s
//  m    max is 1-Lipschitz; m ln 2 and sink log2(e) are products with constants:  E_m = e + 4u |m|
//  p    exp2(s - m_t) at the maximum of tile t, times exp2(m_t - m_t+1) at each later change of the maximum:
//       the differences are off by u times themselves, which add up to r = m - s; T + 1 exponentials, T
//       products. Below tiny an exponential stays at tiny, where l >= 1:
//         rho = 2e + u r + (T + 1) 4u + T u,    absolute 2 n tiny
//  l    r exp(-r) < 1/2 and n additions:
//         E_l = (2e + 4u (T + 1) + u (T + n)) l + u n / 2 + 2 n^2 tiny
//  lse  log-sum-exp is 1-Lipschitz in the scores; the relative error of l apart from them, log2, sum,
//  product:
//         E_lse = e + 4u (T + 1) + u (T + 3n/2) + 4u (1 + log2 n) + 4u |m| + 4u |lse| + 2 n^2 tiny
//  o    numerator and l as above, the shift common to all scores counted once, 1 / l and product, n
//  additions:
//         E_o = sum_j (rho + 4u (T + 1) + u (T + 5n/2 + 4)) p |v| + 2 n tiny sum |v| + n eta
//       rows without keys under mean_v: (n + 2) u mean |v|
//
// Per-step normalisation and merged parts join results more often, with J = 14u (T + 2) + 4u |m| in all:
//  tile   a tile's weights are relative to its own maximum: one more exponential, product and addition a tile
//       in l. In o the row sums in e l / l_new cancel as computed; left of a tile are an exponential, two
//       products and a quotient for each factor, and two products and an addition in o.
//  part   m_n and m are products with constants, |m_n| <= |m| + r, and their difference is off by u r:
//       together 4u |m| + 3u r; an exponential (2u), a product, a quotient, additions of T parts at most.
//         E_l grows by J l + 3u n / 2,  E_lse by J + 3u n / 2,
//         E_o by sum_j (J + 4u |m| + 3u r + 3u n / 2) p |v|
//
// ref obeys the same bounds with u = 2^-53: it has fewer operations of each kind.
#include "tests/tiled/attention_rounding.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <sstream>
#include <stdexcept>
#include <vector>

#include "ref/attention.hpp"
#include "tiled/attention.hpp"

namespace attest::test {
namespace {

constexpr double slack = 1 + 1.0 / 64;

template <class Real, int Rank>
Array<Real, Rank> converted(const Array<double, Rank>& x) {
  typename View<Real, Rank>::Extents extents;
  for (int r = 0; r < Rank; ++r) extents[r] = x.extent(r);
  Array<Real, Rank> result(extents);
  for (Index n = 0; n < x.size(); ++n) {
    result.data()[n] = static_cast<Real>(x.data()[n]);
    if (static_cast<double>(result.data()[n]) < x.data()[n] ||
        static_cast<double>(result.data()[n]) > x.data()[n])
      throw std::logic_error("converted: inexact");
  }
  return result;
}

template <class Real, int Rank>
void copy_to(Array<double, Rank>& to, const Array<Real, Rank>& from) {
  for (Index n = 0; n < from.size(); ++n) to.data()[n] = static_cast<double>(from.data()[n]);
}

/// What the derivation calls u, eta and tiny.
struct Arithmetic {
  double u, eta, tiny;
};
template <class Real>
Arithmetic arithmetic() {
  using Limits = std::numeric_limits<Real>;
  return {Limits::epsilon() / 2, Limits::denorm_min(), Limits::min()};
}

/// Adds the bounds of one row; s: its scores.
void bound_row(const AttentionProblem& problem, const Cut& cut, const ForwardTensors& value,
               View<const double, 1> s, Index h, Index i, const Arithmetic& x, ForwardTensors& bound) {
  const AttentionSpec& spec = problem.spec;
  const AttentionInputs in = problem.inputs();
  const auto [u, eta, tiny] = x;
  const Index g = in.kv_head(h);
  const double n = static_cast<double>(in.keys()) + 1, tiles = n / static_cast<double>(cut.tile) + 2;
  const double lse = value.lse(h, i), m = value.m(h, i), width = static_cast<double>(in.qk_width());

  if (lse == -std::numeric_limits<double>::infinity()) {
    for (Index c = 0; spec.empty_row == EmptyRow::mean_v && c < in.v_width(); ++c) {
      for (Index j = 0; j < in.keys(); ++j) {
        bound.o(h, i, c) += slack * (n + 2) * u * std::abs(in.v(g, j, c)) / (n - 1);
      }
    }
    return;
  }

  double e = 0;
  for (Index j = 0; j < in.keys(); ++j) {
    if (std::isinf(s(j))) continue;
    double magnitude = 0, sum_k = 0;
    for (Index d = 0; d < in.qk_width(); ++d) {
      magnitude += std::abs(spec.scale * in.q(h, i, d) * in.k(g, j, d));
      sum_k += std::abs(in.k(g, j, d));
    }
    if (in.alibi_slopes) {
      magnitude += std::abs(in.alibi_slopes(h) *
                            static_cast<double>(alibi_distance(spec.alibi, diagonal(spec, in, i), j)));
    }
    if (in.bias) magnitude += std::abs(in.bias(h, i, j));
    e = std::max(e, (width + 24) * u * magnitude + (width + 2) * eta * (1 + sum_k));
  }
  const double updates = 4 * u * (tiles + 1) + u * tiles;
  const double floor = 2 * n * tiny, joined = cut.joins ? 1 : 0;
  const double joins = joined * (14 * u * (tiles + 2) + 4 * u * std::abs(m) + 1.5 * u * n);
  bound.m(h, i) += slack * (e + 4 * u * std::abs(m));
  bound.l(h, i) += slack * ((2 * e + updates + u * n + joins) * value.l(h, i) + u * n / 2 + n * floor);
  bound.lse(h, i) += slack * (e + updates + joins + 1.5 * u * n + 4 * u * (1 + std::log2(n)) +
                              4 * u * (std::abs(m) + std::abs(lse)) + n * floor);
  for (Index j = 0; j < in.keys(); ++j) {
    if (std::isinf(s(j))) continue;
    const double relative = 2 * e + u * (m - s(j)) + 2 * updates + u * (2.5 * n + 4) + joins +
                            joined * u * (4 * std::abs(m) + 3 * (m - s(j)));
    const double p = std::exp(s(j) - lse);
    if (relative * p >= 0x1p-7) throw std::logic_error("bound_row: not small: " + problem.name());
    for (Index c = 0; c < in.v_width(); ++c) {
      bound.o(h, i, c) += slack * ((relative * p + floor) * std::abs(in.v(g, j, c)) + eta);
    }
  }
}

template <int Rank>
std::string compare(const char* name, const Array<double, Rank>& got, const Array<double, Rank>& want,
                    const Array<double, Rank>& bound) {
  for (Index n = 0; n < got.size(); ++n) {
    const double a = got.data()[n], b = want.data()[n];
    if (std::isnan(b) ? std::isnan(a) : a == b || std::abs(a - b) <= bound.data()[n]) continue;
    std::ostringstream out;
    out.precision(17);
    out << name << " element " << n << " is " << a << ", expected " << b << " within " << bound.data()[n];
    return out.str();
  }
  return {};
}

template <int Rank>
bool same_bits(const Array<double, Rank>& a, const Array<double, Rank>& b) {
  return a.size() == b.size() &&
         (a.size() == 0 || std::memcmp(a.data(), b.data(), static_cast<std::size_t>(a.size()) * 8) == 0);
}

}  // namespace

ForwardTensors::ForwardTensors(const AttentionInputs& in)
    : o({in.q_heads(), in.queries(), in.v_width()}), lse({in.q_heads(), in.queries()}), m(lse), l(lse) {}

template <class Real>
ForwardTensors run_tiled(const AttentionProblem& problem, tiled::Level level,
                         tiled::Normalisation normalisation) {
  const AttentionInputs in = problem.inputs();
  const Array<Real, 3> q = converted<Real>(problem.q), k = converted<Real>(problem.k),
                       v = converted<Real>(problem.v), mask = converted<Real>(problem.mask),
                       bias = converted<Real>(problem.bias);
  const Array<Real, 1> slopes = converted<Real>(problem.alibi_slopes), sink = converted<Real>(problem.sink);
  const tiled::Inputs<Real> inputs{q.view(),    k.view(),      v.view(),    mask.view(),
                                   bias.view(), slopes.view(), sink.view(), problem.past};
  // NaN shows whatever is not written.
  constexpr Real unwritten = std::numeric_limits<Real>::quiet_NaN();
  Array<Real, 3> o({in.q_heads(), in.queries(), in.v_width()}, unwritten);
  Array<Real, 2> lse({in.q_heads(), in.queries()}, unwritten), m(lse), l(lse);
  const tiled::Outputs<Real> outputs{o.view(), lse.view(), m.view(), l.view()};
  tiled::attention_forward<Real>(problem.spec, {&inputs, 1}, {&outputs, 1}, level, normalisation);
  ForwardTensors result(in);
  copy_to(result.o, o);
  copy_to(result.lse, lse);
  copy_to(result.m, m);
  copy_to(result.l, l);
  return result;
}
template ForwardTensors run_tiled<float>(const AttentionProblem&, tiled::Level, tiled::Normalisation);
template ForwardTensors run_tiled<double>(const AttentionProblem&, tiled::Level, tiled::Normalisation);

ReferenceForward reference_forward(const AttentionProblem& problem, const Cut& cut) {
  const AttentionInputs in = problem.inputs();
  ReferenceForward x{ForwardTensors(in), ForwardTensors(in), ForwardTensors(in)};
  Array<double, 3> s({in.q_heads(), in.queries(), in.keys()});
  ref::attention_forward(
      problem.spec, in,
      {x.value.o.view(), x.value.lse.view(), x.value.m.view(), x.value.l.view(), s.view(), {}});
  const Arithmetic single = arithmetic<float>(), twice = arithmetic<double>();
  for (Index h = 0; h < in.q_heads(); ++h) {
    for (Index i = 0; i < in.queries(); ++i) {
      const View<const double, 1> row = s.view().slice(h).slice(i);
      bound_row(problem, cut, x.value, row, h, i, single, x.bound_float);
      for (ForwardTensors* bound : {&x.bound_float, &x.bound_double, &x.bound_double}) {  // and ref's own
        bound_row(problem, cut, x.value, row, h, i, twice, *bound);
      }
    }
  }
  return x;
}

std::string first_disagreement(const ForwardTensors& got, const ForwardTensors& want,
                               const ForwardTensors& bound) {
  for (const std::string& text :
       {compare("o", got.o, want.o, bound.o), compare("m", got.m, want.m, bound.m),
        compare("l", got.l, want.l, bound.l), compare("lse", got.lse, want.lse, bound.lse)}) {
    if (!text.empty()) return text;
  }
  return {};
}

bool same_bits(const ForwardTensors& a, const ForwardTensors& b) {
  return same_bits(a.o, b.o) && same_bits(a.lse, b.lse) && same_bits(a.m, b.m) && same_bits(a.l, b.l);
}

}  // namespace attest::test
