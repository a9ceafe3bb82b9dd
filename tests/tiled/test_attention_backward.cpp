// tiled's backward pass against ref, both on the same o and lse, at every instruction set level.
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
#include <omp.h>

#include <cmath>
#include <limits>

#include "ref/attention.hpp"
#include "tests/catch.hpp"
#include "tests/support/random.hpp"
#include "tests/tiled/attention_rounding.hpp"
#include "tiled/attention.hpp"

namespace {

using namespace attest;
using namespace attest::test;

constexpr double infinity = std::numeric_limits<double>::infinity();

struct GradientTensors {
  Array<double, 3> dq, dk, dv, ds;
  Array<double, 1> dsink;

  explicit GradientTensors(const AttentionInputs& in)
      : dq({in.q_heads(), in.queries(), in.qk_width()}),
        dk({in.kv_heads(), in.keys(), in.qk_width()}),
        dv({in.kv_heads(), in.keys(), in.v_width()}),
        ds({in.q_heads(), in.queries(), in.keys()}),
        dsink({in.sink ? in.q_heads() : 0}) {}
};

/// o and lse, exact in float, so that float and double start from the same.
struct SavedTensors {
  Array<double, 3> o;
  Array<double, 2> lse;

  explicit SavedTensors(const AttentionProblem& problem) {
    const ReferenceForward forward = reference_forward(problem);
    o = forward.value.o;
    lse = forward.value.lse;
    for (Index n = 0; n < o.size(); ++n) o.data()[n] = static_cast<float>(o.data()[n]);
    for (Index n = 0; n < lse.size(); ++n) lse.data()[n] = static_cast<float>(lse.data()[n]);
  }
};

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

/// Adds the bounds of arithmetic with unit roundoff u.
void add_bounds(const AttentionProblem& problem, const SavedTensors& saved, double u, double eta, double tiny,
                GradientTensors& bound) {
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

void check_against_ref(const AttentionProblem& problem) {
  const SavedTensors saved(problem);
  const AttentionInputs in = problem.inputs();
  GradientTensors want(in), single(in), twice(in);
  ref::attention_backward(
      problem.spec, in, {saved.o.view(), saved.lse.view(), problem.d_o.view()},
      {want.dq.view(), want.dk.view(), want.dv.view(), want.ds.view(), want.dsink.view()});
  add_bounds(problem, saved, 0x1p-53, 0x1p-1074, 0x1p-1022, twice);
  add_bounds(problem, saved, 0x1p-53, 0x1p-1074, 0x1p-1022, twice);
  add_bounds(problem, saved, 0x1p-24, 0x1p-149, 0x1p-126, single);
  add_bounds(problem, saved, 0x1p-53, 0x1p-1074, 0x1p-1022, single);
  for (Index h = 0; h < want.dsink.size(); ++h) single.dsink(h) += 0x1p-24 * std::abs(want.dsink(h));
  for (const tiled::Level level : tiled::available_levels()) {
    INFO(tiled::name_of(level) << ", " << problem.name());
    CHECK(disagreement(run_tiled_backward<float>(problem, saved, level), want, single) == "");
    CHECK(disagreement(run_tiled_backward<double>(problem, saved, level), want, twice) == "");
  }
}

template <int Rank>
bool same_bits(const Array<double, Rank>& a, const Array<double, Rank>& b) {
  for (Index n = 0; n < a.size(); ++n) {
    if (!(a.data()[n] == b.data()[n])) return false;
  }
  return a.size() == b.size();
}

}  // namespace

TEST_CASE("tiled gradients are within their rounding errors of ref for every shape, diagonal and window") {
  const AttentionShape shapes[] = {{1, 1, 1, 1, 1, 1},      {2, 1, 15, 95, 16, 16},  {4, 2, 17, 97, 7, 5},
                                   {1, 1, 63, 121, 8, 24},  {1, 1, 82, 217, 33, 16}, {3, 3, 5, 0, 4, 3},
                                   {2, 1, 150, 77, 16, 16}, {1, 1, 7, 3, 1, 2}};
  std::uint64_t seed = 3000;
  for (const AttentionShape& shape : shapes) {
    for (const Causal causal : {Causal::none, Causal::top_left, Causal::bottom_right}) {
      for (const auto& [left, right] : {std::pair<Index, Index>{-1, -1}, {20, -1}, {0, 5}, {130, 0}}) {
        Random random(++seed);
        const EmptyRow empty_row = std::array{EmptyRow::zero, EmptyRow::nan, EmptyRow::mean_v}[seed % 3];
        const AttentionSpec spec{causal, random.one_in(2) ? 0.25 : -0.3, left,
                                 right,  random.one_in(3) ? 1.5 : 0,     empty_row};
        const AttentionExtras extras{random.one_in(4), random.one_in(4), random.one_in(4), random.one_in(4)};
        check_against_ref(random_problem(shape, spec, extras, random.below(shape.sk + 1), seed));
      }
    }
  }
}

TEST_CASE(
    "the bits of tiled gradients do not depend on the number of threads, also where parts are added up") {
  // 64 or more panels of at most 5 vectors of 16 rows: several parts at every level.
  const AttentionProblem problem =
      random_problem({1, 1, 5200, 130, 8, 8}, plain_spec(Causal::none, 0.25), {}, 0, 4000);
  const SavedTensors saved(problem);
  const int threads_before = omp_get_max_threads();
  for (const tiled::Level level : tiled::available_levels()) {
    omp_set_num_threads(1);
    const GradientTensors one = run_tiled_backward<float>(problem, saved, level);
    for (const int threads : {2, 3}) {
      omp_set_num_threads(threads);
      const GradientTensors many = run_tiled_backward<float>(problem, saved, level);
      CHECK(same_bits(many.dq, one.dq));
      CHECK(same_bits(many.dk, one.dk));
      CHECK(same_bits(many.dv, one.dv));
    }
  }
  omp_set_num_threads(threads_before);
  check_against_ref(problem);
}
