// The backward pass of FlashAttention-2 (Dao 2023, algorithm 2) by recomputation, for one panel of query rows
// of one head. The numbers in the comments are the lines of the algorithm, whose two loops have changed
// places: dQ stays in the cache, and dK and dV are sums that belong to the caller.
#pragma once

#include "tiled/scores.hpp"

namespace attest::tiled::ATTEST_TILED_LEVEL {

template <class Real>
RowTiles backward_tiles(const Head<Real>& head) {
  return row_panels<Real>(head.queries);
}

/// Columns of the sums dK and dV.
template <class Real>
Index padded_columns(const Matrix<const Real>& x) {
  return round_up(x.columns, lanes<Real>);
}

template <class Real>
struct BackwardScratch {
  Real *q, *d_o;  // Q^T multiplied by query_factor, dO^T: [D or E, rows]
  Real *q_copy,
      *d_o_copy;         // [rows, padded columns], as k_copy and v_copy: where they cannot be read in place
  Real *s, *ds, *slope;  // S^T, P^T; dP^T, dS^T; softcap': [longest_key_tile, rows]
  Real* dq;              // [rows, padded columns]
  Real *lse, *delta;     // [rows]; lse in base 2, of an empty row infinity
  Real *k_copy, *v_copy;
  Index size;

