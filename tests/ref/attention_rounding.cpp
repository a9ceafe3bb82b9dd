// How far ref's double arithmetic may be from the exact result.
//
// u = 2^-53 is the relative error of one operation, eta = 2^-1074 the absolute one on underflow; glibc's exp,
// log and tanh are within 2 units in the last place = 4u (its manual: 1, 1 and 2). Terms of second order in u
// and the oracle's own rounding (2^-11 of ref's) are covered by the factor 1 + 1/64 of `slack`: the
// derivation is refused once a relative error reaches 2^-7. Sums of N terms: N u sum|terms| (Higham 2002,
// section 4.2). n = Sk + 1 >= 2.
//
//  s    x = scale q.k: (D + 1) u A, A = |scale| sum|q||k|. Softcap: tanh is 1-Lipschitz and y tanh'(y) <=
//  tanh y, so
//       division, tanh and product add 6 u |x| <= 6 u A. ALiBi: product and difference, bias: sum, 3 u M
//       together:
//         E_s = (D + 10) u M + 4 (D + 1)(1 + |scale|) eta,  M = A + |alibi| + |bias|.   e = max_j E_s
//  m    max is 1-Lipschitz: E_m = e.
//  l    terms exp(s - m): the argument is off by 2e and by u r, r = m - s, where r exp(-r) < 1/2; exp 4u; the
//  sum n u:
//         E_l = (2e + u (n + 4)) l + u n / 2
//  lse  log-sum-exp is 1-Lipschitz in the scores. Beside them l, which is >= 1, is off by u (n + 4 + n/2) at
//  most; log
//       adds 4u log l, the last sum u |lse|, and log l <= log n:  e + u (4 + 3n/2 + 5 log n + |m|), which is
//       at most
//         E_lse = e + u (7 n + |m|)
//  p    exp(s - m) / l: u r and 4u from exp, u (4 + 3n/2) from l, u from the quotient, and a shift common to
//  all scores
//       cancels. exp(s - lse): e + E_lse + u |lse - s| + 4u. Both are within the relative error
//         rho = 2e + u (9 n + |m| + |lse - s|), or else, where they underflow, 2 eta.   Empty rows: rho = u.
//  o    E_o = sum_j (rho p + 2 eta)|v| + n u sum p|v| + n eta
//  ds   delta = do.o: E_delta = sum_e |do| E_o + E u sum|do||o|;  dp = do.v: E_dp = E u sum|do||v|;  ds = p
//  (dp - delta):
//         E_ds = |ds| (rho + 2u) + p (E_dp + E_delta) + 2 eta (|dp| + |delta| + 1)
//  dq   terms scale slope ds k, slope = 1 - tanh^2 or 1: E_slope = 2 E_s / softcap + 14 u, or 0; three
//  products:
//         E_dq = sum_j |scale k| (slope E_ds + |ds| E_slope) + (n + 3) u sum|scale slope ds k| + 4 n eta
//  dk, dv  likewise, with group * Sq terms.
//  dsink   terms p_sink delta: sum_i p_sink (|delta| (rho_sink + 2u) + E_delta) + Sq u sum p_sink |delta| +
//  eta's
#include "tests/ref/attention_rounding.hpp"

#include <algorithm>
#include <limits>
#include <sstream>
#include <stdexcept>
#include <vector>

#include "ref/attention.hpp"

