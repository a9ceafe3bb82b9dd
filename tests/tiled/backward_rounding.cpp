// How far may tiled's backward pass be off?
//
// To first order, with u, eta, tiny, M, E_s and slack as in attention_rounding.cpp and R = group Sq rows:
//  p     exp2(s - lse) with lse log2(e), floored at tiny:  rho = E_s + u |s - lse| + 3u |lse| + 4u,  + tiny
//  ds    dp and delta have E products: E_dp = (E + 1) u sum|do||v|, E_delta = (E + 1) u sum|do||o|:
//          E_ds = |ds| (rho + 2u) + p (E_dp + E_delta) + tiny (|dp| + |delta|)
//  slope 1 - tanh^2:  E_slope = 2 E_s / softcap + 26u, or 0 without softcap
//  dq    n products and additions, the scale:
//          E_dq = sum_j |scale k| (slope E_ds + |ds| E_slope) + (n + 4) u sum|scale slope ds k| + n eta
//  dk    the same with R terms in at most 16 parts: (R + 20) u
//  dv    rho p + tiny and (R + 20) u p, times |do|
//  dsink in double but for delta, then rounded:
//          sum p_sink (E_delta + 2^-53 (Sq + 8 + 3 |lse|) |delta|) + u |dsink|
// ref obeys the same bounds with u = 2^-53. Empty rows under mean_v: dv gains (R + 20) u |do| / Sk.
// o and lse that are off by c of themselves add c |lse| to rho and c sum|do||o| to E_delta.
#include "tests/tiled/backward_rounding.hpp"

#include <cmath>
#include <limits>
#include <stdexcept>
#include <vector>

#include "ref/attention.hpp"
#include "tests/tiled/attention_rounding.hpp"
#include "tiled/attention.hpp"

namespace attest::test {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

template <class Real>
struct Converted {
  Array<Real, 3> q, k, v, mask, bias, o, d_o;
  Array<Real, 1> slopes, sink;
  Array<Real, 2> lse;

  template <int Rank>
  static Array<Real, Rank> of(const Array<double, Rank>& x) {
    typename View<Real, Rank>::Extents extents;
    for (int r = 0; r < Rank; ++r) extents[r] = x.extent(r);
    Array<Real, Rank> result(extents);
    for (Index n = 0; n < x.size(); ++n) result.data()[n] = static_cast<Real>(x.data()[n]);
    return result;
  }
};

template <int Rank>
std::string compare(const char* name, const Array<double, Rank>& got, const Array<double, Rank>& want,
                    const Array<double, Rank>& bound) {
  for (Index n = 0; n < got.size(); ++n) {
    const double a = got.data()[n], b = want.data()[n];
    if (std::isnan(b) ? std::isnan(a) : a == b || std::abs(a - b) <= bound.data()[n]) continue;
    return std::string(name) + " element " + std::to_string(n) + " is " + std::to_string(a) + ", expected " +
           std::to_string(b) + " within " + std::to_string(bound.data()[n]);
  }
  return {};
}

}  // namespace

GradientTensors::GradientTensors(const AttentionInputs& in)
    : dq({in.q_heads(), in.queries(), in.qk_width()}),
      dk({in.kv_heads(), in.keys(), in.qk_width()}),
      dv({in.kv_heads(), in.keys(), in.v_width()}),
      ds({in.q_heads(), in.queries(), in.keys()}),
      dsink({in.sink ? in.q_heads() : 0}) {}

SavedTensors::SavedTensors(const AttentionProblem& problem) {
  const ReferenceForward forward = reference_forward(problem);
  o = forward.value.o;
  lse = forward.value.lse;
  for (Index n = 0; n < o.size(); ++n) o.data()[n] = static_cast<float>(o.data()[n]);
  for (Index n = 0; n < lse.size(); ++n) lse.data()[n] = static_cast<float>(lse.data()[n]);
}

