// Where the values of one attention case lie.
#include "data/golden/attention.hpp"

namespace attest::golden {

AttentionTensors::AttentionTensors(const Case& c) : case_(c) {
  const std::string layout = text(c.spec, "layout", "bhsd");
  is_packed_ = layout == "thd";
  const bool is_merged = layout == "bsm" || layout == "sbm";  // heads and width share the last axis
  order_ = is_packed_ || layout == "bsm" ? "bsh" : layout == "sbm" ? "sbh" : layout.substr(0, 3);
  const auto extent = [&](const char* name, char axis) {
    const std::vector<Index>& shape = c.in.at(name).shape;
    if (is_packed_) return axis == 'b' ? Index{1} : shape[axis == 's' ? 0 : 1];
    return shape[order_.find(axis)];
  };
  const auto heads = [&](const char* name, const char* key) {
    return is_merged ? static_cast<Index>(number(c.spec, key, 1)) : extent(name, 'h');
  };
  batch = extent("q", 'b');
  q_heads = heads("q", "heads_q");
  kv_heads = heads("k", "heads_kv");
  queries = extent("q", 's');
  new_keys = extent("k", 's');
  width = c.in.at("q").shape.back() / (is_merged ? q_heads : 1);
  v_width = c.in.at("v").shape.back() / (is_merged ? kv_heads : 1);
  past = c.input("past_k") ? extent("past_k", 's') : 0;
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

Index AttentionTensors::place(Index heads, Index rows, Index b, Index h, Index i) const {
  if (order_ == "bhs") return (b * heads + h) * rows + i;
  if (order_ == "bsh") return (b * rows + i) * heads + h;
  return (i * batch + b) * heads + h;
}

Index AttentionTensors::q_at(const Sequence& s, Index h, Index i, Index columns) const {
  return place(q_heads, queries, s.b, h, s.first_q + i) * columns;
}

Index AttentionTensors::new_key_at(const Sequence& s, Index g, Index j, Index columns) const {
  return place(kv_heads, new_keys, s.b, g, s.first_k + j) * columns;
}

Index AttentionTensors::row_at(const Sequence& s, Index h, Index i) const {
  return (s.b * q_heads + h) * queries + s.first_q + i;
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
  if (j < past) return in("past_" + name) + place(kv_heads, past, s.b, g, j) * columns;
  return in(name) + new_key_at(s, g, j - past, columns);
}

}  // namespace attest::golden
