// Where the values of one attention case lie, sequence by sequence.
#pragma once

#include "data/golden/results.hpp"

namespace attest::golden {

/// One entry of the batch, or one packed sequence (layout thd). Keys count from the oldest of the
/// past; `keys` are those that are present.
struct Sequence {
  Index b, first_q, queries, first_k, keys;
};

class AttentionTensors {
 public:
  explicit AttentionTensors(const Case& c);

  Index batch, q_heads, kv_heads, queries, new_keys, past, width, v_width;  // of thd: rows in all
  std::vector<Sequence> sequences;

  Index all_keys() const { return past + new_keys; }
  Index kv_head(Index h) const { return h / (q_heads / kv_heads); }
  std::vector<Index> row_shape() const;  // of lse
  std::vector<Index> score_shape() const { return {batch, q_heads, queries, all_keys()}; }

  // Flat indices. width: D or E.
  Index q_at(const Sequence& s, Index h, Index i, Index columns) const;
  Index new_key_at(const Sequence& s, Index g, Index j, Index columns) const;  // j: without the past
  Index row_at(const Sequence& s, Index h, Index i) const;
  Index score_at(const Sequence& s, Index h, Index i, Index j) const;
  /// Of an input or output that broadcasts to the scores.
  Index broadcast_at(const std::vector<Index>& shape, const Sequence& s, Index h, Index i, Index j) const;

  const double* q(const Sequence& s, Index h, Index i) const { return in("q") + q_at(s, h, i, width); }
  const double* d_o(const Sequence& s, Index h, Index i) const { return in("do") + q_at(s, h, i, v_width); }
  const double* k(const Sequence& s, Index g, Index j) const { return key("k", s, g, j, width); }
  const double* v(const Sequence& s, Index g, Index j) const { return key("v", s, g, j, v_width); }

 private:
  const double* in(const std::string& name) const { return case_.in.at(name).values.data(); }
  const double* key(const std::string& name, const Sequence& s, Index g, Index j, Index columns) const;
  /// Which of so many rows of `heads` heads in each batch entry this is, in memory.
  Index place(Index heads, Index rows, Index b, Index h, Index i) const;

  const Case& case_;
  bool is_packed_;
  std::string order_;  // of batch entry, head and row in memory, outermost first: "bhs"
};

/// One row of the forward pass. Entry n stands for key[n], or for the sink where key[n] = -1, which is one
/// more key without a value. A row without entries sees nothing.
struct AttentionRow {
  std::vector<Index> key;
  std::vector<Interval> s;      // scores
  std::vector<Interval> slope;  // of softcap; empty without it
  std::vector<Interval> e;      // exp(s - m)
  std::size_t top = 0;          // the entry of the maximum
  Interval m, tail, l;          // row maximum; row sum l = 1 + tail
};
AttentionRow attention_row(const Case& c, const AttentionTensors& t, const Sequence& s, Index h, Index i,
                           Results& results);

void attention_backward(const Case& c, const AttentionTensors& t, Results& results);

}  // namespace attest::golden
