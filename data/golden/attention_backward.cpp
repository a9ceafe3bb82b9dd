// Attention, backward: with the exact o and lse. With p_n = e_n / l over keys and sink, dp_n = do.v_n, and 0
// for the sink,
//   ds_n = p_n (dp_n - sum_k p_k dp_k),  computed as  p_n ((dp_n - dp_top) - sum_k e_k (dp_k - dp_top) / l),
// which is exactly 0 wherever all dp are the same.
#include <limits>

#include "data/golden/attention.hpp"

namespace attest::golden {
namespace {

/// Below this, threads wait for each other longer than they compute.
bool is_large(const AttentionTensors& t) {
  return t.all_keys() * t.width > 10000;
}

/// Sums of many rows, which NaN rows poison.
struct Sums {
  std::vector<Interval> value;
  std::vector<char> is_nan;

  explicit Sums(Output* like) : value(like ? like->nearest[0].size() : 0), is_nan(value.size()) {}
  void store(Output* out) const {
    for (std::size_t n = 0; out && n < value.size(); ++n) {
      if (is_nan[n]) {
        out->set(static_cast<Index>(n), std::numeric_limits<double>::quiet_NaN());
      } else {
        out->set(static_cast<Index>(n), value[n]);
      }
    }
  }
};

std::vector<Interval> score_gradients(const AttentionTensors& t, const Sequence& s, Index h, Index i,
                                      const AttentionRow& row) {
  const std::size_t count = row.key.size();
  std::vector<Interval> ds(count);
#pragma omp parallel for schedule(static) if (is_large(t))
  for (std::size_t n = 0; n < count; ++n) {
    if (row.key[n] >= 0) ds[n] = dot(t.d_o(s, h, i), t.v(s, t.kv_head(h), row.key[n]), t.v_width);
  }
  const Interval top = ds[row.top];
  Interval mean;
  for (std::size_t n = 0; n < count; ++n) {
    ds[n] -= top;
    mean.add_product(row.e[n], ds[n]);
  }
  mean /= row.l;
  for (std::size_t n = 0; n < count; ++n) ds[n] = row.e[n] * (ds[n] - mean) / row.l;
  return ds;
}

}  // namespace

void attention_backward(const Case& c, const AttentionTensors& t, Results& results) {
  const Tensor *bias = c.input("bias"), *sink = c.input("sink");
  Output* const out_dq = results.output("dq", c.in.at("q").shape);
  Output* const out_dk = results.output("dk", c.in.at("k").shape);
  Output* const out_dv = results.output("dv", c.in.at("v").shape);
  Output* const out_dbias = bias ? results.output("dbias", bias->shape) : nullptr;
  Output* const out_dsink = sink ? results.output("dsink", sink->shape) : nullptr;
  if (!out_dq && !out_dk && !out_dv && !out_dbias && !out_dsink) return;
  Sums dq(out_dq), dk(out_dk), dv(out_dv), dbias(out_dbias), dsink(out_dsink);
  const Interval scale(number(c.spec, "scale", 1));
  const std::string rule = text(c.spec, "empty_row", "zero");

  const auto empty_row = [&](const Sequence& s, Index h, Index i) {
    const Index g = t.kv_head(h);
    for (Index d = 0; out_dq && d < t.width; ++d) dq.is_nan[t.q_at(s, h, i, t.width) + d] = rule == "nan";
    for (Index j = t.past; j < s.keys && rule != "zero"; ++j) {
      const Index k_at = t.new_key_at(s, g, j - t.past, t.width);
      const Index v_at = t.new_key_at(s, g, j - t.past, t.v_width);
      for (Index d = 0; out_dk && rule == "nan" && d < t.width; ++d) dk.is_nan[k_at + d] = true;
      for (Index e = 0; out_dv && e < t.v_width; ++e) {
        if (rule == "nan") dv.is_nan[v_at + e] = true;
        dv.value[v_at + e] += Interval(t.d_o(s, h, i)[e]) / Interval(static_cast<double>(s.keys));
      }
    }
  };

  const auto add_row = [&](const Sequence& s, Index h, Index i) {
    const AttentionRow row = attention_row(c, t, s, h, i, results);
    if (row.key.empty()) return empty_row(s, h, i);
    const Index g = t.kv_head(h), q_at = t.q_at(s, h, i, t.width);
    std::vector<Interval> ds = score_gradients(t, s, h, i, row);
    for (std::size_t n = 0; out_dbias && n < row.key.size(); ++n) {  // keys may share an element
      if (row.key[n] >= 0) dbias.value[t.broadcast_at(bias->shape, s, h, i, row.key[n])] += ds[n];
    }
#pragma omp parallel for schedule(static) if (is_large(t))
    for (std::size_t n = 0; n < row.key.size(); ++n) {
      const Index j = row.key[n];
      if (j < 0) {
        if (out_dsink) dsink.value[h] += ds[n];
        continue;
      }
      Interval factor = ds[n] * scale;
      if (!row.slope.empty()) factor *= row.slope[n];
      ds[n] = factor;
      if (j < t.past) continue;
      const Index k_at = t.new_key_at(s, g, j - t.past, t.width);
      const Index v_at = t.new_key_at(s, g, j - t.past, t.v_width);
      for (Index d = 0; out_dk && d < t.width; ++d) dk.value[k_at + d].add_product(factor, t.q(s, h, i)[d]);
      const Interval p = row.e[n] / row.l;
      for (Index e = 0; out_dv && e < t.v_width; ++e) {
        dv.value[v_at + e].add_product(p, t.d_o(s, h, i)[e]);
      }
    }
#pragma omp parallel for schedule(static) if (is_large(t))
    for (Index d = 0; d < (out_dq ? t.width : 0); ++d) {
      for (std::size_t n = 0; n < row.key.size(); ++n) {
        if (row.key[n] >= 0) dq.value[q_at + d].add_product(ds[n], t.k(s, g, row.key[n])[d]);
      }
    }
  };

  for (const Sequence& s : t.sequences) {
    for (Index h = 0; h < t.q_heads; ++h) {
      for (Index i = 0; i < s.queries; ++i) add_row(s, h, i);
    }
  }
  dq.store(out_dq);
  dk.store(out_dk);
  dv.store(out_dv);
  dbias.store(out_dbias);
  dsink.store(out_dsink);
}

}  // namespace attest::golden
