// Attention, forward and backward, in plain loops over rows.
#include "ref/attention.hpp"

#include <cmath>
#include <limits>
#include <vector>

namespace attest::ref {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double nan = std::numeric_limits<double>::quiet_NaN();

double dot(View<const double, 1> a, View<const double, 1> b) {
  double sum = 0;
  for (Index d = 0; d < a.extent(0); ++d) sum += a(d) * b(d);
  return sum;
}

/// A NaN on either side stays one, so that no row with a NaN score is taken for an empty one.
double max_or_nan(double a, double b) {
  return std::isnan(a) || a >= b ? a : b;
}

bool may_attend(const AttentionSpec& spec, const AttentionInputs& in, Index h, Index i, Index j) {
  const Index after_diagonal = in.key_position(j) - diagonal(spec, in, i);
  if (spec.causal != Causal::none && after_diagonal > 0) return false;
  if (spec.window_left >= 0 && -after_diagonal > spec.window_left) return false;
  if (spec.window_right >= 0 && after_diagonal > spec.window_right) return false;
  return !in.mask || in.mask(h, i, j) != 0;
}

struct Score {
  double s;      // the score; -inf where masked
  double slope;  // d s / d (scale q.k): 1 without softcap
};

Score score(const AttentionSpec& spec, const AttentionInputs& in, Index h, Index i, Index j) {
  if (!may_attend(spec, in, h, i, j)) return {-infinity, 0};
  double s = spec.scale * dot(in.q.slice(h).slice(i), in.k.slice(in.kv_head(h)).slice(j));
  double slope = 1;
  if (spec.softcap > 0) {
    const double t = std::tanh(s / spec.softcap);
    s = spec.softcap * t;
    slope = 1 - t * t;
  }
  if (in.alibi_slopes) {
    s -= in.alibi_slopes(h) *
         static_cast<double>(alibi_distance(spec.alibi, diagonal(spec, in, i), in.key_position(j)));
  }
  if (in.bias) s += in.bias(h, i, j);
  return {s, slope};
}

/// The weight and the score gradient of one (row, key) pair, from the saved lse and o.
struct PairGradient {
  double p, ds, slope;
};

PairGradient pair_gradient(const AttentionSpec& spec, const AttentionInputs& in, const AttentionSaved& saved,
                           double delta, Index h, Index i, Index j) {
  if (saved.lse(h, i) ==
      -infinity) {  // an empty row; masked scores are constants, so no gradient reaches q or k
    switch (spec.empty_row) {
      case EmptyRow::zero:
        return {0, 0, 0};
      case EmptyRow::nan:
        return {nan, nan, nan};
      case EmptyRow::mean_v:
        return {1.0 / static_cast<double>(in.sequence_keys()), 0, 0};
    }
  }
  const Score x = score(spec, in, h, i, j);
  if (x.s == -infinity) return {0, 0, 0};
  const double p = std::exp(x.s - saved.lse(h, i));
  const double dp = dot(saved.d_o.slice(h).slice(i), in.v.slice(in.kv_head(h)).slice(j));
  return {p, p * (dp - delta), x.slope};
}

void fill(View<double, 1> x, double value) {
  for (Index d = 0; d < x.extent(0); ++d) x(d) = value;
}

}  // namespace

void attention_scores(const AttentionSpec& spec, const AttentionInputs& in, Index h, Index i,
                      View<double, 1> s) {
  for (Index j = 0; j < in.keys(); ++j) s(j) = score(spec, in, h, i, j).s;
}

SoftmaxStats attention_forward_row(const AttentionSpec& spec, const AttentionInputs& in, Index h, Index i,
                                   View<double, 1> s, View<double, 1> p, View<double, 1> o) {
  const Index keys = in.keys();
  attention_scores(spec, in, h, i, s);

  double m = in.sink ? in.sink(h) : -infinity;
  for (Index j = 0; j < keys; ++j) m = max_or_nan(m, s(j));

  if (m == -infinity) {
    const double weight = spec.empty_row == EmptyRow::zero  ? 0
                          : spec.empty_row == EmptyRow::nan ? nan
                                                            : 1.0 / static_cast<double>(keys);
    fill(p, weight);
    fill(o, spec.empty_row == EmptyRow::nan ? nan : 0);
    if (spec.empty_row == EmptyRow::mean_v) {
      for (Index j = 0; j < keys; ++j) {
        for (Index e = 0; e < in.v_width(); ++e) o(e) += weight * in.v(in.kv_head(h), j, e);
      }
    }
    return {-infinity, 0, -infinity};
  }

  double l = in.sink ? std::exp(in.sink(h) - m) : 0;
  for (Index j = 0; j < keys; ++j) l += std::exp(s(j) - m);

  fill(o, 0);
  for (Index j = 0; j < keys; ++j) {
    p(j) = std::exp(s(j) - m) / l;
    if (s(j) == -infinity) continue;  // a key that is not attended to may hold anything
    for (Index e = 0; e < in.v_width(); ++e) o(e) += p(j) * in.v(in.kv_head(h), j, e);
  }
  return {m, l, m + std::log(l)};
}

