// How far apart tiled's backward pass and ref may be, both on the same o and lse.
//
// To first order, with u, eta, tiny, M, E_s and slack as in attention_rounding.cpp and R = group Sq rows:
//  p     exp2(s - lse) with lse log2(e), floored at tiny:  rho = E_s + u |s - lse| + 3u |lse| + 4u,  + tiny
//  ds    dp and delta have E products: E_dp = (E + 1) u sum|do||v|, E_delta = (E + 1) u sum|do||o|:
//          E_ds = |ds| (rho + 2u) + p (E_dp + E_delta) + tiny (|dp| + |delta|)
//  slope 1 - tanh^2:  E_slope = 2 E_s / softcap + 26u, or 0 without softcap
//  dq    n products and additions, the scale:
//          E_dq = sum_j |scale k| (slope E_ds + |ds| E_slope) + (n + 4) u sum|scale slope ds k| + n eta
//  dk    the same with R terms in at most 16 parts: (R + 20) u;   dv: rho p + tiny and (R + 20) u p, times
//  |do| dsink in double but for delta, then rounded: sum p_sink (E_delta + 2^-53 (Sq + 8 + 3 |lse|) |delta|)
//  + u |dsink|
// ref obeys the same bounds with u = 2^-53. Empty rows under mean_v: dv gains (R + 20) u |do| / Sk.
#include "tests/tiled/gradient_rounding.hpp"

#include <cmath>
#include <limits>
#include <stdexcept>
#include <vector>

#include "ref/attention.hpp"

namespace attest::test {
namespace {

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

GradientTensors reference_backward(const AttentionProblem& problem, const SavedTensors& saved) {
  GradientTensors want(problem.inputs());
  ref::attention_backward(
      problem.spec, problem.inputs(), {saved.o.view(), saved.lse.view(), problem.d_o.view()},
      {want.dq.view(), want.dk.view(), want.dv.view(), want.ds.view(), want.dsink.view()});
  return want;
}

void add_bounds(const AttentionProblem& problem, const SavedTensors& saved, double u, double eta, double tiny,
                GradientTensors& bound) {
  constexpr double slack = 1 + 1.0 / 64, infinity = std::numeric_limits<double>::infinity();
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
        e_delta += (e_width + 1) * u * std::abs(problem.d_o(h, i, c) * saved.o(h, i, c));
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
            (e_delta + u * std::abs(delta) +
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
          magnitude += std::abs(in.alibi_slopes(h) * static_cast<double>(diagonal(spec, in, i) - j));
        }
        if (in.bias) magnitude += std::abs(in.bias(h, i, j));
        for (Index c = 0; c < in.v_width(); ++c) {
          dp += problem.d_o(h, i, c) * in.v(g, j, c);
          e_dp += (e_width + 1) * u * std::abs(problem.d_o(h, i, c) * in.v(g, j, c));
        }
        const double e_s = (d_width + 24) * u * magnitude + (d_width + 2) * eta * (1 + sum_k);
        const double rho = e_s + u * (std::abs(s[j] - lse) + 3 * std::abs(lse) + 4);
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
