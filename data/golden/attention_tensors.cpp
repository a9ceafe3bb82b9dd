// Where the values of one attention case lie.
#include "data/golden/attention.hpp"

namespace attest::golden {

AttentionTensors::AttentionTensors(const Case& c)
    : case_(c), is_packed_(text(c.spec, "layout", "bhsd") == "thd") {
  const std::vector<Index>&q = c.in.at("q").shape, &k = c.in.at("k").shape, &v = c.in.at("v").shape;
  batch = is_packed_ ? 1 : q[0];
  q_heads = q[1];
  kv_heads = k[1];
  queries = is_packed_ ? q[0] : q[2];
  new_keys = is_packed_ ? k[0] : k[2];
  width = q.back();
  v_width = v.back();
  past = c.input("past_k") ? c.input("past_k")->shape[2] : 0;
  if (is_packed_) {
    const std::vector<double>&starts_q = c.in.at("cu_seqlens_q").values,
          &starts_k = c.in.at("cu_seqlens_k").values;
    for (std::size_t n = 0; n + 1 < starts_q.size(); ++n) {
      const auto first_q = static_cast<Index>(starts_q[n]), first_k = static_cast<Index>(starts_k[n]);
      sequences.push_back({0, first_q, static_cast<Index>(starts_q[n + 1]) - first_q, first_k,
                           static_cast<Index>(starts_k[n + 1]) - first_k});
    }
    return;
  }
  const Tensor* lengths = c.input("kv_lengths");
  for (Index b = 0; b < batch; ++b) {
    sequences.push_back({b, 0, queries, 0, lengths ? static_cast<Index>(lengths->values[b]) : all_keys()});
  }
}

std::vector<Index> AttentionTensors::row_shape() const {
  if (is_packed_) return {q_heads, queries};
  return {batch, q_heads, queries};
}

Index AttentionTensors::q_at(const Sequence& s, Index h, Index i, Index columns) const {
  if (is_packed_) return ((s.first_q + i) * q_heads + h) * columns;
  return ((s.b * q_heads + h) * queries + i) * columns;
}

Index AttentionTensors::new_key_at(const Sequence& s, Index g, Index j, Index columns) const {
  if (is_packed_) return ((s.first_k + j) * kv_heads + g) * columns;
  return ((s.b * kv_heads + g) * new_keys + j) * columns;
}

Index AttentionTensors::row_at(const Sequence& s, Index h, Index i) const {
  return is_packed_ ? h * queries + s.first_q + i : (s.b * q_heads + h) * queries + i;
}

Index AttentionTensors::score_at(const Sequence& s, Index h, Index i, Index j) const {
  return broadcast_at(score_shape(), s, h, i, j);
}

Index AttentionTensors::broadcast_at(const std::vector<Index>& shape, const Sequence& s, Index h, Index i,
                                     Index j) const {
  const Index at[4] = {s.b, h, i, j};
  Index flat = 0;
  for (std::size_t axis = 0; axis < shape.size(); ++axis) {
    const Index n = at[4 - shape.size() + axis];
    flat = flat * shape[axis] + (shape[axis] == 1 ? 0 : n);
  }
  return flat;
}

const double* AttentionTensors::key(const std::string& name, const Sequence& s, Index g, Index j,
                                    Index columns) const {
  if (j < past) return in("past_" + name) + ((s.b * kv_heads + g) * past + j) * columns;
  return in(name) + new_key_at(s, g, j - past, columns);
}

}  // namespace attest::golden