void attention_forward(const AttentionSpec& spec, const AttentionInputs& in, const AttentionOutputs& out) {
#pragma omp parallel for collapse(2) schedule(dynamic, 8)
  for (Index h = 0; h < in.q_heads(); ++h) {
    for (Index i = 0; i < in.queries(); ++i) {
      std::vector<double> s(in.keys()), p(in.keys()), o(in.v_width());
      const SoftmaxStats stats = attention_forward_row(spec, in, h, i, {s.data(), {in.keys()}},
                                                       {p.data(), {in.keys()}}, {o.data(), {in.v_width()}});
      if (out.lse) out.lse(h, i) = stats.lse;
      if (out.m) out.m(h, i) = stats.m;
      if (out.l) out.l(h, i) = stats.l;
      if (out.o) {
        for (Index e = 0; e < in.v_width(); ++e) out.o(h, i, e) = o[e];
      }
      for (Index j = 0; j < in.keys(); ++j) {
        if (out.s) out.s(h, i, j) = s[j];
        if (out.p) out.p(h, i, j) = p[j];
      }
    }
  }
}

void attention_backward_query(const AttentionSpec& spec, const AttentionInputs& in,
                              const AttentionSaved& saved, Index h, Index i, View<double, 1> dq,
                              View<double, 1> ds) {
  const double delta = dot(saved.d_o.slice(h).slice(i), saved.o.slice(h).slice(i));
  fill(dq, 0);
  for (Index j = 0; j < in.keys(); ++j) {
    const PairGradient x = pair_gradient(spec, in, saved, delta, h, i, j);
    if (ds) ds(j) = x.ds;
    if (x.p == 0) continue;
    for (Index d = 0; dq && d < in.qk_width(); ++d)
      dq(d) += spec.scale * x.slope * x.ds * in.k(in.kv_head(h), j, d);
  }
}

void attention_backward_key(const AttentionSpec& spec, const AttentionInputs& in, const AttentionSaved& saved,
                            Index g, Index j, View<double, 1> dk, View<double, 1> dv) {
  fill(dk, 0);
  fill(dv, 0);
  for (Index h = g * in.group(); h < (g + 1) * in.group(); ++h) {
    for (Index i = 0; i < in.queries(); ++i) {
      const double delta = dot(saved.d_o.slice(h).slice(i), saved.o.slice(h).slice(i));
      const PairGradient x = pair_gradient(spec, in, saved, delta, h, i, j);
      if (x.p == 0) continue;
      for (Index d = 0; dk && d < in.qk_width(); ++d) dk(d) += spec.scale * x.slope * x.ds * in.q(h, i, d);
      for (Index e = 0; dv && e < in.v_width(); ++e) dv(e) += x.p * saved.d_o(h, i, e);
    }
  }
}

double attention_backward_sink(const AttentionInputs& in, const AttentionSaved& saved, Index h) {
  double dsink = 0;
  for (Index i = 0; i < in.queries(); ++i) {
    if (saved.lse(h, i) == -infinity) continue;  // an empty row
    const double delta = dot(saved.d_o.slice(h).slice(i), saved.o.slice(h).slice(i));
    dsink -= std::exp(in.sink(h) - saved.lse(h, i)) * delta;
  }
  return dsink;
}

void attention_backward(const AttentionSpec& spec, const AttentionInputs& in, const AttentionSaved& saved,
                        const AttentionGradients& out) {
  const auto row_of = [](View<double, 3> view, Index h, Index i) {
    return view ? view.slice(h).slice(i) : View<double, 1>{};
  };
#pragma omp parallel for collapse(2) schedule(dynamic, 8)
  for (Index h = 0; h < in.q_heads(); ++h) {
    for (Index i = 0; i < in.queries(); ++i) {
      if (!out.dq && !out.ds) continue;
      attention_backward_query(spec, in, saved, h, i, row_of(out.dq, h, i), row_of(out.ds, h, i));
    }
  }
#pragma omp parallel for collapse(2) schedule(dynamic, 8)
  for (Index g = 0; g < in.kv_heads(); ++g) {
    for (Index j = 0; j < in.keys(); ++j) {
      if (!out.dk && !out.dv) continue;
      attention_backward_key(spec, in, saved, g, j, row_of(out.dk, g, j), row_of(out.dv, g, j));
    }
  }
  if (out.dsink) {
    for (Index h = 0; h < in.q_heads(); ++h) out.dsink(h) = attention_backward_sink(in, saved, h);
  }
}

}  // namespace attest::ref