  BackwardScratch(const Head<Real>& head, Real* memory) {
    const Index rows = most_panel_rows<Real>(head.queries);
    const Index d = padded_columns(head.q), e = padded_columns(head.v);
    Pieces<Real> pieces{memory};
    q = pieces.take(d * rows);
    d_o = pieces.take(e * rows);
    q_copy = pieces.take(d * rows);
    d_o_copy = pieces.take(e * rows);
    s = pieces.take(longest_key_tile * rows);
    ds = pieces.take(longest_key_tile * rows);
    slope = pieces.take(head.spec.softcap != 0 ? longest_key_tile * rows : 0);
    dq = pieces.take(rows * d);
    lse = pieces.take(rows);
    delta = pieces.take(rows);
    k_copy = pieces.take(longest_key_tile * d);
    v_copy = pieces.take(longest_key_tile * e);
    size = pieces.used;
  }
};

template <class Real>
Index backward_scratch(const Head<Real>& head) {
  return BackwardScratch<Real>(head, nullptr).size;
}

/// 11 and 14 for vector x of rows: s := p = e^(s - lse), ds := p (dp - delta), times softcap' where there is
/// one. If `guarded`, masked keys and empty rows have p = 0.
template <class Real, bool guarded>
void weights_and_gradients(const ScoreTile<Real>& tile, Index x, const BackwardScratch<Real>& own,
                           const Matrix<Real>& ds_out) {
  constexpr Index w = lanes<Real>;
  const Index n = tile.stride();
  const Vector<Real> lse = load(own.lse + x * w), delta = load(own.delta + x * w);
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

/// An empty row: p is 1 / Sk under mean_v and NaN under nan, for all keys, and ds 0 or NaN.
template <class Real>
void add_empty_row(const Head<Real>& head, const BackwardHead<Real>& x, Index i, Real* dq, Real* dk,
                   Real* dv) {
  const Index d_columns = padded_columns(head.q), e_columns = padded_columns(head.v);
  if (head.spec.empty_row == EmptyRow::zero) return;
  const Real not_a_number = static_cast<Real>(__builtin_nan(""));
  const bool is_nan = head.spec.empty_row == EmptyRow::nan;
  const Real p = is_nan ? not_a_number : Real{1} / static_cast<Real>(head.keys);
  for (Index j = 0; j < head.keys; ++j) {
    for (Index e = 0; e < head.v.columns; ++e) dv[j * e_columns + e] += p * *x.d_o.at(i, e);
    for (Index d = 0; is_nan && d < head.q.columns; ++d) dk[j * d_columns + d] = dq[d] = not_a_number;
    if (is_nan && x.ds.data) *x.ds.at(i, j) = not_a_number;
  }
}

/// Rows [first_row, first_row + rows) of dq, ds and delta; their shares of dK [Sk, padded D], without the
/// scale, and of dV [Sk, padded E] are added.
template <class Real>
void backward(const Head<Real>& head, const BackwardHead<Real>& x, Index first_row, Index rows, Real* dk,
              Real* dv, Real* scratch) {
  constexpr Index w = lanes<Real>;
  const BackwardScratch<Real> own(head, scratch);
  ScoreTile<Real> tile(head, first_row, rows);
  const Index n = tile.stride(), d_columns = padded_columns(head.q), e_columns = padded_columns(head.v);
  constexpr NativeProducts<Real> products;

  // 8: load Q_i, dO_i, lse_i; 4: delta = rowsum(dO o O); dQ_i = 0
  pack_transposed<Real>(head.q, first_row, rows, n, query_factor(head), own.q, n);
  pack_transposed<Real>(x.d_o, first_row, rows, n, Real{1}, own.d_o, n);
  const Rows<Real> q = readable_rows<Real>(head.q, first_row, rows, d_columns, own.q_copy);
  const Rows<Real> d_o = readable_rows<Real>(x.d_o, first_row, rows, e_columns, own.d_o_copy);
  bool has_empty_rows = false;
  for (Index i = 0; i < n; ++i) {
    const Index row = first_row + least(i, rows - 1);
    own.delta[i] = dot(x.d_o, x.o, row);
    if (x.delta.data) *x.delta.at(row) = own.delta[i];
    const Real lse = *x.lse.at(row);
    own.lse[i] = lse == -infinity<Real> ? infinity<Real> : lse * log2_of_e<Real>;
    has_empty_rows = has_empty_rows || own.lse[i] == infinity<Real>;
    for (Index j = 0; x.ds.data && j < head.keys; ++j) *x.ds.at(row, j) = Real{0};
  }
  clear(own.dq, rows * d_columns);

  const Index end = visible_keys(head, first_row + rows - 1).last;
  Index j = visible_keys(head, first_row).first;
  for (Index keys; j < end; j += keys) {  // 6
    keys = end - j <= longest_key_tile ? end - j : key_tile;
    tile.move_to(j, keys);
    const Rows<Real> k = readable_rows<Real>(head.k, j, keys, d_columns, own.k_copy);  // 7
    const Rows<Real> v = unit_stride_rows<Real>(head.v, j, keys, own.v_copy);

    tile.multiply_queries(products, k, head.q.columns, own.q, own.s);     // 10: S = Q K^T
    tile.multiply_queries(products, v, head.v.columns, own.d_o, own.ds);  // 13: dP = dO V^T
    for (Index lane = 0; lane < tile.vectors; ++lane) {
      if (tile.is_whole && !has_empty_rows) {
        weights_and_gradients<Real, false>(tile, lane, own, x.ds);
      } else {
        if (head.spec.softcap != 0) tile.store_slopes(lane, own.s, own.slope);
        tile.adjust(lane, own.s);
        weights_and_gradients<Real, true>(tile, lane, own, x.ds);
      }
    }
    tile.for_rectangles([&](Index first, Index vectors, Index key, Index keys_) ATTEST_INLINE_LAMBDA {
      const Index i = first * w, depth = least(i + vectors * w, rows) - i;
      multiply<Real, Operand::plain>({depth, own.s + key * n + i, n, d_o.data + i * d_o.stride, d_o.stride,
                                      dv + (j + key) * e_columns, e_columns, true},
                                     keys_, e_columns / w);  // 12: dV += P^T dO
      multiply<Real, Operand::plain>({depth, own.ds + key * n + i, n, q.data + i * q.stride, q.stride,
                                      dk + (j + key) * d_columns, d_columns, true},
                                     keys_, d_columns / w);  // 16: dK += dS^T Q
    });
    accumulate_rows<Real>(products, tile, own.ds, nullptr, k, own.dq, d_columns);  // 15: dQ += dS K
  }

  const Real scale = static_cast<Real>(head.spec.scale);
  for (Index i = 0; i < rows; ++i) {
    Real* const dq = own.dq + i * d_columns;
    if (*x.lse.at(first_row + i) == -infinity<Real>) add_empty_row(head, x, first_row + i, dq, dk, dv);
    if (x.dq.data) write_row(dq, scale, x.dq, first_row + i);
  }
}

/// out[j, d] = factor * sum over the parts, in their order, of part[j * columns + d], for rows [first, last).
/// The sums replace the first part.
template <class Real>
void add_parts(Real* const* parts, Index count, Index first, Index last, Real factor,
               const Matrix<Real>& out) {
  constexpr Index w = lanes<Real>;
  const Index columns = round_up(out.columns, w);
  for (Index j = first; j < last; ++j) {
    Real* const total = parts[0] + j * columns;
    for (Index d = 0; d < columns; d += w) {
      Vector<Real> sum = load(total + d);
      for (Index n = 1; n < count; ++n) sum += load(parts[n] + j * columns + d);
      store(total + d, sum);
    }
    write_row(total, factor, out, j);
  }
}

}  // namespace attest::tiled::ATTEST_TILED_LEVEL
