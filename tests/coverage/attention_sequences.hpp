// The sequences of an attention case, copied out of its tensors whatever the layout.
#pragma once

#include <string>
#include <vector>

#include "core/array.hpp"
#include "core/attention.hpp"
#include "tests/coverage/tensors.hpp"

namespace attest::coverage {

/// Extents of a case. keys: the new ones, without the past.
struct AttentionSizes {
  std::string layout;
  Index batch = 1, q_heads = 1, kv_heads = 1, queries = 1, keys = 1, width = 1, v_width = 1, past = 0;

  explicit AttentionSizes(const Case& c);
  Place place(Index heads, Index length, Index d) const { return {layout, batch, heads, length, d}; }
};

/// One batch entry or packed sequence: where it is, and its tensors.
struct AttentionSequence {
  Index b, entry, first_q, queries, first_k, keys;  // keys: past ones and those that are present
  Array<double, 3> q, k, v, d_o, mask, bias;
  Array<double, 1> slopes, sink;
  AttentionInputs in;  // views them

  AttentionSequence(Index b_, Index entry_, Index first_q_, Index queries_, Index first_k_, Index keys_)
      : b(b_), entry(entry_), first_q(first_q_), queries(queries_), first_k(first_k_), keys(keys_) {}
  void read(const Case& c, const AttentionSizes& n);
};

/// Where the sequences of a case are; their tensors are still empty.
std::vector<AttentionSequence> sequences_of(const Case& c, const AttentionSizes& n);

}  // namespace attest::coverage
