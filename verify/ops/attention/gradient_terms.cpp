// The terms that gradients are sums of.
#include "verify/ops/attention/gradient_terms.hpp"

#include <algorithm>

namespace attest {
namespace {

/// [H, S, D] with more of S than it has; the memory has to be there.
View<const double, 3> widened(View<const double, 3> x, Index keys) {
  return {x.data_handle(), {x.extent(0), keys, x.extent(2)}, {x.stride(0), x.stride(1), x.stride(2)}};
}

double dot(const double* a, Index a_step, const double* b, Index b_step, Index width) {
  double sum = 0;
  for (Index d = 0; d < width; ++d) sum += a[d * a_step] * b[d * b_step];
  return sum;
}

}  // namespace

BackwardPass::BackwardPass(const AttentionCase& attention, std::span<const SavedForBackward> saved,
                           const std::string& output)
    : attention_(attention), saved_(saved), output_(output) {
  const std::vector<Sequence>& all = attention.sequences;
  const bool is_packed = all.size() > 1 && all.front().b == all.back().b;
  for (std::size_t n = 0; n < all.size(); ++n) {
    AttentionInputs in = all[n].in_backward;
    const Index padded = attention.padded_keys();
    if (!is_packed && !attention.has_past() && !in.key && in.keys() < padded)
      in.k = widened(in.k, padded), in.v = widened(in.v, padded);
    inputs_.push_back(in);
    const Index rows = in.queries(), columns = in.v_width();
    Array<double, 3> delta({in.q_heads(), rows, (columns + 7) / 8 + 1});
    for (Index h = 0; h < in.q_heads(); ++h) {
      for (Index i = 0; i < rows; ++i) {
        double sum = 0;
        for (Index e = 0; e < columns; ++e) {
          sum += saved[n].d_o(h, i, e) * saved[n].o(h, i, e);
          delta(h, i, e / 8 + 1) = sum;
        }
      }
    }
    deltas_.push_back(std::move(delta));
  }
  const AttentionInputs& in = inputs_.front();
  vector_step_ = output == "dq"   ? in.k.stride(2)
                 : output == "dk" ? in.q.stride(2)
                                  : saved[0].d_o.view().stride(2);
  width_ = output == "dv" ? in.v_width() : in.qk_width();
}

double BackwardPass::product(QueryPlace row, KeyPlace key) const {
  return dot(q(row), in(row.n).q.stride(2), k(key), in(key.n).k.stride(2), in(row.n).qk_width());
}

double BackwardPass::dp(QueryPlace row, KeyPlace key) const {
  return dot(d_o(row), 1, &in(key.n).v(key.g, key.j, 0), in(key.n).v.stride(2), in(row.n).v_width());
}

double BackwardPass::bias(QueryPlace row, Index j) const {
  const AttentionInputs& x = in(row.n);
  return x.bias && j < x.bias.extent(2) ? x.bias(row.h, row.i, j) : 0;
}

double BackwardPass::alibi(QueryPlace row, Index j, Index diagonal) const {
  const AttentionInputs& x = in(row.n);
  if (!x.alibi_slopes) return 0;
  return -x.alibi_slopes(row.h) *
         static_cast<double>(alibi_distance(spec().alibi, diagonal, x.key_position(j)));
}

bool BackwardPass::is_in_mask(QueryPlace row, Index j) const {
  const AttentionInputs& x = in(row.n);
  return !x.mask || j >= x.mask.extent(2) || x.mask(row.h, row.i, j) != 0;
}

bool BackwardPass::is_in_reach(const AttentionSpec& spec, Index diagonal, Index position) {
  const Index after = position - diagonal;
  return (spec.causal == Causal::none || after <= 0) &&
         (spec.window_left < 0 || -after <= spec.window_left) &&
         (spec.window_right < 0 || after <= spec.window_right);
}

GradientTerm BackwardPass::term(QueryPlace row, Index j) const {
  const AttentionInputs& x = in(row.n);
  const KeyPlace key{row.n, x.kv_head(row.h), j};
  const Index at = diagonal_of(row.n, row.i);
  GradientTerm t{};
  t.row = row, t.key = key;
  t.product = product(row, key);
  t.lse = lse(row);
  t.delta = delta(row);
  t.dp = output_ == "dv" ? 0 : dp(row, key);
  t.bias = bias(row, j);
  t.alibi = alibi(row, j, at);
  t.is_visible = j < keys(row.n) && is_in_reach(spec(), at, x.key_position(j)) && is_in_mask(row, j);
  t.vector = output_ == "dq" ? k(key) : output_ == "dk" ? q(row) : d_o(row);
  return t;
}

double BackwardPass::lse(QueryPlace row) const {
  const double own = saved_[row.n].lse(row.h, row.i), empty = attention_.lse_empty / attention_.lse_unit;
  return std::isfinite(own) ? own : std::isfinite(empty) ? empty : 0;
}

double BackwardPass::p(const GradientTerm& t) const {
  if (!t.is_visible) return 0;
  double s = spec().scale * t.product;
  if (spec().softcap > 0 && t.is_capped) s = spec().softcap * std::tanh(s / spec().softcap);
  return t.count * std::exp(t.exponent * (s + t.bias + t.alibi - t.lse));
}

double BackwardPass::weight(const GradientTerm& t) const {
  const double p_of_term = p(t);
  if (output_ == "dv" || !(p_of_term > 0)) return p_of_term;
  double slope = t.slope;
  if (std::isnan(slope)) {
    const bool has_cap = spec().softcap > 0 && t.is_capped;
    slope = has_cap ? 1 - std::pow(std::tanh(spec().scale * t.product / spec().softcap), 2) : 1;
  }
  return spec().scale * p_of_term * (t.dp - t.delta) * slope;
}

}  // namespace attest