namespace attest::test {
namespace {

using oracle::Real;

constexpr double u = 0x1p-53;
constexpr double eta = 0x1p-1074;
constexpr double slack = 1 + 1.0 / 64;

double value(Real x) {
  return static_cast<double>(x);
}

/// The error of softcap's derivative and the derivative, next to the error of the score that they belong to.
struct ScoreError {
  double e_s = 0, slope = 1, e_slope = 0;
};

ScoreError score_error(const AttentionSpec& spec, const AttentionInputs& in, Index h, Index i, Index j) {
  const double width = static_cast<double>(in.qk_width());
  double sum = 0, magnitude = 0;
  for (Index d = 0; d < in.qk_width(); ++d) {
    const double term = spec.scale * in.q(h, i, d) * in.k(in.kv_head(h), j, d);
    sum += term;
    magnitude += std::abs(term);
  }
  if (in.alibi_slopes) {
    magnitude += std::abs(in.alibi_slopes(h) *
                          static_cast<double>(alibi_distance(spec.alibi, diagonal(spec, in, i), j)));
  }
  if (in.bias) magnitude += std::abs(in.bias(h, i, j));
  ScoreError x;
  x.e_s = (width + 10) * u * magnitude + 4 * (width + 1) * (1 + std::abs(spec.scale)) * eta;
  if (spec.softcap != 0) {
    x.slope = 1 / std::pow(std::cosh(sum / spec.softcap), 2);
    x.e_slope = 2 * x.e_s / spec.softcap + 14 * u;
  }
  return x;
}

template <int Rank>
std::string compare(const char* name, const Array<double, Rank>& got, const Array<Real, Rank>& want,
                    const Array<double, Rank>& bound) {
  for (Index n = 0; n < got.size(); ++n) {
    const Real expected = want.data()[n];
    if (agrees(got.data()[n], expected, bound.data()[n])) continue;
    std::ostringstream out;
    out.precision(20);
    out << name << '[';
    Index size = got.size(), rest = n;
    for (int r = 0; r < Rank; ++r) {
      size /= got.extent(r);
      out << (r ? ", " : "") << rest / size;
      rest %= size;
    }
    out << "] = " << got.data()[n] << ", expected " << expected << " within " << bound.data()[n];
    return out.str();
  }
  return {};
}

}  // namespace

AttentionTensors::AttentionTensors(const AttentionInputs& in)
    : o({in.q_heads(), in.queries(), in.v_width()}),
      s({in.q_heads(), in.queries(), in.keys()}),
      p(s),
      dq({in.q_heads(), in.queries(), in.qk_width()}),
      dk({in.kv_heads(), in.keys(), in.qk_width()}),
      dv({in.kv_heads(), in.keys(), in.v_width()}),
      ds(s),
      lse({in.q_heads(), in.queries()}),
      m(lse),
      l(lse) {
  if (in.sink) dsink = Array<double, 1>({in.q_heads()});
}

AttentionTensors run_ref(const AttentionProblem& problem) {
  const AttentionInputs in = problem.inputs();
  AttentionTensors x(in);
  ref::attention_forward(problem.spec, in,
                         {x.o.view(), x.lse.view(), x.m.view(), x.l.view(), x.s.view(), x.p.view()});
  const AttentionTensors& saved = x;
  ref::attention_backward(problem.spec, in, {saved.o.view(), saved.lse.view(), problem.d_o.view()},
                          {x.dq.view(), x.dk.view(), x.dv.view(), x.ds.view(), x.dsink.view()});
  return x;
}

Exact run_oracle(const AttentionProblem& problem) {
  return {oracle::attention(problem.spec, problem.inputs()),
          oracle::attention_gradients(problem.spec, problem.inputs(), problem.d_o.view())};
}

AttentionTensors rounding_bounds(const AttentionProblem& problem, const Exact& exact) {
  const AttentionSpec& spec = problem.spec;
  const AttentionInputs in = problem.inputs();
  const Array<double, 3>& d_o = problem.d_o;
  const Index keys = in.keys();
  const double n = static_cast<double>(keys) + 1, rows = static_cast<double>(in.group() * in.queries());
  const double width = static_cast<double>(in.v_width()), scale = std::abs(spec.scale);
  AttentionTensors bound(in);

  for (Index h = 0; h < in.q_heads(); ++h) {
    for (Index i = 0; i < in.queries(); ++i) {
      const Index g = in.kv_head(h);
      const double m = std::abs(value(exact.forward.m(h, i))), lse = value(exact.forward.lse(h, i));
      const bool empty = std::isinf(lse);

      std::vector<ScoreError> score(keys);
      double e = 0;
      for (Index j = 0; j < keys; ++j) {
        if (std::isinf(exact.forward.s(h, i, j))) continue;
        score[j] = score_error(spec, in, h, i, j);
        e = std::max(e, score[j].e_s);
        bound.s(h, i, j) = slack * score[j].e_s;
      }
      const double l = value(exact.forward.l(h, i));
      if (!empty) {
        bound.m(h, i) = slack * e;
        bound.l(h, i) = slack * ((2 * e + u * (n + 4)) * l + u * n / 2);
        bound.lse(h, i) = slack * (e + u * (7 * n + m));
      }

      const auto rho = [&](double s) {  // relative error of the weight of a score
        const double relative = empty ? u : 2 * e + u * (9 * n + m + std::abs(lse - s));
        if (relative >= 0x1p-7) throw std::logic_error("rounding_bounds: not small: " + problem.name());
        return relative;
      };
      std::vector<double> weight(keys), e_p(keys);
      for (Index j = 0; j < keys; ++j) {
        weight[j] = value(exact.forward.p(h, i, j));
        if (weight[j] == 0 && std::isinf(exact.forward.s(h, i, j))) continue;
        e_p[j] = rho(empty ? 0 : value(exact.forward.s(h, i, j))) * weight[j] + 2 * eta;
        bound.p(h, i, j) = slack * e_p[j];
      }

      double delta = 0, e_delta = 0;
      for (Index c = 0; c < in.v_width(); ++c) {
        double e_o = n * eta;
        for (Index j = 0; j < keys; ++j) e_o += (e_p[j] + n * u * weight[j]) * std::abs(in.v(g, j, c));
        bound.o(h, i, c) = slack * e_o;
        const double o = value(exact.forward.o(h, i, c));
        delta += d_o(h, i, c) * o;
        e_delta += std::abs(d_o(h, i, c)) * (e_o + width * u * std::abs(o));
      }

      for (Index j = 0; j < keys; ++j) {
        for (Index c = 0; c < in.v_width(); ++c) {
          bound.dv(g, j, c) += slack * ((e_p[j] + rows * u * weight[j]) * std::abs(d_o(h, i, c)) + eta);
        }
        if (weight[j] == 0 && e_p[j] == 0) continue;
        double dp = 0, e_dp = 0;
        for (Index c = 0; c < in.v_width(); ++c) {
          dp += d_o(h, i, c) * in.v(g, j, c);
          e_dp += width * u * std::abs(d_o(h, i, c) * in.v(g, j, c));
        }
        if (empty && spec.empty_row == EmptyRow::mean_v) continue;  // ds is exactly 0
        const double ds = std::abs(value(exact.backward.ds(h, i, j)));
        const double relative = rho(empty ? 0 : value(exact.forward.s(h, i, j)));
        const double e_ds = ds * (relative + 2 * u) + weight[j] * (e_dp + e_delta) +
                            2 * eta * (std::abs(dp) + std::abs(delta) + 1);
        bound.ds(h, i, j) = slack * e_ds;
        const double product = scale * (score[j].slope * e_ds + ds * score[j].e_slope);
        const double term = scale * score[j].slope * ds;
        for (Index d = 0; d < in.qk_width(); ++d) {
          const double k = std::abs(in.k(g, j, d)), q = std::abs(in.q(h, i, d));
          bound.dq(h, i, d) += slack * (k * (product + (n + 3) * u * term) + 4 * eta);
          bound.dk(g, j, d) += slack * (q * (product + (rows + 3) * u * term) + 4 * eta);
        }
      }

      if (in.sink) {
        const double p = std::exp(in.sink(h) - lse);
        const double relative = rho(in.sink(h)) + (2 + static_cast<double>(in.queries())) * u;
        bound.dsink(h) += slack * (p * (std::abs(delta) * relative + e_delta) + 4 * eta);
      }
    }
  }
  return bound;
}

bool same(const AttentionTensors& a, const AttentionTensors& b) {
  return same(a.s, b.s) && same(a.m, b.m) && same(a.l, b.l) && same(a.lse, b.lse) && same(a.p, b.p) &&
         same(a.o, b.o) && same(a.ds, b.ds) && same(a.dq, b.dq) && same(a.dk, b.dk) && same(a.dv, b.dv) &&
         same(a.dsink, b.dsink);
}

std::string first_disagreement(const AttentionProblem& problem) {
  const Exact exact = run_oracle(problem);
  const AttentionTensors got = run_ref(problem), bound = rounding_bounds(problem, exact);
  for (const std::string& text :
       {compare("s", got.s, exact.forward.s, bound.s), compare("m", got.m, exact.forward.m, bound.m),
        compare("l", got.l, exact.forward.l, bound.l), compare("lse", got.lse, exact.forward.lse, bound.lse),
        compare("p", got.p, exact.forward.p, bound.p), compare("o", got.o, exact.forward.o, bound.o),
        compare("ds", got.ds, exact.backward.ds, bound.ds),
        compare("dq", got.dq, exact.backward.dq, bound.dq),
        compare("dk", got.dk, exact.backward.dk, bound.dk),
        compare("dv", got.dv, exact.backward.dv, bound.dv),
        compare("dsink", got.dsink, exact.backward.dsink, bound.dsink)}) {
    if (!text.empty()) return text + " (" + problem.name() + ")";
  }
  return {};
}

}  // namespace attest::test
