// The forward pass of FlashAttention-2 (Dao 2023, algorithm 1), for one tile of query rows of one head. The
// numbers in the comments are the lines of the algorithm.
#pragma once

#include "tiled/scores.hpp"

namespace attest::tiled::ATTEST_TILED_LEVEL {

/// A task works on this many panels of rows, B_r in all, that share the tiles of K and V. Scores exist for
/// one panel at a time.
constexpr Index most_panels = 4;

template <class Real>
RowTiles forward_tiles(const Head<Real>& head) {
  const RowTiles panels = row_panels<Real>(head.queries);
  const Index tasks = (panels.count + most_panels - 1) / most_panels;
  const Index panels_of_task = (panels.count + tasks - 1) / tasks;
  return {panels_of_task * panels.rows, (panels.count + panels_of_task - 1) / panels_of_task};
}

template <class Real>
struct ForwardScratch {
  Index rows, o_stride;   // of the largest panel; of a row of o, a multiple of `lanes`
  Real *q, *o;            // of all panels, one after the other
  Real *s, *factor;       // [longest_key_tile, rows], [rows]: of one panel
  Real *k_copy, *v_copy;  // of tiles that cannot be read in place
  Index size;

  ForwardScratch(const Head<Real>& head, Real* memory)
      : rows(most_panel_rows<Real>(head.queries)), o_stride(round_up(head.v.columns, lanes<Real>)) {
    Pieces<Real> pieces{memory};
    q = pieces.take(most_panels * head.q.columns * rows);
    o = pieces.take(most_panels * rows * o_stride);
    s = pieces.take(longest_key_tile * rows);
    factor = pieces.take(rows);
    k_copy = pieces.take(longest_key_tile * head.k.columns);
    v_copy = pieces.take(longest_key_tile * o_stride);
    size = pieces.used;
  }
};

template <class Real>
Index forward_scratch(const Head<Real>& head) {
  return ForwardScratch<Real>(head, nullptr).size;
}

/// A panel of rows and what the algorithm keeps of it between two tiles of keys.
template <class Real>
struct Panel {
  ScoreTile<Real> tile;
  Real *q, *o;  // Q^T [D, rows], multiplied by query_factor, and O [rows, o_stride]
  Vector<Real> m[most_vectors], l[most_vectors];
};

/// Line 9 for the keys [0, keys) of one vector of rows: m := max(m, s), s := 2^(s - m),
/// l := 2^(m_old - m) l + sum s. Returns the factor 2^(m_old - m). If `guarded`, scores of -inf are masked
/// and weigh exactly 0.
template <class Real, bool guarded>
ATTEST_ALWAYS_INLINE Vector<Real> online_softmax(Real* s, Index stride, Index keys, Vector<Real>& m,
                                                 Vector<Real>& l) {
  constexpr Index chains = 4;
  Vector<Real> largest[chains];
  for (Index n = 0; n < chains; ++n) largest[n] = m;
  Index j = 0;
  for (; j + chains <= keys; j += chains) {
#pragma GCC unroll 4
    for (Index n = 0; n < chains; ++n) largest[n] = maximum<Real>(largest[n], load(s + (j + n) * stride));
  }
  for (; j < keys; ++j) largest[0] = maximum<Real>(largest[0], load(s + j * stride));
  const Vector<Real> m_new =
      maximum<Real>(maximum<Real>(largest[0], largest[1]), maximum<Real>(largest[2], largest[3]));

  const Vector<Real> hidden = broadcast(-infinity<Real>);
  const Vector<Real> reference = m_new == hidden ? Vector<Real>{} : m_new;  // a row that has seen no key yet
  const auto weight = [&](Real* score) ATTEST_INLINE_LAMBDA {
    const Vector<Real> x = load(score);
    Vector<Real> p = exp2<Real>(x - reference);
    if (guarded) p = x == hidden ? Vector<Real>{} : p;
    store(score, p);
    return p;
  };
  const Vector<Real> factor = exp2<Real>(m - reference);
  Vector<Real> sum[chains] = {l * factor};
  for (j = 0; j + chains <= keys; j += chains) {
#pragma GCC unroll 4
    for (Index n = 0; n < chains; ++n) sum[n] += weight(s + (j + n) * stride);
  }
  for (; j < keys; ++j) sum[0] += weight(s + j * stride);
  m = m_new;
  l = (sum[0] + sum[1]) + (sum[2] + sum[3]);
  return factor;
}

/// Lines 8 to 10: one tile of keys, to which panel.tile has moved.
template <class Real>
void attend(Panel<Real>& panel, const Rows<Real>& k, const Rows<Real>& v, const ForwardScratch<Real>& own) {
  const ScoreTile<Real>& tile = panel.tile;
  const Index n = tile.stride();

  tile.multiply_queries(k, tile.head.q.columns, panel.q, own.s);  // 8: S = Q K^T

  for (Index x = 0; x < tile.vectors; ++x) {  // 9: m, P, l
    const KeyRange keys = tile.some[x];
    if (keys.first == keys.last) continue;
    Real* const s = own.s + keys.first * n + x * lanes<Real>;
    Vector<Real> factor;  // e^(m_old - m)
    if (tile.is_whole) {
      factor = online_softmax<Real, false>(s, n, keys.last - keys.first, panel.m[x], panel.l[x]);
    } else {
      tile.adjust(x, own.s);
      factor = online_softmax<Real, true>(s, n, keys.last - keys.first, panel.m[x], panel.l[x]);
    }
    store(own.factor + x * lanes<Real>, factor);
  }

  accumulate_rows(tile, own.s, own.factor, v, panel.o, own.o_stride);  // 10: O = diag(factor) O + P V
}

template <class Real>
void write_empty_row(const Head<Real>& head, const ForwardHead<Real>& out, Index i) {
  for (Index e = 0; e < head.v.columns; ++e) {
    Real o = head.spec.empty_row == EmptyRow::nan ? static_cast<Real>(__builtin_nan("")) : Real{0};
    if (head.spec.empty_row == EmptyRow::mean_v) {
      for (Index j = 0; j < head.keys; ++j) o += *head.v.at(j, e);
      if (head.keys > 0) o /= static_cast<Real>(head.keys);
    }
    *out.o.at(i, e) = o;
  }
}

/// Lines 12 to 15: O / l and m + log l.
template <class Real>
void write_rows(const Panel<Real>& panel, const ForwardHead<Real>& out, Index o_stride) {
  constexpr Index w = lanes<Real>;
  const ScoreTile<Real>& tile = panel.tile;
  for (Index x = 0; x < tile.vectors; ++x) {
    // Through memory, because a lane of a register cannot be indexed.
    alignas(vector_bytes) Real m[w], l[w], lse[w], m_natural[w], inverse[w];
    const Vector<Real> undefined = panel.l[x] - panel.l[x];  // NaN where l is
    store(m, panel.m[x]);
    store(l, panel.l[x]);
    store(lse, (panel.m[x] + log2<Real>(panel.l[x]) + undefined) * ln_2<Real>);
    store(m_natural, panel.m[x] * ln_2<Real> + undefined);
    store(inverse, Real{1} / panel.l[x]);
    for (Index lane = 0; lane < w && x * w + lane < tile.rows; ++lane) {
      const Index i = tile.first_row + x * w + lane;
      const bool row_is_empty = m[lane] == -infinity<Real> && l[lane] == l[lane];
      if (out.lse.data) *out.lse.at(i) = row_is_empty ? -infinity<Real> : lse[lane];
      if (out.m.data) *out.m.at(i) = row_is_empty ? -infinity<Real> : m_natural[lane];
      if (out.l.data) *out.l.at(i) = row_is_empty ? Real{0} : l[lane];
      if (!out.o.data) continue;
      if (row_is_empty) {
        write_empty_row(tile.head, out, i);
        continue;
      }
      write_row(panel.o + (x * w + lane) * o_stride, inverse[lane], out.o, i);
    }
  }
}

/// Rows [first_row, first_row + rows) of o, lse, m and l; rows as in forward_tiles.
template <class Real>
void forward(const Head<Real>& head, const ForwardHead<Real>& out, Index first_row, Index rows,
             Real* scratch) {
  const ForwardScratch<Real> own(head, scratch);
  const RowTiles of_head = row_panels<Real>(head.queries);
  const Index first_panel = first_row / of_head.rows;
  const Index count = least(rows / of_head.rows + (rows % of_head.rows != 0), of_head.count - first_panel);
  const auto panel_of = [&](Index n) -> Panel<Real> {
    const Index first = n * of_head.rows;
    const Index rows_of_panel = n + 1 < count ? of_head.rows : n < count ? rows - first : 0;
    return {{head, first_row + first, rows_of_panel},
            own.q + n * own.rows * head.q.columns,
            own.o + n * own.rows * own.o_stride,
            {},
            {}};
  };
  Panel<Real> panels[most_panels] = {panel_of(0), panel_of(1), panel_of(2), panel_of(3)};

  for (Index n = 0; n < count; ++n) {
    Panel<Real>& panel = panels[n];
    const Index width = panel.tile.stride();
    pack_transposed<Real>(head.q, panel.tile.first_row, panel.tile.rows, width, query_factor(head), panel.q,
                          width);                     // 4: load Q_i
    for (Index x = 0; x < panel.tile.vectors; ++x) {  // 5: O = 0, l = 0, m = -inf; a sink is a key, too
      panel.m[x] = broadcast(head.sink ? *head.sink * log2_of_e<Real> : -infinity<Real>);
      panel.l[x] = broadcast(head.sink && *head.sink != -infinity<Real> ? Real{1} : Real{0});
    }
    clear(panel.o, panel.tile.rows * own.o_stride);
  }

  const Index end = visible_keys(head, first_row + rows - 1).last;
  Index j = visible_keys(head, first_row).first;
  for (Index keys; j < end; j += keys) {  // 6
    keys = end - j <= longest_key_tile ? end - j : key_tile;
    const Rows<Real> k = unit_stride_rows<Real>(head.k, j, keys, own.k_copy);  // 7: load K_j, V_j
    const Rows<Real> v = readable_rows<Real>(head.v, j, keys, own.o_stride, own.v_copy);
    for (Index n = 0; n < count; ++n) {
      panels[n].tile.move_to(j, keys);
      if (!panels[n].tile.is_empty) attend(panels[n], k, v, own);
    }
  }

  for (Index n = 0; n < count; ++n) write_rows(panels[n], out, own.o_stride);
}

}  // namespace attest::tiled::ATTEST_TILED_LEVEL
