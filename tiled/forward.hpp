// The forward pass of FlashAttention-2 (Dao 2023, algorithm 1), for one tile of query rows of one head. The
// numbers in the comments are the lines of the algorithm. With Normalisation::per_step its lines 9 and 10 are
// lines 10 to 13 of FlashAttention-1 (Dao, Fu, Ermon, Rudra and Re 2022, algorithm 1), whose two loops have
// changed places.
#pragma once

#include "tiled/lone_row.hpp"

namespace attest::tiled::ATTEST_TILED_LEVEL {

/// A task works on this many panels of rows, B_r in all, that share the tiles of K and V. Scores exist for
/// one panel at a time.
constexpr Index most_panels = 4;

/// Without the lone row, which goes with the last task.
template <class Real>
Index rows_in_panels(const Head<Real>& head) {
  return head.queries - has_lone_row<Real>(head.queries);
}

template <class Real>
RowTiles forward_tiles(const Head<Real>& head) {
  return row_tasks(row_panels<Real>(rows_in_panels(head)), most_panels);
}

/// Into how many parts the keys of a row are dealt, so that few rows keep many threads busy (flash decoding):
/// as many as make enough tasks, and none of so few keys that merging would cost more than a few percent.
constexpr Index enough_tasks = 32, least_keys_of_part = 4096;

template <class Real>
Index forward_parts(const Head<Real>& head, Index heads) {
  const RowTiles tiles = forward_tiles(head);
  const Index keys =
      visible_keys(head, head.queries - 1).last -
      visible_keys(head, (tiles.count - 1) * tiles.rows).first;  // of the last rows, who see most
  return most(least(enough_tasks / (heads * tiles.count), keys / least_keys_of_part), 1);
}

template <class Real>
struct ForwardScratch {
  Index rows, o_stride;   // of the largest panel; of a row of o, a multiple of `lanes`
  Real *q, *o;            // of all panels and the lone row, one after the other
  Real *s, *factor;       // [longest_tile, rows], [rows]: of one panel
  Real *k_copy, *v_copy;  // of tiles that cannot be read in place
  Real *pv, *share;       // [rows, o_stride], [rows]: for Normalisation::per_step
  Index size;

  ForwardScratch(const Head<Real>& head, Index longest_tile, Real* memory)
      : rows(most_panel_rows<Real>(row_panels<Real>(rows_in_panels(head)), rows_in_panels(head))),
        o_stride(round_up(head.v.columns, lanes<Real>)) {
    Pieces<Real> pieces{memory};
    q = pieces.take((most_panels + 1) * head.q.columns * rows);
    o = pieces.take((most_panels + 1) * rows * o_stride);
    s = pieces.take(longest_tile * rows);
    factor = pieces.take(rows);
    k_copy = pieces.take(longest_tile * head.k.columns);
    v_copy = pieces.take(longest_tile * o_stride);
    pv = pieces.take(rows * o_stride);
    share = pieces.take(rows);
    size = pieces.used;
  }
};

template <class Real>
Index forward_scratch(const Head<Real>& head) {
  return ForwardScratch<Real>(head, Native<Real>::longest_tile, nullptr).size;
}

/// A panel of rows and what the algorithm keeps of it between two tiles of keys.
template <class Real>
struct Panel {
  ScoreTile<Real> tile;
  Real *q, *o;  // Q^T [D, rows], or [D] of a lone row, multiplied by query_factor, and O [rows, o_stride]
  bool is_lone;
  Vector<Real> m[most_vectors], l[most_vectors];

