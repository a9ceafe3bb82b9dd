// The sequences of an attention case, copied out of its tensors whatever the layout.
#include "tests/coverage/attention_sequences.hpp"

#include <algorithm>
#include <utility>

namespace attest::coverage {
namespace {

/// Extents of one tensor; `key` names the heads where the layout merges them.
void read_shape(const Case& c, const std::string& layout, const char* name, const char* key, Index& b,
                Index& h, Index& s, Index& d) {
  const Shape& shape = c.in.at(name).shape;
  const bool merges = layout.back() == 'm';
  for (std::size_t axis = 0; axis < (merges ? 2 : shape.size() - 1); ++axis) {
    const char letter = layout == "thd" ? "sh"[axis] : layout[axis];
    (letter == 'b' ? b : letter == 'h' ? h : s) = shape[axis];
  }
  if (merges) h = static_cast<Index>(number_of(c, key, 0));
  d = merges ? shape.back() / h : shape.back();
}

/// Rows [first, first + count) of batch entry b of a tensor, as [H, count, D].
Array<double, 3> rows_of(const Tensor& t, const Place& place, Index b, Index heads, Index first, Index count,
                         Index d) {
  Array<double, 3> x({heads, count, d});
  for (Index h = 0; h < heads; ++h) {
    for (Index i = 0; i < count; ++i) {
      for (Index e = 0; e < d; ++e) x(h, i, e) = t.values[place(b, h, first + i, e)];
    }
  }
  return x;
}

/// The keys or values of a sequence, those of the past first.
Array<double, 3> keys_of(const Case& c, const AttentionSizes& n, const AttentionSequence& s,
                         const std::string& name, Index d) {
  const Index past = std::min(n.past, s.keys);
  const Array<double, 3> fresh =
      rows_of(c.in.at(name), n.place(n.kv_heads, n.keys, d), s.b, n.kv_heads, s.first_k, s.keys - past, d);
  if (n.past == 0) return fresh;
  const Array<double, 3> before =
      rows_of(c.in.at("past_" + name), n.place(n.kv_heads, n.past, d), s.b, n.kv_heads, 0, past, d);
  Array<double, 3> x({n.kv_heads, s.keys, d});
  for (Index h = 0; h < n.kv_heads; ++h) {
    for (Index j = 0; j < s.keys; ++j) {
      for (Index e = 0; e < d; ++e) x(h, j, e) = j < past ? before(h, j, e) : fresh(h, j - past, e);
    }
  }
  return x;
}

Array<double, 3> broadcast(const Tensor& t, const AttentionSizes& n, const AttentionSequence& s) {
  Array<double, 3> x({n.q_heads, s.queries, s.keys});
  const Broadcast at(t.shape);
  for (Index h = 0; h < n.q_heads; ++h) {
    for (Index i = 0; i < s.queries; ++i) {
      for (Index j = 0; j < s.keys; ++j) x(h, i, j) = t.values[at(s.b, h, i, j)];
    }
  }
  return x;
}

Array<double, 1> per_head(const Tensor& t, const AttentionSizes& n, const AttentionSequence& s) {
  Array<double, 1> x({n.q_heads});
  for (Index h = 0; h < n.q_heads; ++h) x(h) = t.values[(t.shape.size() == 2 ? s.entry * n.q_heads : 0) + h];
  return x;
}

}  // namespace

AttentionSizes::AttentionSizes(const Case& c) : layout(text_of(c, "layout", "bhsd")) {
  read_shape(c, layout, "q", "heads_q", batch, q_heads, queries, width);
  read_shape(c, layout, "k", "heads_kv", batch, kv_heads, keys, width);
  read_shape(c, layout, "v", "heads_kv", batch, kv_heads, keys, v_width);
  if (c.in.contains("past_k")) read_shape(c, layout, "past_k", "heads_kv", batch, kv_heads, past, width);
}

std::vector<AttentionSequence> sequences_of(const Case& c, const AttentionSizes& n) {
  std::vector<AttentionSequence> all;
  if (n.layout == "thd") {
    const std::vector<double>&q = c.in.at("cu_seqlens_q").values, &k = c.in.at("cu_seqlens_k").values;
    for (std::size_t e = 0; e + 1 < q.size(); ++e) {
      all.emplace_back(0, static_cast<Index>(e), static_cast<Index>(q[e]),
                       static_cast<Index>(q[e + 1] - q[e]), static_cast<Index>(k[e]),
                       static_cast<Index>(k[e + 1] - k[e]));
    }
    return all;
  }
  const Tensor* lengths = c.input("kv_lengths");
  for (Index b = 0; b < n.batch; ++b) {
    const Index keys = lengths ? static_cast<Index>(lengths->values[b]) : n.past + n.keys;
    all.emplace_back(b, b, 0, n.queries, 0, keys);
  }
  return all;
}

void AttentionSequence::read(const Case& c, const AttentionSizes& n) {
  const auto rows = [&](const char* name, Index d) {
    return rows_of(c.in.at(name), n.place(n.q_heads, n.queries, d), b, n.q_heads, first_q, queries, d);
  };
  const auto given = [&](const char* name, auto& to, auto& view, auto copy) {
    const Tensor* t = c.input(name);
    if (t) view = std::as_const(to = copy(*t, n, *this)).view();
  };
  q = rows("q", n.width);
  k = keys_of(c, n, *this, "k", n.width);
  v = keys_of(c, n, *this, "v", n.v_width);
  if (c.in.contains("do")) d_o = rows("do", n.v_width);
  in.q = std::as_const(q).view();
  in.k = std::as_const(k).view();
  in.v = std::as_const(v).view();
  in.past = std::min(n.past, keys);
  given("mask", mask, in.mask, broadcast);
  given("bias", bias, in.bias, broadcast);
  given("alibi_slopes", slopes, in.alibi_slopes, per_head);
  given("sink", sink, in.sink, per_head);
}

}  // namespace attest::coverage
