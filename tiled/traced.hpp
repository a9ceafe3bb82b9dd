// The forward and the backward pass of tiled, tile by tile: what stands in them when a tile is done.
#pragma once

#include <vector>

#include "core/array.hpp"
#include "tiled/attention.hpp"

namespace attest::tiled {

/// Rows and keys of a tile. Tiles begin at multiples of these.
struct TraceTiles {
  Index queries, keys;
};

/// Query rows that one tile can have: those of one panel (tiled/scores.hpp).
constexpr Index most_traced_rows = 6;

/// Which of its scores count: `part` has keys that a row may not attend to beside others that it may.
enum class TileKind { part, all };

/// Where a tile lies, and its scores, which both passes compute: scale q.k in natural units, before the mask.
struct TracedTile {
  Index first_row, rows, first_key, keys;
  TileKind kind;
  std::vector<bool> sees;   // [rows, keys]: the row may attend to the key
  Array<double, 2> scores;  // [rows, keys]
};

/// One tile of the forward pass.
struct ForwardStep : TracedTile {
  std::vector<double> m_before, l_before;  // [rows], natural units; m is -inf before a row's first key
  std::vector<double> m, l, factor;        // factor: e^(m_before - m), by which l and o were multiplied
  Array<double, 2> p;                      // [rows, keys]: e^(s - m)
  Array<double, 2> o_before, o;            // [rows, E], not yet divided by l
};

/// One tile of the backward pass. dq and dk lack the factor scale, which comes at the end.
struct BackwardStep : TracedTile {
  std::vector<double> lse, delta;  // [rows]
  Array<double, 2> p, dp, ds;      // [rows, keys]
  Array<double, 2> dv_before, dv;  // [keys, E]
  Array<double, 2> dk_before, dk;  // [keys, D]
  Array<double, 2> dq_before, dq;  // [rows, D]
};

/// Tiles that are not among the steps were skipped: no row of theirs may attend to a key of theirs.
struct Trace {
  std::vector<ForwardStep> forward;
  Array<double, 3> o;    // [1, Sq, E]
  Array<double, 2> lse;  // [1, Sq]
  std::vector<BackwardStep> backward;
  Array<double, 3> dq, dk, dv;  // [1, Sq, D], [1, Sk, D], [1, Sk, E]
};

/// Runs tiled/forward.hpp and, if d_o [1, Sq, E] is given, tiled/backward.hpp on one head in double: tiles of
/// queries outside, tiles of keys inside. Every tile is computed whole and masked afterwards, and speed is no
/// aim. There is no in.mask, tiles have 1 to most_traced_rows queries and at least 1 key, and a row that may
/// attend to no key gives 0.
Trace trace_attention(const AttentionSpec& spec, const AttentionInputs& in, View<const double, 3> d_o,
                      const TraceTiles& tiles);

}  // namespace attest::tiled
