// Attention, forward: scores, weights and outputs of one row at a time.
#include "data/golden/attention.hpp"

#include <cmath>
#include <limits>

#include "core/double_double.hpp"

namespace attest::golden {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double nan = std::numeric_limits<double>::quiet_NaN();

/// What keeps a row from a key, but for masks: the causal diagonal and the window around it.
bool is_in_reach(const Case& c, Index j, Index diagonal) {
  const double after = static_cast<double>(j - diagonal);
  const double left = number(c.spec, "window_left", -1), right = number(c.spec, "window_right", -1);
  if (text(c.spec, "causal", "") != "none" && after > 0) return false;
  return (left < 0 || -after <= left) && (right < 0 || after <= right);
}

/// Scores are equal for certain where these are, even if softcap makes them inexact.
struct Candidate {
  Interval product, addend;  // scale q.k, and what is added behind softcap
};

}  // namespace

AttentionRow attention_row(const Case& c, const AttentionTensors& t, const Sequence& s, Index h, Index i,
                           Results& results) {
  AttentionRow row;
  const Index diagonal = i + (text(c.spec, "causal", "") == "top_left" ? t.past : s.keys - s.queries);
  const Index g = t.kv_head(h);
  const Interval scale(number(c.spec, "scale", 1)), cap(number(c.spec, "softcap", 0));
  const Tensor *mask = c.input("mask"), *bias = c.input("bias"), *slopes = c.input("alibi_slopes"),
               *sink = c.input("sink");
  std::vector<Candidate> candidates;
  for (Index j = 0; j < s.keys; ++j) {
    if (!is_in_reach(c, j, diagonal)) continue;
    if (mask && mask->values[t.broadcast_at(mask->shape, s, h, i, j)] == 0) continue;
    const double added = bias ? bias->values[t.broadcast_at(bias->shape, s, h, i, j)] : 0;
    if (added == -infinity) continue;
    Candidate x{scale * dot(t.q(s, h, i), t.k(s, g, j), t.width), Interval(added)};
    if (slopes) {
      const Index at = slopes->shape.size() == 2 ? s.b * t.q_heads + h : h;
      x.addend -= Interval(slopes->values[at]) * Interval(static_cast<double>(std::abs(diagonal - j)));
    }
    row.key.push_back(j);
    if (cap.is(0)) {
      row.s.push_back(x.product + x.addend);
    } else {
      const Interval bent = tanh(x.product / cap);
      row.s.push_back(cap * bent + x.addend);
      row.slope.push_back(Interval(1) - square(bent));
    }
    candidates.push_back(std::move(x));
  }
  if (sink) {
    row.key.push_back(-1);
    row.s.emplace_back(sink->values[h]);
    if (!cap.is(0)) row.slope.emplace_back(0);
    candidates.push_back({Interval(0), row.s.back()});
  }
  if (row.key.empty()) return row;

  std::size_t& top = row.top;
  for (std::size_t n = 1; n < row.s.size(); ++n) {
    if (row.s[n].seems_above(row.s[top])) top = n;
  }
  for (std::size_t n = 0; n < row.s.size(); ++n) {
    const bool is_tie = (candidates[n].product - candidates[top].product).is(0) &&
                        (candidates[n].addend - candidates[top].addend).is(0) &&
                        (row.key[n] >= 0) == (row.key[top] >= 0);
    if (n != top && !is_tie && !row.s[n].is_at_most(row.s[top])) results.mark_undecided();
    row.e.push_back(n == top || is_tie ? Interval(1) : exp(row.s[n] - row.s[top]));
    if (n != top) row.tail += row.e.back();
  }
  row.l = Interval(1) + row.tail;
  row.m = row.s[top];
  return row;
}