GradientTensors reference_backward(const AttentionProblem& problem, const SavedTensors& saved) {
  GradientTensors want(problem.inputs());
  ref::attention_backward(
      problem.spec, problem.inputs(), {saved.o.view(), saved.lse.view(), problem.d_o.view()},
      {want.dq.view(), want.dk.view(), want.dv.view(), want.ds.view(), want.dsink.view()});
  return want;
}

template <class Real>
GradientTensors run_tiled_backward(const AttentionProblem& problem, const SavedTensors& saved,
                                   tiled::Level level) {
  using C = Converted<Real>;
  const C x{C::of(problem.q),    C::of(problem.k), C::of(problem.v),   C::of(problem.mask),
            C::of(problem.bias), C::of(saved.o),   C::of(problem.d_o), C::of(problem.alibi_slopes),
            C::of(problem.sink), C::of(saved.lse)};
  const tiled::Inputs<Real> in{x.q.view(),    x.k.view(),      x.v.view(),    x.mask.view(),
                               x.bias.view(), x.slopes.view(), x.sink.view(), problem.past};
  const tiled::Saved<Real> given{x.o.view(), x.lse.view(), x.d_o.view()};
  GradientTensors result(problem.inputs());
  constexpr Real unwritten = std::numeric_limits<Real>::quiet_NaN();
  const auto blank = [](const Array<double, 3>& like) {
    return Array<Real, 3>({like.extent(0), like.extent(1), like.extent(2)}, unwritten);
  };
  Array<Real, 3> dq = blank(result.dq), dk = blank(result.dk), dv = blank(result.dv), ds = blank(result.ds);
  Array<Real, 1> dsink({result.dsink.size()}, unwritten);
  const tiled::Gradients<Real> out{dq.view(), dk.view(), dv.view(), ds.view(), dsink.view()};
  tiled::attention_backward<Real>(problem.spec, {&in, 1}, {&given, 1}, {&out, 1}, level);
  const auto copy = [](auto& to, const auto& from) {
    for (Index n = 0; n < to.size(); ++n) to.data()[n] = static_cast<double>(from.data()[n]);
  };
  copy(result.dq, dq);
  copy(result.dk, dk);
  copy(result.dv, dv);
  copy(result.ds, ds);
  copy(result.dsink, dsink);
  return result;
}
template GradientTensors run_tiled_backward<float>(const AttentionProblem&, const SavedTensors&,
                                                   tiled::Level);
template GradientTensors run_tiled_backward<double>(const AttentionProblem&, const SavedTensors&,
                                                    tiled::Level);

