// Attention in 113 bits.
#include "tests/tiled/quad_attention.hpp"

#include <cmath>
#include <limits>

namespace attest::test {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

const Quad ln_2 = Quad(0x1.62e42fefa39efp-1) + Quad(0x1.abc9e3b39803fp-56) + Quad(0x1.7b57a079a1934p-111);

/// sum x^n / n! over n = first, first + step, ...
Quad series(Quad x, int first, int step) {
  Quad term = 1, sum = 0;
  for (int n = 0; n < 40; ++n) {
    if (n > 0) term *= x / n;
    if (n >= first && (n - first) % step == 0) sum += term;
  }
  return sum;
}

struct Score {
  bool is_visible;
  Quad s, slope;
};

Score score(const AttentionSpec& spec, const AttentionInputs& in, Index h, Index i, Index j) {
  const Index g = h / (in.q.extent(0) / in.k.extent(0));
  const Index after = j - i - (spec.causal == Causal::top_left ? in.past : in.k.extent(1) - in.q.extent(1));
  const bool is_hidden = (spec.causal != Causal::none && after > 0) ||
                         (spec.window_left >= 0 && after < -spec.window_left) ||
                         (spec.window_right >= 0 && after > spec.window_right) ||
                         (in.mask && in.mask(h, i, j) == 0) || (in.bias && in.bias(h, i, j) == -infinity);
  if (is_hidden) return {false, 0, 0};
  Quad s = 0, slope = 1;
  for (Index d = 0; d < in.q.extent(2); ++d) s += Quad(in.q(h, i, d)) * in.k(g, j, d);
  s *= spec.scale;
  if (spec.softcap > 0) {
    const Quad t = quad_tanh(s / spec.softcap), e = quad_exp(-2 * absolute(s / spec.softcap));
    slope = 4 * e / ((1 + e) * (1 + e));
    s = spec.softcap * t;
  }
  if (in.alibi_slopes) {
    const Index far = spec.alibi == Alibi::position ? -j : after < 0 ? -after : after;
    s -= Quad(in.alibi_slopes(h)) * static_cast<double>(far);
  }
  if (in.bias) s += in.bias(h, i, j);
  return {true, s, slope};
}

}  // namespace

Quad quad_exp(Quad x) {
  if (x < -11000) return 0;
  const int n = static_cast<int>(std::lround(static_cast<double>(x) * 1.4426950408889634));
  Quad y = series(x - n * ln_2, 0, 1);
  for (int k = 0; k < std::abs(n); ++k) y *= n < 0 ? Quad(0.5) : Quad(2);
  return y;
}

Quad quad_log(Quad x) {
  const Quad y = std::log(static_cast<double>(x)), e = quad_exp(y);
  return y + 2 * (x - e) / (x + e);  // Halley: the error of y cubed
}

Quad quad_tanh(Quad x) {
  if (absolute(x) < Quad(0.5)) return series(x, 1, 2) / series(x, 0, 2);
  const Quad e = quad_exp(-2 * absolute(x)), t = (1 - e) / (1 + e);
  return x < 0 ? -t : t;
}

QuadAttention quad_attention(const AttentionSpec& spec, const AttentionInputs& in) {
  const Index rows = in.queries(), keys = in.keys(), heads = in.q_heads();
  QuadAttention x{Array<Quad, 3>({heads, rows, in.v_width()}), Array<Quad, 2>({heads, rows}),
                  Array<Quad, 2>({heads, rows}), Array<Quad, 2>({heads, rows})};
  for (Index h = 0; h < heads; ++h) {
    const Index g = h / (heads / in.k.extent(0));
    for (Index i = 0; i < rows; ++i) {
      std::vector<Score> s;
      const bool has_sink = in.sink && in.sink(h) != -infinity;
      bool is_empty = !has_sink;
      Quad m = has_sink ? in.sink(h) : 0;
      for (Index j = 0; j < keys; ++j) {
        s.push_back(score(spec, in, h, i, j));
        if (!s.back().is_visible) continue;
        if (is_empty || s.back().s > m) m = s.back().s;
        is_empty = false;
      }
      if (is_empty) {
        for (Index e = 0; e < in.v_width() && keys > 0 && spec.empty_row == EmptyRow::mean_v; ++e) {
          for (Index j = 0; j < keys; ++j) x.o(h, i, e) += in.v(g, j, e);
          x.o(h, i, e) /= static_cast<double>(keys);
        }
        continue;
      }
      Quad l = has_sink ? quad_exp(in.sink(h) - m) : 0;
      for (Index j = 0; j < keys; ++j) {
        if (!s[j].is_visible) continue;
        const Quad p = quad_exp(s[j].s - m);
        l += p;
        for (Index e = 0; e < in.v_width(); ++e) x.o(h, i, e) += p * in.v(g, j, e);
      }
      for (Index e = 0; e < in.v_width(); ++e) x.o(h, i, e) /= l;
      x.m(h, i) = m;
      x.l(h, i) = l;
      x.lse(h, i) = m + quad_log(l);
    }
  }
  return x;
}

QuadGradients quad_gradients(const AttentionSpec& spec, const AttentionInputs& in, const Array<Quad, 3>& o,
                             const Array<Quad, 2>& lse, View<const double, 3> d_o) {
  const Index rows = in.queries(), keys = in.keys(), heads = in.q_heads(), group = in.group();
  const Index width = in.qk_width(), columns = in.v_width();
  QuadGradients x{Array<Quad, 3>({heads, rows, width}), Array<Quad, 3>({in.kv_heads(), keys, width}),
                  Array<Quad, 3>({in.kv_heads(), keys, columns}), Array<Quad, 3>({heads, rows, keys}),
                  Array<Quad, 1>({heads})};
  for (Index h = 0; h < heads; ++h) {
    const Index g = h / group;
    for (Index i = 0; i < rows; ++i) {
      Quad delta = 0;
      for (Index e = 0; e < columns; ++e) delta += o(h, i, e) * d_o(h, i, e);
      if (in.sink) x.dsink(h) -= quad_exp(in.sink(h) - lse(h, i)) * delta;
      for (Index j = 0; j < keys; ++j) {
        const Score s = score(spec, in, h, i, j);
        if (!s.is_visible) continue;
        const Quad p = quad_exp(s.s - lse(h, i));
        Quad dp = 0;
        for (Index e = 0; e < columns; ++e) dp += Quad(d_o(h, i, e)) * in.v(g, j, e);
        const Quad ds = p * (dp - delta), slope = s.slope * spec.scale;
        x.ds(h, i, j) = ds;
        for (Index d = 0; d < width; ++d) {
          x.dq(h, i, d) += ds * slope * in.k(g, j, d);
          x.dk(g, j, d) += ds * slope * in.q(h, i, d);
        }
        for (Index e = 0; e < columns; ++e) x.dv(g, j, e) += p * d_o(h, i, e);
      }
    }
  }
  return x;
}

}  // namespace attest::test
