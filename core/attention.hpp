// What one attention problem is: the options that give it its meaning and the tensors that it reads.
#pragma once

#include "core/view.hpp"

namespace attest {

/// The diagonal runs through key `diagonal(i)` of query row i; causal rows see the keys up to it.
///   top_left      past + i               row 0 sees the first key that does not belong to the past
///   bottom_right  Sk - Sq + i            the last row sees the last key
///   none          no limit; windows and ALiBi then use the bottom-right diagonal
enum class Causal { none, top_left, bottom_right };

/// The output of a row that may attend to no key and has no sink: 0, NaN, or the mean of V over all keys.
enum class EmptyRow { zero, nan, mean_v };

/// What ALiBi adds to a score: -slope |diagonal(i) - j| (Press, Smith and Lewis, ICLR 2022), or slope j. A
/// causal softmax is the same with either; the row's lse, m and scores are not.
enum class Alibi { distance, position };

/// score(i, j) = softcap(scale * q_i . k_j) + alibi(i, j) + bias(i, j), -inf where row i may not attend to
/// key j, with softcap(x) = c tanh(x / c).
struct AttentionSpec {
  Causal causal;
  double scale;
  Index window_left;   // keys visible before the diagonal; -1 = all
  Index window_right;  // keys visible after the diagonal; -1 = all
  double softcap;      // c; 0 = off
  EmptyRow empty_row;
  Alibi alibi = Alibi::distance;
};

/// One sequence. Query head h reads key/value head h / (Hq / Hkv). Views that were not given are empty.
template <class Real>
struct BasicAttentionInputs {
  View<const Real, 3> q;             // [Hq, Sq, D]
  View<const Real, 3> k;             // [Hkv, Sk, D]
  View<const Real, 3> v;             // [Hkv, Sk, E]
  View<const Real, 3> mask;          // [Hq, Sq, Sk], not 0 = may attend; optional
  View<const Real, 3> bias;          // [Hq, Sq, Sk]; optional
  View<const Real, 1> alibi_slopes;  // [Hq]; optional
  View<const Real, 1> sink;          // [Hq], a score that takes weight and carries no value; optional
  Index past = 0;                    // how many of the Sk keys stand before the sequence of the queries
  View<const Index, 1> row{};        // [Sq]: which rows of the sequence q holds; empty: all of them
  Index rows = 0;                    // of the sequence, where q does not hold all of them
  View<const Index, 1> key{};  // [Sk]: which keys of the sequence k holds, ascending; empty: all of them
  Index all_keys = 0;          // of the sequence, where k does not hold all of them

  Index q_heads() const { return q.extent(0); }
  Index kv_heads() const { return k.extent(0); }
  Index queries() const { return q.extent(1); }
  Index keys() const { return k.extent(1); }
  Index qk_width() const { return q.extent(2); }
  Index v_width() const { return v.extent(2); }
  Index group() const { return q_heads() / kv_heads(); }  // query heads that share a key/value head
  Index kv_head(Index h) const { return h / group(); }
  Index sequence_keys() const { return key ? all_keys : keys(); }
  Index key_position(Index j) const { return key ? key(j) : j; }  // of key j in the sequence
};
using AttentionInputs = BasicAttentionInputs<double>;

template <class Real>
Index diagonal(const AttentionSpec& spec, const BasicAttentionInputs<Real>& in, Index i) {
  const Index row = in.row ? in.row(i) : i, rows = in.row ? in.rows : in.queries();
  return row + (spec.causal == Causal::top_left ? in.past : in.sequence_keys() - rows);
}

/// alibi(i, j) = -slope times this, for a row with that diagonal and a key at that position.
inline Index alibi_distance(Alibi alibi, Index diagonal, Index position) {
  if (alibi == Alibi::position) return -position;
  return diagonal < position ? position - diagonal : diagonal - position;
}

}  // namespace attest
