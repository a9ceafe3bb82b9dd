// The backward pass of double-double attention: dq for a panel of queries, dk and dv for a panel of keys.
// Both compute the scores again, so that no sum is shared between threads.
#pragma once

#include "tiled/precise_forward.hpp"

namespace attest::tiled::ATTEST_TILED_LEVEL {

/// What a pair needs to know of its query, in the lanes of a vector.
struct QueryLanes {
  Wide lse, delta;
  Doubles delta_magnitude;
};

/// Of the queries of a panel, or of the one that a row of a tile stands for.
inline QueryLanes query_lanes(const PreciseRows& rows, const PanelTile& tile, Index row, Index x) {
  QueryLanes q{};
  for (Index lane = 0; lane < double_lanes; ++lane) {
    const Index i = tile.query(row, x * double_lanes + lane);
    q.lse.hi[lane] = *rows.lse_hi.at(i);
    q.lse.lo[lane] = rows.lse_lo.data ? *rows.lse_lo.at(i) : 0;
    q.delta.hi[lane] = *rows.delta.hi.at(i);
    q.delta.lo[lane] = *rows.delta.lo.at(i);
    q.delta_magnitude[lane] = *rows.delta_magnitude.at(i);
  }
  return q;
}
inline QueryLanes query_lanes(const PreciseRows& rows, Index i) {
  const double lse_lo = rows.lse_lo.data ? *rows.lse_lo.at(i) : 0;
  return {{broadcast(*rows.lse_hi.at(i)), broadcast(lse_lo)},
          {broadcast(*rows.delta.hi.at(i)), broadcast(*rows.delta.lo.at(i))},
          broadcast(*rows.delta_magnitude.at(i))};
}

/// p and ds of an empty row, which do not depend on its scores.
struct EmptyGradients {
  Wide p, ds;
};
inline EmptyGradients empty_gradients(const Head<double>& head) {
  const Wide zero{}, nan = {broadcast(__builtin_nan("")), Doubles{}};
  const Wide keys = {broadcast(static_cast<double>(head.keys)), Doubles{}};
  if (head.spec.empty_row == EmptyRow::zero) return {zero, zero};
  if (head.spec.empty_row == EmptyRow::nan) return {nan, nan};
  return {divide({broadcast(1.0), Doubles{}}, keys), zero};
}

/// The relative error of ds in units, but for what the score's error brings with it.
inline double gradient_units(const Head<double>& head) {
  return product_units(head.v.columns) + static_cast<double>(head.v.columns) + 100 +
         (head.spec.softcap != 0 ? 512 : 0);
}
/// What an error of a score's magnitude does to p and to the slope of the softcap.
inline double units_of_size(const Head<double>& head) {
  const double cap = head.spec.softcap;
  return score_units(head) * (cap != 0 ? 1 + 2 / (cap < 0 ? -cap : cap) : 1);
}

/// Turns scores into p and dp = do.v into ds, with the slope of the softcap if there is one; ds without it
/// goes to `out` if that is given. size: the largest magnitude of each lane's scores, and of lse in
/// proportion.
inline void gradients_of_scores(const PanelTile& tile, const PreciseRows& rows, const ScorePanel& scores,
                                const WidePanel& dp, Index x, const PreciseQueryGradients& out,
                                Doubles& size) {
  const Head<double>& head = tile.head;
  const Wide zero{};
  const EmptyGradients empty = empty_gradients(head);
  QueryLanes q = query_lanes(rows, tile, 0, x);
  for (Index row = 0; row < tile.rows; ++row) {
    if (!tile.lanes_are_queries) q = query_lanes(rows, tile.first + row);
    const Wide score = scores.s.at(row, x);
    const Wide below = two_sum(score.hi, -q.lse.hi);
    Wide p = exp({below.hi, below.lo + (score.lo - q.lse.lo)});
    const Longs is_empty = q.lse.hi == -infinity<double>;
    const Longs is_nothing = is_empty || score.hi == -infinity<double>;
    const Doubles weight = is_empty ? empty.p.hi : is_nothing ? Doubles{} : weight_magnitude(p);
    Wide ds = multiply(p, add(dp.at(row, x), negated(q.delta)));
    Doubles magnitude = weight * (load(dp.magnitudes(row, x)) + q.delta_magnitude);
    p = where(is_empty, empty.p, where(is_nothing, zero, p));
    ds = where(is_empty, empty.ds, where(is_nothing, zero, ds));
    magnitude = is_nothing ? Doubles{} : magnitude;
    const Doubles reach = load(scores.s.magnitudes(row, x)) + absolute(q.lse.hi) * (4 / score_units(head));
    size = maximum<double>(is_nothing ? Doubles{} : reach, size);
    if (out.ds.hi.data || out.ds.lo.data || out.ds_error.data) {
      const Doubles units = sure(score_units(head) * reach) + gradient_units(head);
      const Doubles error = is_nothing ? Doubles{} : wide_unit * (magnitude * units) + 0x1p-1000;
      for (Index lane = 0; lane < double_lanes; ++lane) {
        if (x * double_lanes + lane >= tile.panel.rows) break;
        const Index i = tile.query(row, x * double_lanes + lane), j = tile.key(row, x * double_lanes + lane);
        write(out.ds, i, j, ds.hi[lane], ds.lo[lane]);
        if (out.ds_error.data) *out.ds_error.at(i, j) = error[lane];
      }
    }
    if (head.spec.softcap != 0) {
      const Index n = row * panel_lanes + x * double_lanes;
      const Wide slope = {load(scores.slope_hi + n), load(scores.slope_lo + n)};
      ds = where(is_nothing, ds, multiply(ds, slope));
      magnitude = is_nothing ? magnitude : magnitude * slope.hi;
    }
    scores.s.set(row, x, p);
    store(scores.s.magnitudes(row, x), weight);
    dp.set(row, x, ds);
    store(dp.magnitudes(row, x), magnitude);
  }
}

/// Writes x[columns, panel_lanes] times `factor` as rows of a panel.
inline void write_gradient(const WideMatrix& out, const Matrix<double>& out_error, Panel panel, Index columns,
                           const WidePanel& sums, double factor, Index x, Doubles units) {
  for (Index c = 0; c < columns; ++c) {
    const Wide value = multiply(sums.at(c, x), broadcast(factor));
    const Doubles error =
        wide_unit * (load(sums.magnitudes(c, x)) * absolute(broadcast(factor)) * units) + 0x1p-1000;
    for (Index lane = 0; lane < double_lanes; ++lane) {
      if (x * double_lanes + lane >= panel.rows) break;
      const Index i = panel.row(x * double_lanes + lane);
      write(out, i, c, value.hi[lane], value.lo[lane]);
      if (out_error.data) *out_error.at(i, c) = error[lane];
    }
  }
}

/// delta = do.o of a vector of rows.
inline void write_delta(const PreciseRows& rows, Panel panel, Index x) {
  Wide sum{};
  Doubles magnitude{};
  for (Index e = 0; e < rows.d_o.columns; ++e) {
    Doubles d_o{}, o_hi{}, o_lo{};
    for (Index lane = 0; lane < double_lanes; ++lane) {
      const Index i = panel.row(x * double_lanes + lane);
      d_o[lane] = *rows.d_o.at(i, e);
      o_hi[lane] = *rows.o_hi.at(i, e);
      o_lo[lane] = rows.o_lo.data ? *rows.o_lo.at(i, e) : 0;
    }
    sum = add(sum, multiply(Wide{o_hi, o_lo}, d_o));
    magnitude += absolute(o_hi * d_o);
  }
  for (Index lane = 0; lane < double_lanes; ++lane) {
    if (x * double_lanes + lane >= panel.rows) break;
    const Index i = panel.row(x * double_lanes + lane);
    write(rows.delta, i, sum.hi[lane], sum.lo[lane]);
    *rows.delta_magnitude.at(i) = magnitude[lane];
  }
}

inline void write_sink_terms(const Head<double>& head, const PreciseRows& rows,
                             const PreciseQueryGradients& out, Panel panel, Index x) {
  const PanelTile tile{head, true, panel, 0, 1};
  const QueryLanes q = query_lanes(rows, tile, 0, x);
  const Wide above = two_sum(broadcast(*head.sink), -q.lse.hi);
  const Wide p = exp({above.hi, above.lo - q.lse.lo});
  Wide term = negated(multiply(p, q.delta));
  term = where(q.lse.hi == -infinity<double> || p.hi == 0.0, Wide{}, term);
  // The exponent, delta, and the place in a sum over all rows.
  const double columns = static_cast<double>(head.v.columns), queries = static_cast<double>(head.queries);
  const Doubles size = absolute(broadcast(*head.sink)) + absolute(q.lse.hi);
  const Doubles error =
      wide_unit * (p.hi * q.delta_magnitude) * (sure(4 * size) + (columns + 4 * queries + 50));
  for (Index lane = 0; lane < double_lanes; ++lane) {
    if (x * double_lanes + lane >= panel.rows) break;
    const Index i = panel.row(x * double_lanes + lane);
    write(out.sink_term, i, term.hi[lane], term.lo[lane]);
    *out.sink_error.at(i) = error[lane] + 0x1p-900;
  }
}

/// delta, dq, ds and the terms of dsink of rows [first_row, first_row + rows).
inline void precise_backward_queries(const Head<double>& head, const PreciseRows& saved,
                                     const PreciseQueryGradients& out, Index first_row, Index rows,
                                     double* scratch) {
  const Panel panel{first_row, rows};
  const Index width = head.q.columns, columns = head.v.columns;
  for (Index x = 0; x < panel_vectors_wide; ++x) {
    write_delta(saved, panel, x);
    if (head.sink) write_sink_terms(head, saved, out, panel, x);
  }
  if (!out.dq.hi.data && !out.dq.lo.data && !out.ds.hi.data && !out.ds.lo.data && !out.ds_error.data) {
    return;
  }
  WideScratch memory{scratch};
  const WidePanel q = {memory.take(width), nullptr, memory.take(width)};
  const WidePanel d_o = {memory.take(columns), nullptr, memory.take(columns)};
  const WidePanel dp = memory.take_panel(wide_tile), dq = memory.take_panel(width);
  const WidePanel s = memory.take_panel(wide_tile);
  const ScorePanel scores = {s, memory.take(wide_tile), memory.take(wide_tile)};
  load_panel(head.q, panel, q.hi, q.magnitude);
  load_panel(saved.d_o, panel, d_o.hi, d_o.magnitude);
  for (Index n = 0; n < 3 * width * panel_lanes; ++n) dq.hi[n] = 0;

  Doubles size[panel_vectors_wide] = {}, ignored{};
  // Pairs that no range reaches have ds = 0, or NaN in an empty row.
  for (Index lane = 0; lane < rows; ++lane) {
    const Index i = panel.row(lane);
    const bool is_nan = *saved.lse_hi.at(i) == -infinity<double> && head.spec.empty_row == EmptyRow::nan;
    for (Index j = 0; j < head.keys; ++j) {
      write(out.ds, i, j, is_nan ? __builtin_nan("") : 0, 0);
      if (out.ds_error.data) *out.ds_error.at(i, j) = 0;
    }
  }
  const Index last = visible_keys(head, first_row + rows - 1).last;
  for (Index j = visible_keys(head, first_row).first; j < last; j += wide_tile) {
    const PanelTile tile{head, true, panel, j, least(wide_tile, last - j)};
    multiply_panel<false, false>(tile.rows, width, {head.k.at(j, 0), head.k.row_stride, head.k.column_stride},
                                 q, s);
    multiply_panel<false, false>(tile.rows, columns,
                                 {head.v.at(j, 0), head.v.row_stride, head.v.column_stride}, d_o, dp);
    for (Index x = 0; x < panel_vectors_wide; ++x) {
      finish_scores<true>(tile, scores, x, ignored);
      gradients_of_scores(tile, saved, scores, dp, x, out, size[x]);
    }
    multiply_panel<true, true>(width, tile.rows, {head.k.at(j, 0), head.k.column_stride, head.k.row_stride},
                               dp, dq);
  }
  for (Index x = 0; x < panel_vectors_wide; ++x) {
    const Doubles units = gradient_units(head) + tile_units(head.keys) + sure(units_of_size(head) * size[x]);
    write_gradient(out.dq, out.dq_error, panel, width, dq, head.spec.scale, x, units);
    for (Index lane = 0; lane < double_lanes; ++lane) {  // of an empty row
      const Index n = x * double_lanes + lane;
      if (n >= rows || head.keys == 0 || head.spec.empty_row != EmptyRow::nan) break;
      const Index i = panel.row(n);
      if (*saved.lse_hi.at(i) != -infinity<double>) continue;
      for (Index c = 0; c < width; ++c) write(out.dq, i, c, __builtin_nan(""), 0);
    }
  }
}

/// dk and dv of keys [first_key, first_key + keys), summed over heads; delta is read.
inline void precise_backward_keys(const Head<double>* heads, const PreciseRows* saved, Index head_count,
                                  const PreciseKeyGradients& out, Index first_key, Index keys,
                                  double* scratch) {
  const Panel panel{first_key, keys};
  const Index width = heads->k.columns, columns = heads->v.columns;
  WideScratch memory{scratch};
  const WidePanel k = {memory.take(width), nullptr, memory.take(width)};
  const WidePanel v = {memory.take(columns), nullptr, memory.take(columns)};
  const WidePanel dp = memory.take_panel(wide_tile), s = memory.take_panel(wide_tile);
  const WidePanel dk = memory.take_panel(width), dv = memory.take_panel(columns);
  const ScorePanel scores = {s, memory.take(wide_tile), memory.take(wide_tile)};
  load_panel(heads->k, panel, k.hi, k.magnitude);
  load_panel(heads->v, panel, v.hi, v.magnitude);
  for (Index n = 0; n < 3 * width * panel_lanes; ++n) dk.hi[n] = 0;
  for (Index n = 0; n < 3 * columns * panel_lanes; ++n) dv.hi[n] = 0;

  Doubles size[panel_vectors_wide] = {}, ignored{};
  for (Index h = 0; h < head_count; ++h) {
    const Head<double>& head = heads[h];
    const PreciseRows& rows = saved[h];
    for (Index i = 0; i < head.queries; i += wide_tile) {
      const PanelTile tile{head, false, panel, i, least(wide_tile, head.queries - i)};
      bool has_constant_row = false;
      for (Index n = 0; n < tile.rows && head.spec.empty_row != EmptyRow::zero; ++n) {
        has_constant_row = has_constant_row || *rows.lse_hi.at(i + n) == -infinity<double>;
      }
      if (tile.is_empty() && !has_constant_row) continue;
      multiply_panel<false, false>(tile.rows, width,
                                   {head.q.at(i, 0), head.q.row_stride, head.q.column_stride}, k, s);
      multiply_panel<false, false>(tile.rows, columns,
                                   {rows.d_o.at(i, 0), rows.d_o.row_stride, rows.d_o.column_stride}, v, dp);
      for (Index x = 0; x < panel_vectors_wide; ++x) {
        finish_scores<true>(tile, scores, x, ignored);
        gradients_of_scores(tile, rows, scores, dp, x, {}, size[x]);
      }
      multiply_panel<true, true>(columns, tile.rows,
                                 {rows.d_o.at(i, 0), rows.d_o.column_stride, rows.d_o.row_stride}, s, dv);
      multiply_panel<true, true>(width, tile.rows, {head.q.at(i, 0), head.q.column_stride, head.q.row_stride},
                                 dp, dk);
    }
  }
  const Index terms = head_count * (heads->queries + wide_tile);
  for (Index x = 0; x < panel_vectors_wide; ++x) {
    const Doubles units = gradient_units(*heads) + tile_units(terms) + sure(units_of_size(*heads) * size[x]);
    write_gradient(out.dk, out.dk_error, panel, width, dk, heads->spec.scale, x, units);
    write_gradient(out.dv, out.dv_error, panel, columns, dv, 1, x, units);
  }
}

}  // namespace attest::tiled::ATTEST_TILED_LEVEL