  Panel(const ScoreTile<Real>& tile_, Real* q_, Real* o_, bool is_lone_)  // leaves m and l open
      : tile(tile_), q(q_), o(o_), is_lone(is_lone_) {}
};

/// Line 9 for the keys [0, keys) of one vector of rows: m := max(m, s), s := e^(s - m),
/// l := e^(m_old - m) l + sum s. Returns the factor e^(m_old - m). If `guarded`, scores of -inf are masked
/// and weigh exactly 0.
template <bool guarded, class Arithmetic, class Real = typename Arithmetic::Real>
ATTEST_ALWAYS_INLINE Vector<Real> online_softmax(const Arithmetic& arithmetic, Real* s, Index stride,
                                                 Index keys, Vector<Real>& m, Vector<Real>& l) {
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
    Vector<Real> p = arithmetic.weight(x, reference);
    if (guarded) p = x == hidden ? Vector<Real>{} : p;
    store(score, arithmetic.stored(p));
    return p;
  };
  const Vector<Real> factor = arithmetic.rescaling(m, reference);
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

/// Lines 11 and 12 of FlashAttention-1, for a tile whose own maximum and row sum are m and l: adds them to
/// those of the panel. The tile then has a share of O, and the tiles before it keep a factor.
template <class Arithmetic, class Real = typename Arithmetic::Real>
void add_tile(const Arithmetic& arithmetic, Panel<Real>& panel, Index x, Vector<Real> m, Vector<Real> l,
              const ForwardScratch<Real>& own) {
  const Vector<Real> m_new = maximum<Real>(panel.m[x], m);
  const Vector<Real> reference = m_new == broadcast(-infinity<Real>) ? Vector<Real>{} : m_new;
  const Vector<Real> before = arithmetic.rescaling(panel.m[x], reference) * panel.l[x];
  const Vector<Real> now = arithmetic.rescaling(m, reference);
  const Vector<Real> l_new = before + now * l;
  const Vector<Real> inverse = l_new == Vector<Real>{} ? Vector<Real>{} : Real{1} / l_new;
  store(own.factor + x * lanes<Real>, before * inverse);
  store(own.share + x * lanes<Real>, now * inverse);
  panel.m[x] = m_new;
  panel.l[x] = l_new;
}

/// Lines 8 to 10: one tile of keys, to which panel.tile has moved.
template <class Arithmetic, class Real = typename Arithmetic::Real>
void attend(const Arithmetic& arithmetic, Normalisation normalisation, Panel<Real>& panel,
            const Rows<Real>& k, const Rows<Real>& v, const ForwardScratch<Real>& own) {
  if (panel.is_lone) return attend_alone(arithmetic, normalisation, panel, k, v, own);
  const ScoreTile<Real>& tile = panel.tile;
  const bool is_deferred = normalisation == Normalisation::deferred;
  const Index n = tile.stride();

  tile.multiply_queries(arithmetic.qk, k, tile.head.q.columns, panel.q, own.s);  // 8: S = Q K^T
  arithmetic.notice(Stage::scores, panel, own);

  for (Index x = 0; x < tile.vectors; ++x) {  // 9: m, P, l
    const KeyRange keys = tile.some[x];
    if (keys.first == keys.last) continue;
    Real* const s = own.s + keys.first * n + x * lanes<Real>;
    Vector<Real> m = panel.m[x], l = Arithmetic::sums_tiles_apart ? Vector<Real>{} : panel.l[x];
    if (!is_deferred) m = broadcast(-infinity<Real>), l = Vector<Real>{};
    Vector<Real> factor;  // e^(m_old - m)
    if (tile.is_whole) {
      factor = online_softmax<false>(arithmetic, s, n, keys.last - keys.first, m, l);
    } else {
      tile.adjust(x, own.s);
      factor = online_softmax<true>(arithmetic, s, n, keys.last - keys.first, m, l);
    }
    if (is_deferred) {
      panel.m[x] = m;
      panel.l[x] = Arithmetic::sums_tiles_apart ? factor * panel.l[x] + l : l;
      store(own.factor + x * lanes<Real>, factor);
    } else {
      add_tile(arithmetic, panel, x, m, l, own);
    }
  }
  arithmetic.notice(Stage::weights, panel, own);

  if (is_deferred) {  // 10: O = diag(factor) O + P V
    accumulate_rows(arithmetic.pv, tile, own.s, own.factor, v, panel.o, own.o_stride);
    arithmetic.notice(Stage::sums, panel, own);
    return;
  }
  clear(own.pv, tile.rows * own.o_stride);  // or O = diag(factor) O + diag(share) P V
  accumulate_rows<Real>(arithmetic.pv, tile, own.s, nullptr, v, own.pv, own.o_stride);
  for (Index i = 0; i < tile.rows; ++i) {
    const KeyRange keys = tile.some[i / lanes<Real>];
    if (keys.first == keys.last) continue;
    for (Index e = i * own.o_stride; e < (i + 1) * own.o_stride; e += lanes<Real>) {
      store(panel.o + e, own.factor[i] * load(panel.o + e) + own.share[i] * load(own.pv + e));
    }
  }
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
template <class Arithmetic, class Real = typename Arithmetic::Real>
void write_rows(const Arithmetic& arithmetic, Normalisation normalisation, const Panel<Real>& panel,
                const ForwardHead<Real>& out, Index o_stride) {
  constexpr Index w = lanes<Real>;
  const ScoreTile<Real>& tile = panel.tile;
  const ForwardHead<Real> to = out;  // which stores to tensors cannot change
  for (Index x = 0; x < tile.vectors; ++x) {
    // Through memory, because a lane of a register cannot be indexed.
    alignas(vector_bytes) Real m[w], l[w], lse[w], m_natural[w], inverse[w];
    const Vector<Real> undefined = panel.l[x] - panel.l[x];  // NaN where l is
    store(m, panel.m[x]);
    store(l, panel.l[x]);
    store(lse, arithmetic.lse(panel.m[x], panel.l[x]) + undefined);
    store(m_natural, arithmetic.natural(panel.m[x]) + undefined);
    const bool is_deferred = normalisation == Normalisation::deferred;
    store(inverse, is_deferred ? Real{1} / panel.l[x] : broadcast(Real{1}));
    for (Index lane = 0; lane < w && x * w + lane < tile.rows; ++lane) {
      const Index i = tile.first_row + x * w + lane;
      const bool row_is_empty = m[lane] == -infinity<Real> && l[lane] == l[lane];
      if (to.lse.data) *to.lse.at(i) = row_is_empty ? -infinity<Real> : lse[lane];
      if (to.m.data) *to.m.at(i) = row_is_empty ? -infinity<Real> : m_natural[lane];
      if (to.l.data) *to.l.at(i) = row_is_empty ? Real{0} : l[lane];
      if (!to.o.data) continue;
      if (row_is_empty) {
        write_empty_row(tile.head, out, i);
        continue;
      }
      write_row(panel.o + (x * w + lane) * o_stride, inverse[lane], to.o, i);
    }
  }
}

/// Rows of o, lse, m and l from the keys of a range; rows as in forward_tiles, scratch as ForwardScratch has
/// it.
template <class Arithmetic, class Real = typename Arithmetic::Real>
void forward(const Arithmetic& arithmetic, const Head<Real>& head, const ForwardHead<Real>& out,
             const RowTask& task, KeyRange range, Real* scratch) {
  const ForwardScratch<Real> own(head, arithmetic.longest_tile, scratch);
  const RowTiles of_head = row_panels<Real>(rows_in_panels(head));
  const Index rows_of_panels = least(task.rows, rows_in_panels(head) - task.first_row);
  const Index count = least(rows_of_panels / of_head.rows + (rows_of_panels % of_head.rows != 0),
                            of_head.count - task.first_row / of_head.rows);
  const bool has_lone = rows_of_panels < task.rows;
  const auto panel_of = [&](Index n) -> Panel<Real> {
    const Index first = least(n * of_head.rows, rows_of_panels);
    const Index rows = n + 1 < count ? of_head.rows : n < count ? rows_of_panels - first : has_lone;
    return {{head, task.first_row + first, rows, arithmetic.takes_all},
            own.q + n * own.rows * head.q.columns,
            own.o + n * own.rows * own.o_stride,
            n == count};
  };
  Panel<Real> panels[] = {panel_of(0), panel_of(1), panel_of(2), panel_of(3), panel_of(4)};
  const Index used = count + has_lone;

  for (Index n = 0; n < used; ++n) {
    Panel<Real>& panel = panels[n];
    const Index width = panel.tile.stride();
    const Real factor = arithmetic.query_factor(head);
    if (panel.is_lone) {  // 4: load Q_i
      for (Index d = 0; d < head.q.columns; ++d) panel.q[d] = *head.q.at(panel.tile.first_row, d) * factor;
    } else {
      pack_transposed<Real>(head.q, panel.tile.first_row, panel.tile.rows, width, factor, panel.q, width);
    }
    for (Index x = 0; x < panel.tile.vectors; ++x) {  // 5: O = 0, l = 0, m = -inf; a sink is a key, too
      panel.m[x] = broadcast(head.sink ? *head.sink * log2_of_e<Real> : -infinity<Real>);
      panel.l[x] = broadcast(head.sink && *head.sink != -infinity<Real> ? Real{1} : Real{0});
    }
    clear(panel.o, panel.tile.rows * own.o_stride);
  }

  Index j = range.first;
  for (Index keys; j < range.last; j += keys) {  // 6
    keys = range.last - j <= arithmetic.longest_tile ? range.last - j : arithmetic.tile;
    const Rows<Real> k = unit_stride_rows<Real>(head.k, j, keys, own.k_copy);  // 7: load K_j, V_j
    const Rows<Real> v = readable_rows<Real>(head.v, j, keys, own.o_stride, own.v_copy);
    for (Index n = 0; n < used; ++n) {
      panels[n].tile.move_to(j, keys);
      if (!panels[n].tile.is_empty) attend(arithmetic, task.normalisation, panels[n], k, v, own);
    }
  }

  for (Index n = 0; n < used; ++n) {
    write_rows(arithmetic, task.normalisation, panels[n], out, own.o_stride);
  }
}

template <class Real>
void native_forward(const Head<Real>& head, const ForwardHead<Real>& out, const RowTask& task,
                    Real* scratch) {
  const Native<Real> native;
  forward(native, head, out, task, keys_of_part(head, task, native.tile, native.grid), scratch);
}

}  // namespace attest::tiled::ATTEST_TILED_LEVEL