namespace {

/// The outputs of the forward pass, null where they are not wanted.
struct Forward {
  Output *o, *lse, *m, *l, *s, *p;
};

void set_empty_row(const Case& c, const AttentionTensors& t, const Sequence& s, Index h, Index i,
                   const Forward& out) {
  const std::string rule = text(c.spec, "empty_row", "zero");
  const double fill = rule == "nan" ? nan : 0;
  const Index at = t.row_at(s, h, i);
  if (out.m) out.m->set(at, -infinity);
  if (out.l) out.l->set(at, 0.0);
  if (out.lse) out.lse->set(at, text(c.spec, "lse_empty", "-inf") == "+inf" ? infinity : -infinity);
  const Interval keys(static_cast<double>(s.keys));
  for (Index j = 0; j < s.keys && out.p; ++j) {
    if (rule == "mean_v") {
      out.p->set(t.score_at(s, h, i, j), Interval(1) / keys);
    } else {
      out.p->set(t.score_at(s, h, i, j), fill);
    }
  }
  for (Index e = 0; e < t.v_width && out.o; ++e) {
    const Index o_at = t.q_at(s, h, i, t.v_width) + e;
    if (rule == "mean_v") {
      Interval sum;
      for (Index j = 0; j < s.keys; ++j) sum += Interval(t.v(s, t.kv_head(h), j)[e]);
      out.o->set(o_at, sum / keys);
    } else {
      out.o->set(o_at, fill);
    }
  }
}

/// o = v_top + sum_n e_n (v_n - v_top) / l: exact wherever all values are the same.
void set_output(const AttentionTensors& t, const Sequence& s, Index h, Index i, const AttentionRow& row,
                Output& o) {
  const Index g = t.kv_head(h);
  for (Index e = 0; e < t.v_width; ++e) {
    const auto value = [&](std::size_t n) { return row.key[n] < 0 ? 0 : t.v(s, g, row.key[n])[e]; };
    const double top = value(row.top);
    Interval sum;
    for (std::size_t n = 0; n < row.key.size(); ++n) {
      const DoubleDouble difference = two_sum(value(n), -top);
      if (difference.hi != 0) sum.add_product(row.e[n], difference.hi);
      if (difference.lo != 0) sum.add_product(row.e[n], difference.lo);
    }
    o.set(t.q_at(s, h, i, t.v_width) + e, nudged(top, sum / row.l));
  }
}

void forward_row(const Case& c, const AttentionTensors& t, const Sequence& s, Index h, Index i,
                 const Forward& out, Results& results) {
  for (Index j = 0; j < t.all_keys() && (out.s || out.p); ++j) {
    if (out.s) out.s->set(t.score_at(s, h, i, j), -infinity);
    if (out.p) out.p->set(t.score_at(s, h, i, j), 0.0);
  }
  const AttentionRow row = attention_row(c, t, s, h, i, results);
  if (row.key.empty()) return set_empty_row(c, t, s, h, i, out);
  const Index at = t.row_at(s, h, i);
  if (out.m) out.m->set(at, row.m);
  if (out.l) out.l->set(at, row.l);
  if (out.lse) {
    const Interval log_sum = log1p(row.tail), base_2 = (row.m + log_sum) / log(Interval(2));
    out.lse->set(at, text(c.spec, "lse_base", "e") == "2" ? base_2 : nudged(row.m, log_sum));
  }
  for (std::size_t n = 0; n < row.key.size(); ++n) {
    if (row.key[n] < 0) continue;
    if (out.s) out.s->set(t.score_at(s, h, i, row.key[n]), row.s[n]);
    if (out.p) out.p->set(t.score_at(s, h, i, row.key[n]), row.e[n] / row.l);
  }
  if (out.o) set_output(t, s, h, i, row, *out.o);
}

}  // namespace

void attention(const Case& c, Results& results) {
  const AttentionTensors t(c);
  std::vector<Index> like_q = c.in.at("q").shape;
  like_q.back() = like_q.back() / t.width * t.v_width;
  const std::vector<Index> rows = t.row_shape();
  const Forward out{results.output("o", like_q),
                    results.output("lse", rows),
                    results.output("m", rows),
                    results.output("l", rows),
                    results.output("s", t.score_shape()),
                    results.output("p", t.score_shape())};
  if (out.o || out.lse || out.m || out.l || out.s || out.p) {
    for (const Sequence& s : t.sequences) {
#pragma omp parallel for collapse(2) schedule(dynamic, 1)
      for (Index h = 0; h < t.q_heads; ++h) {
        for (Index i = 0; i < s.queries; ++i) forward_row(c, t, s, h, i, out, results);
      }
    }
  }
  if (c.input("do")) attention_backward(c, t, results);
}

}  // namespace attest::golden
