// Rows of q, k and v that recipes for attention are made of, wherever a layout puts them.
#pragma once

#include "core/attention.hpp"
#include "verify/axes/layout.hpp"
#include "verify/inputs/generated.hpp"

namespace attest {

/// Extents as in docs/dump_format.md; keys: past ones included. In layout thd the B sequences are parts of
/// one batch entry of Sq and Sk rows.
struct AttentionExtents {
  Index batch, q_heads, kv_heads, queries, keys, past, width, v_width;
};

/// Of one sequence: the rows of q and the keys that belong to it.
struct SequenceRange {
  Index first_query, queries, first_key, keys;
};

/// What rows are made from. Row numbers count within a batch entry.
struct AttentionRows {
  AttentionExtents n;
  AttentionSpec spec;
  DType dtype;
  std::uint64_t seed;
  std::vector<SequenceRange> sequences;  // one per batch entry, or those of layout thd
  bool is_packed;
  RandomStream q, k, v, target;

  Index q_index(Index b, Index h, Index i) const { return (b * n.q_heads + h) * n.queries + i; }
  Index k_index(Index b, Index g, Index j) const { return (b * n.kv_heads + g) * n.keys + j; }
  const SequenceRange& sequence(Index b, Index i) const;
  /// A key that row i of head h may attend to, chosen at random; -1 if there is none.
  Index visible_key(Index b, Index h, Index i) const;
};

/// A row of q (h, i) or of k or v (g, j) in batch entry b.
struct RowPlace {
  Index b, head, row;
};
using RowMaker = void (*)(const AttentionRows&, const RowPlace&, std::span<double>);

struct AttentionRecipe {
  InputRecipe text;
  RowMaker q, k, v;
};

std::span<const AttentionRecipe> attention_recipes();

/// How the recipe "exact" writes the number of a key in `width` columns: digits of an even base, with a
/// column for every two values of a digit, which differ in sign. Two keys share fewer than all digits.
struct KeyCode {
  Index base, digits;

  /// Throws InvalidCase where the columns do not suffice for so many keys.
  KeyCode(Index keys, Index width);
  /// Sets the columns of the number to `value`, and the others to 0.
  void write(Index number, double value, std::span<double> row) const;
};

}  // namespace attest
