// The backward pass of FlashAttention-2 (Dao 2023, algorithm 2) by recomputation, for some panels of query
// rows of one head. The numbers in the comments are the lines of the algorithm. Its inner loop runs over the
// panels of the task only: dQ stays in the cache, and dK and dV are sums that belong to the caller.
#pragma once

#include "tiled/arithmetic.hpp"

namespace attest::tiled::ATTEST_TILED_LEVEL {

/// Sums over the rows of a panel go to dK and dV in memory: for short vectors, panels are stacked until they
/// have some 64 rows. A task works on one panel after the other with the same tile of K, V, dK and dV; scores
/// exist for one panel at a time.
template <class Real>
constexpr Index stacked = vector_bytes >= 32 ? 64 / (panel_vectors(12) * lanes<Real>) : 1;
template <class Real>
constexpr Index panels_of_backward = most(4 / stacked<Real>, 1);

template <class Real>
RowTiles backward_panels(Index queries) {
  const RowTiles panels = row_panels<Real>(queries);
  return {stacked<Real> * panels.rows, (panels.count + stacked<Real> - 1) / stacked<Real>};
}

template <class Real>
RowTiles backward_tiles(const Head<Real>& head) {
  return row_tasks(backward_panels<Real>(head.queries), panels_of_backward<Real>);
}

/// Columns of the sums dK and dV.
template <class Real>
Index padded_columns(const Matrix<const Real>& x) {
  return round_up(x.columns, lanes<Real>);
}

/// A panel of rows and what the algorithm keeps of it between two tiles of keys.
template <class Real>
struct BackwardPanel {
  ScoreTile<Real> tile;
  Real *q, *d_o;            // Q^T multiplied by query_factor, dO^T: [D or E, rows]
  Real *q_copy, *d_o_copy;  // [rows, padded columns]: where they cannot be read in place
  Real* dq;                 // [rows, padded columns]
  Real *lse, *delta;        // [rows]; lse in base 2, of an empty row infinity
  Rows<Real> q_rows{}, d_o_rows{};
  bool has_empty_rows = false;

  BackwardPanel(const ScoreTile<Real>& tile_, Pieces<Real>& pieces) : tile(tile_) {
    const Head<Real>& head = tile.head;
    const Index most_rows = most_panel_rows<Real>(backward_panels<Real>(head.queries), head.queries);
    const Index d = padded_columns(head.q), e = padded_columns(head.v);
    q = pieces.take(d * most_rows);
    d_o = pieces.take(e * most_rows);
    q_copy = pieces.take(d * most_rows);
    d_o_copy = pieces.take(e * most_rows);
    dq = pieces.take(d * most_rows);
    lse = pieces.take(most_rows);
    delta = pieces.take(most_rows);
  }
};

/// The panels of rows [first_row, first_row + rows), and the tiles that they take turns with.
template <class Real>
struct BackwardTask {
  Pieces<Real> pieces;
  RowTiles of_head;
  Index count;  // of panels
  BackwardPanel<Real> panels[panels_of_backward<Real>];
  Real *s, *ds, *slope;   // S^T, P^T; dP^T, dS^T; softcap': [longest_tile, rows]
  Real *k_copy, *v_copy;  // of tiles that cannot be read in place

  template <class Arithmetic>
  BackwardTask(const Arithmetic& arithmetic, const Head<Real>& head, Index first_row, Index rows,
               Real* memory)
      : BackwardTask(arithmetic, head, first_row, rows, memory,
                     std::make_integer_sequence<Index, panels_of_backward<Real>>{}) {}