void add_bounds(const AttentionProblem& problem, const SavedTensors& saved, double u, double eta, double tiny,
                GradientTensors& bound, double saved_error) {
  constexpr double slack = 1 + 1.0 / 64;
  const AttentionSpec& spec = problem.spec;
  const AttentionInputs in = problem.inputs();
  const double n = static_cast<double>(in.keys()), rows = static_cast<double>(in.group() * in.queries());
  const double d_width = static_cast<double>(in.qk_width()), e_width = static_cast<double>(in.v_width());
  const double scale = std::abs(spec.scale);
  std::vector<double> s(static_cast<std::size_t>(in.keys()));
  for (Index h = 0; h < in.q_heads(); ++h) {
    const Index g = in.kv_head(h);
    for (Index i = 0; i < in.queries(); ++i) {
      const double lse = saved.lse(h, i);
      double delta = 0, e_delta = 0;
      for (Index c = 0; c < in.v_width(); ++c) {
        delta += problem.d_o(h, i, c) * saved.o(h, i, c);
        e_delta += ((e_width + 1) * u + saved_error) * std::abs(problem.d_o(h, i, c) * saved.o(h, i, c));
      }
      if (lse == -infinity) {
        for (Index j = 0; spec.empty_row == EmptyRow::mean_v && j < in.keys(); ++j) {
          for (Index c = 0; c < in.v_width(); ++c) {
            bound.dv(g, j, c) += slack * (rows + 20) * u * std::abs(problem.d_o(h, i, c)) / n;
          }
        }
        continue;
      }
      if (in.sink) {
        bound.dsink(h) +=
            slack * std::exp(in.sink(h) - lse) *
            (e_delta + (u + saved_error * std::abs(lse)) * std::abs(delta) +
             0x1p-53 * (static_cast<double>(in.queries()) + 8 + 3 * std::abs(lse)) * std::abs(delta));
      }
      ref::attention_scores(spec, in, h, i, {s.data(), {in.keys()}});
      for (Index j = 0; j < in.keys(); ++j) {
        if (std::isinf(s[j])) continue;
        double magnitude = 0, sum_k = 0, product = 0, dp = 0, e_dp = 0;
        for (Index d = 0; d < in.qk_width(); ++d) {
          product += spec.scale * in.q(h, i, d) * in.k(g, j, d);
          magnitude += std::abs(spec.scale * in.q(h, i, d) * in.k(g, j, d));
          sum_k += std::abs(in.k(g, j, d));
        }
        if (in.alibi_slopes) {
          magnitude += std::abs(in.alibi_slopes(h) *
                                static_cast<double>(alibi_distance(spec.alibi, diagonal(spec, in, i), j)));
        }
        if (in.bias) magnitude += std::abs(in.bias(h, i, j));
        for (Index c = 0; c < in.v_width(); ++c) {
          dp += problem.d_o(h, i, c) * in.v(g, j, c);
          e_dp += (e_width + 1) * u * std::abs(problem.d_o(h, i, c) * in.v(g, j, c));
        }
        const double e_s = (d_width + 24) * u * magnitude + (d_width + 2) * eta * (1 + sum_k);
        const double rho =
            e_s + u * (std::abs(s[j] - lse) + 3 * std::abs(lse) + 4) + saved_error * std::abs(lse);
        if (rho >= 0x1p-7) throw std::logic_error("add_bounds: not small: " + problem.name());
        const double p = std::exp(s[j] - lse), ds = std::abs(p * (dp - delta));
        const double t = spec.softcap != 0 ? std::tanh(product / spec.softcap) : 0;
        const double slope = 1 - t * t, e_slope = spec.softcap != 0 ? 2 * e_s / spec.softcap + 26 * u : 0;
        const double e_ds =
            ds * (rho + 2 * u) + p * (e_dp + e_delta) + tiny * (std::abs(dp) + std::abs(delta) + 1);
        bound.ds(h, i, j) += slack * e_ds;
        const double term = scale * slope * ds, e_term = scale * (slope * e_ds + ds * e_slope);
        for (Index d = 0; d < in.qk_width(); ++d) {
          const double k = std::abs(in.k(g, j, d)), q = std::abs(in.q(h, i, d));
          bound.dq(h, i, d) += slack * (k * (e_term + (n + 4) * u * term) + eta);
          bound.dk(g, j, d) += slack * (q * (e_term + (rows + 20) * u * term) + eta);
        }
        for (Index c = 0; c < in.v_width(); ++c) {
          bound.dv(g, j, c) +=
              slack * ((rho * p + tiny + (rows + 20) * u * p) * std::abs(problem.d_o(h, i, c)) + eta);
        }
      }
    }
  }
}

std::string disagreement(const GradientTensors& got, const GradientTensors& want,
                         const GradientTensors& bound) {
  for (const std::string& text :
       {compare("ds", got.ds, want.ds, bound.ds), compare("dq", got.dq, want.dq, bound.dq),
        compare("dk", got.dk, want.dk, bound.dk), compare("dv", got.dv, want.dv, bound.dv),
        compare("dsink", got.dsink, want.dsink, bound.dsink)}) {
    if (!text.empty()) return text;
  }
  return {};
}

}  // namespace attest::test