 private:
  template <class Arithmetic, Index... n>
  BackwardTask(const Arithmetic& arithmetic, const Head<Real>& head, Index first_row, Index rows,
               Real* memory, std::integer_sequence<Index, n...>)
      : pieces{memory},
        of_head(backward_panels<Real>(head.queries)),
        count(least(rows / of_head.rows + (rows % of_head.rows != 0),
                    of_head.count - first_row / of_head.rows)),
        panels{panel(head, first_row, rows, arithmetic.takes_all, n)...} {
    const Index most_rows = most_panel_rows<Real>(of_head, head.queries),
                longest_tile = arithmetic.longest_tile;
    s = pieces.take(longest_tile * most_rows);
    ds = pieces.take(longest_tile * most_rows);
    slope = pieces.take(head.spec.softcap != 0 ? longest_tile * most_rows : 0);
    k_copy = pieces.take(longest_tile * padded_columns(head.k));
    v_copy = pieces.take(longest_tile * padded_columns(head.v));
  }

  BackwardPanel<Real> panel(const Head<Real>& head, Index first_row, Index rows, bool takes_all, Index n) {
    const Index first = n * of_head.rows;
    const Index rows_of_panel = n + 1 < count ? of_head.rows : n < count ? rows - first : 0;
    return {{head, first_row + first, rows_of_panel, takes_all}, pieces};
  }
};

template <class Real>
Index backward_scratch(const Head<Real>& head) {
  return BackwardTask<Real>(Native<Real>{}, head, 0, 0, nullptr).pieces.used;
}

/// 8: load Q_i, dO_i, lse_i; 4: delta = rowsum(dO o O); dQ_i = 0.
template <class Real>
void load_rows(const BackwardHead<Real>& x, BackwardPanel<Real>& panel) {
  const ScoreTile<Real>& tile = panel.tile;
  const Head<Real>& head = tile.head;
  const Index n = tile.stride(), first_row = tile.first_row, rows = tile.rows;
  const Index d_columns = padded_columns(head.q), e_columns = padded_columns(head.v);
  pack_transposed<Real>(head.q, first_row, rows, n, query_factor(head), panel.q, n);
  pack_transposed<Real>(x.d_o, first_row, rows, n, Real{1}, panel.d_o, n);
  panel.q_rows = readable_rows<Real>(head.q, first_row, rows, d_columns, panel.q_copy);
  panel.d_o_rows = readable_rows<Real>(x.d_o, first_row, rows, e_columns, panel.d_o_copy);
  for (Index i = 0; i < n; ++i) {
    const Index row = first_row + least(i, rows - 1);
    panel.delta[i] = dot(x.d_o, x.o, row);
    if (x.delta.data) *x.delta.at(row) = panel.delta[i];
    const Real lse = *x.lse.at(row);
    panel.lse[i] = lse == -infinity<Real> ? infinity<Real> : lse * log2_of_e<Real>;
    panel.has_empty_rows = panel.has_empty_rows || panel.lse[i] == infinity<Real>;
    for (Index j = 0; x.ds.data && j < head.keys; ++j) *x.ds.at(row, j) = Real{0};
  }
  clear(panel.dq, rows * d_columns);
}

/// 11 and 14 for vector x of rows: s := p = e^(s - lse), ds := p (dp - delta), times softcap' where there is
/// one. If `guarded`, masked keys and empty rows have p = 0.
template <class Real, bool guarded>
void weights_and_gradients(const BackwardPanel<Real>& panel, Index x, const BackwardTask<Real>& own,
                           const Matrix<Real>& ds_out) {
  constexpr Index w = lanes<Real>;
  const ScoreTile<Real>& tile = panel.tile;
  const Index n = tile.stride();
  const Vector<Real> lse = load(panel.lse + x * w), delta = load(panel.delta + x * w);
  const Vector<Real> hidden = broadcast(-infinity<Real>);
  for (Index j = tile.some[x].first; j < tile.some[x].last; ++j) {
    Real* const s = own.s + j * n + x * w;
    Real* const dp = own.ds + j * n + x * w;
    const Vector<Real> score = load(s);
    Vector<Real> p = exp2<Real>(at_most<Real>(Layout<Real>::exponent_bias + 1, score - lse));
    Vector<Real> ds = p * (load(dp) - delta);
    if (guarded) {
      const Integers<Real> no_weight = (score == hidden) | (lse == -hidden);
      p = no_weight ? Vector<Real>{} : p;
      ds = no_weight ? Vector<Real>{} : ds;
    }
    if (ds_out.data) {
      for (Index i = 0; i < w && x * w + i < tile.rows; ++i) {
        *ds_out.at(tile.first_row + x * w + i, tile.first_key + j) = ds[i];
      }
    }
    if (tile.head.spec.softcap != 0) ds *= load(own.slope + j * n + x * w);
    store(s, p);
    store(dp, ds);
  }
}

/// The keys of panel.tile for its empty rows: p is 1 / Sk under mean_v and NaN under nan, for all keys, and
/// ds 0 or NaN.
template <class Real>
void add_empty_rows(const BackwardHead<Real>& x, const BackwardPanel<Real>& panel, Real* dk, Real* dv) {
  const ScoreTile<Real>& tile = panel.tile;
  const Head<Real>& head = tile.head;
  const Index d_columns = padded_columns(head.q), e_columns = padded_columns(head.v);
  const Real not_a_number = static_cast<Real>(__builtin_nan(""));
  const bool is_nan = head.spec.empty_row == EmptyRow::nan;
  const Real p = is_nan ? not_a_number : Real{1} / static_cast<Real>(head.keys);
  for (Index i = 0; i < tile.rows; ++i) {
    const Index row = tile.first_row + i;
    if (*x.lse.at(row) != -infinity<Real>) continue;
    for (Index j = tile.first_key; j < tile.first_key + tile.keys; ++j) {
      for (Index e = 0; e < head.v.columns; ++e) dv[j * e_columns + e] += p * *x.d_o.at(row, e);
      for (Index d = 0; is_nan && d < head.q.columns; ++d) {
        dk[j * d_columns + d] = panel.dq[i * d_columns + d] = not_a_number;
      }
      if (is_nan && x.ds.data) *x.ds.at(row, j) = not_a_number;
    }
  }
}

/// Lines 10 to 16: one tile of keys, to which panel.tile has moved.
template <class Arithmetic, class Real = typename Arithmetic::Real>
void differentiate(const Arithmetic& arithmetic, const BackwardHead<Real>& x,
                   const BackwardPanel<Real>& panel, const Rows<Real>& k, const Rows<Real>& v, Real* dk,
                   Real* dv, const BackwardTask<Real>& own) {
  constexpr Index w = lanes<Real>;
  constexpr NativeProducts<Real> products;
  const ScoreTile<Real>& tile = panel.tile;
  const Head<Real>& head = tile.head;
  const Index n = tile.stride(), d_columns = padded_columns(head.q), e_columns = padded_columns(head.v);
  const Rows<Real>&q = panel.q_rows, &d_o = panel.d_o_rows;

  tile.multiply_queries(products, k, head.q.columns, panel.q, own.s);     // 10: S = Q K^T
  tile.multiply_queries(products, v, head.v.columns, panel.d_o, own.ds);  // 13: dP = dO V^T
  arithmetic.notice(Stage::scores, panel, own, dk, dv);
  for (Index lane = 0; lane < tile.vectors; ++lane) {  // 11: P; 14: dS
    if (tile.is_whole && !panel.has_empty_rows) {
      weights_and_gradients<Real, false>(panel, lane, own, x.ds);
    } else {
      if (head.spec.softcap != 0) tile.store_slopes(lane, own.s, own.slope);
      tile.adjust(lane, own.s);
      weights_and_gradients<Real, true>(panel, lane, own, x.ds);
    }
  }
  arithmetic.notice(Stage::weights, panel, own, dk, dv);
  tile.for_rectangles([&](Index first, Index vectors, Index key, Index keys) ATTEST_INLINE_LAMBDA {
    const Index i = first * w, depth = least(i + vectors * w, tile.rows) - i, j = tile.first_key + key;
    multiply<Real, Operand::plain>({depth, own.s + key * n + i, n, d_o.data + i * d_o.stride, d_o.stride,
                                    dv + j * e_columns, e_columns, true},
                                   keys, e_columns / w);  // 12: dV += P^T dO
    multiply<Real, Operand::plain>({depth, own.ds + key * n + i, n, q.data + i * q.stride, q.stride,
                                    dk + j * d_columns, d_columns, true},
                                   keys, d_columns / w);  // 16: dK += dS^T Q
  });
  accumulate_rows<Real>(products, tile, own.ds, nullptr, k, panel.dq, d_columns);  // 15: dQ += dS K
  arithmetic.notice(Stage::sums, panel, own, dk, dv);
}

/// Rows [first_row, first_row + rows) of dq, ds and delta, rows as in backward_tiles; their shares of
/// dK [Sk, padded D], without the scale, and of dV [Sk, padded E] are added, for every key in the order of
/// the rows.
template <class Arithmetic, class Real = typename Arithmetic::Real>
void backward(const Arithmetic& arithmetic, const Head<Real>& head, const BackwardHead<Real>& x,
              Index first_row, Index rows, Real* dk, Real* dv, Real* scratch) {
  BackwardTask<Real> own(arithmetic, head, first_row, rows, scratch);
  const Index d_columns = padded_columns(head.q);
  bool meets_all_keys = false;
  for (Index n = 0; n < own.count; ++n) {
    load_rows(x, own.panels[n]);
    meets_all_keys =
        meets_all_keys || (own.panels[n].has_empty_rows && head.spec.empty_row != EmptyRow::zero);
  }

  const KeyRange range = meets_all_keys
                             ? KeyRange{0, head.keys}
                             : keys_of_part(head, {first_row, rows}, arithmetic.tile, arithmetic.grid);
  Index j = range.first;
  for (Index keys; j < range.last; j += keys) {  // 6
    keys = range.last - j <= arithmetic.longest_tile ? range.last - j : arithmetic.tile;
    const Rows<Real> k = readable_rows<Real>(head.k, j, keys, d_columns, own.k_copy);  // 7
    const Rows<Real> v = unit_stride_rows<Real>(head.v, j, keys, own.v_copy);
    for (Index n = 0; n < own.count; ++n) {
      BackwardPanel<Real>& panel = own.panels[n];
      panel.tile.move_to(j, keys);
      if (!panel.tile.is_empty) differentiate(arithmetic, x, panel, k, v, dk, dv, own);
      if (meets_all_keys) add_empty_rows(x, panel, dk, dv);
    }
  }

  const Real scale = static_cast<Real>(head.spec.scale);
  for (Index n = 0; n < own.count && x.dq.data; ++n) {
    const BackwardPanel<Real>& panel = own.panels[n];
    for (Index i = 0; i < panel.tile.rows; ++i) {
      write_row(panel.dq + i * d_columns, scale, x.dq, panel.tile.first_row + i);
    }
  }
}

template <class Real>
void native_backward(const Head<Real>& head, const BackwardHead<Real>& x, Index first_row, Index rows,
                     Real* dk, Real* dv, Real* scratch) {
  backward(Native<Real>{}, head, x, first_row, rows, dk, dv, scratch);
}

/// out[j, d] = factor * sum[j * columns + d], with columns padded, for `rows` rows; or of the sum of both
/// where out has the sum of other parts.
template <class Real>
void add_part(const Real* sum, Index rows, bool is_first, Real factor, const Matrix<Real>& out) {
  constexpr Index w = lanes<Real>;
  for (Index j = 0; j < rows; ++j, sum += round_up(out.columns, w)) {
    Index d = 0;
    for (; out.column_stride == 1 && d + w <= out.columns; d += w) {
      const Vector<Real> x = load(sum + d);
      store(out.at(j, d), (is_first ? x : load(out.at(j, d)) + x) * factor);
    }
    for (; d < out.columns; ++d) *out.at(j, d) = (is_first ? sum[d] : *out.at(j, d) + sum[d]) * factor;
  }
}

}  // namespace attest::tiled::ATTEST_TILED_LEVEL
