// The forward pass of double-double attention for one panel of queries.
#pragma once

#include "tiled/precise_scores.hpp"

namespace attest::tiled::ATTEST_TILED_LEVEL {

/// Hands out memory, a vector at a time.
struct WideScratch {
  double* next;

  double* take(Index rows) {
    double* const taken = next;
    next += rows * panel_lanes;
    return taken;
  }
  WidePanel take_panel(Index rows) {
    double *const hi = take(rows), *const lo = take(rows);
    return {hi, lo, take(rows)};
  }
};

inline void write(const WideMatrix& to, Index i, Index j, double hi, double lo) {
  if (to.hi.data) *to.hi.at(i, j) = hi;
  if (to.lo.data) *to.lo.at(i, j) = lo;
}
inline void write(const WideColumn& to, Index i, double hi, double lo) {
  if (to.hi.data) *to.hi.at(i) = hi;
  if (to.lo.data) *to.lo.at(i) = lo;
}

/// What the scores so far leave of a vector of rows: sum_j exp(s_j) = l exp(base).
struct RunningRow {
  Wide m, l;
  Doubles base;  // at most 1 below the maximum; -inf as long as there is none
  Doubles size;  // the largest magnitude of a score
};

/// exp(s - base) in place of the scores of a tile, and their sum into the row.
inline void weigh(const WidePanel& s, Index rows, Index x, RunningRow& row) {
  const Doubles base = row.base == -infinity<double> ? Doubles{} : row.base;
  Doubles lowest = broadcast(-infinity<double>);
  for (Index j = 0; j < rows; ++j) {
    const Wide score = s.at(j, x);
    lowest = maximum<double>(score.hi == row.m.hi ? score.lo : lowest, lowest);
    const Wide below = two_sum(score.hi, -base);
    const ExpArgument e = reduced({below.hi, below.lo + score.lo});
    s.set(j, x, e.f);
    store(s.magnitudes(j, x), e.n);
  }
  row.m.lo = maximum<double>(row.m.lo, lowest);
  for (Index j = 0; j < rows; ++j) s.set(j, x, exp_series(s.at(j, x)));
  Wide sum{};
  for (Index j = 0; j < rows;) {
    Wide group{};  // short enough to do without normal numbers in between
    for (const Index next = least(j + 8, rows); j < next; ++j) {
      const Wide p = scaled_exp(load(s.magnitudes(j, x)), s.at(j, x));
      s.set(j, x, p);
      store(s.magnitudes(j, x), weight_magnitude(p));
      const Wide t = two_sum(group.hi, p.hi);
      group = {t.hi, group.lo + (t.lo + p.lo)};
    }
    sum = add(sum, fast_two_sum(group.hi, group.lo));
  }
  row.l = add(row.l, sum);
}

/// Raises the base to the maximum of a tile where that is higher by more than 1, and scales by exp of the
/// difference what has been summed up.
inline void raise_base(const WidePanel& s, Index rows, Index x, RunningRow& row, const WidePanel& o,
                       Index columns) {
  Doubles highest = row.m.hi;
  for (Index j = 0; j < rows; ++j) highest = maximum<double>(s.at(j, x).hi, highest);
  row.m.lo = highest == row.m.hi ? row.m.lo : broadcast(-infinity<double>);
  row.m.hi = highest;
  const Longs is_raised = highest > row.base + 1.0;
  bool any = false;
  for (Index lane = 0; lane < double_lanes; ++lane) any = any || is_raised[lane];
  if (!any) return;
  const Doubles base = is_raised ? highest : row.base;
  const Wide lowered = two_sum(row.base, -base);
  Wide factor = exp(where(row.base == -infinity<double>, {row.base, Doubles{}}, lowered));
  factor = where(is_raised, factor, {broadcast(1.0), Doubles{}});
  row.l = multiply(row.l, factor);
  for (Index e = 0; e < columns; ++e) {
    o.set(e, x, multiply(o.at(e, x), factor));
    store(o.magnitudes(e, x), load(o.magnitudes(e, x)) * factor.hi);
  }
  row.base = base;
}

/// Row i of the outputs where it may attend to nothing.
inline void write_empty_row(const Head<double>& head, const PreciseForwardHead& out, Index i) {
  const double fill = head.spec.empty_row == EmptyRow::nan ? __builtin_nan("") : 0;
  for (Index e = 0; e < head.v.columns; ++e) {
    Wide sum = {broadcast(fill), Doubles{}};
    Doubles size{};
    if (head.spec.empty_row == EmptyRow::mean_v && head.keys > 0) {
      for (Index j = 0; j < head.keys; ++j) {
        const Doubles value = broadcast(*head.v.at(j, e));
        sum = add(sum, {value, Doubles{}});
        size += absolute(value);
      }
      const Doubles keys = broadcast(static_cast<double>(head.keys));
      sum = divide(sum, {keys, Doubles{}});
      size = size / keys;
    }
    write(out.o, i, e, sum.hi[0], sum.lo[0]);
    if (out.o_error.data) *out.o_error.at(i, e) = wide_unit * (static_cast<double>(head.keys) + 8) * size[0];
  }
  write(out.lse, i, -infinity<double>, 0);
  write(out.m, i, -infinity<double>, 0);
  write(out.l, i, 0, 0);
  if (out.row_error.data) *out.row_error.at(i) = 0;
}

/// Divides by the row sum and writes vector x of the panel.
inline void finish_rows(const Head<double>& head, const PreciseForwardHead& out, Panel panel, Index x,
                        const RunningRow& row, const WidePanel& o) {
  const Index columns = head.v.columns;
  const Wide inverse = divide({broadcast(1.0), Doubles{}}, row.l), log_l = log(row.l);
  const Wide lse = add({row.base, Doubles{}}, log_l);
  // l is counted from the base so far.
  const Wide above = two_sum(row.base, -row.m.hi);
  const Wide l = multiply(row.l, exp({above.hi, above.lo - row.m.lo}));
  const Doubles score_error = sure(score_units(head) * row.size);
  const double tiles = static_cast<double>(head.keys / wide_tile + 2);
  const Doubles row_error =
      wide_unit *
          (score_error + (33 * (1.0 + absolute(log_l.hi)) + 2 * absolute(lse.hi)) + (2 * tiles + 100)) +
      0x1p-1000;
  const Doubles o_error = wide_unit * (2 * score_error + (tile_units(head.keys) + tiles + 150)) * inverse.hi;
  for (Index e = 0; e < columns; ++e) {
    const Wide value = multiply(o.at(e, x), inverse);
    const Doubles error = load(o.magnitudes(e, x)) * o_error + 0x1p-1000;
    for (Index lane = 0; lane < double_lanes; ++lane) {
      if (x * double_lanes + lane >= panel.rows) break;
      const Index i = panel.row(x * double_lanes + lane);
      write(out.o, i, e, value.hi[lane], value.lo[lane]);
      if (out.o_error.data) *out.o_error.at(i, e) = error[lane];
    }
  }
  for (Index lane = 0; lane < double_lanes; ++lane) {
    if (x * double_lanes + lane >= panel.rows) break;
    const Index i = panel.row(x * double_lanes + lane);
    if (row.l.hi[lane] == 0) {
      write_empty_row(head, out, i);
      continue;
    }
    const bool is_nan = row.l.hi[lane] != row.l.hi[lane];
    write(out.lse, i, lse.hi[lane], lse.lo[lane]);
    write(out.m, i, is_nan ? __builtin_nan("") : row.m.hi[lane], row.m.lo[lane]);
    write(out.l, i, l.hi[lane], l.lo[lane]);
    if (out.row_error.data) *out.row_error.at(i) = row_error[lane];
  }
}

/// Rows of v, which the product reads column by column, too far apart for the processor to see it coming.
inline void prefetch(const Matrix<const double>& v, Index first, Index rows) {
  for (Index j = first; j < first + rows; ++j) {
    for (Index e = 0; e < v.columns; e += 8) __builtin_prefetch(v.at(j, e));
  }
}

/// Rows [first_row, first_row + rows), at most panel_lanes of them.
inline void precise_forward(const Head<double>& head, const PreciseForwardHead& out, Index first_row,
                            Index rows, double* scratch) {
  const Panel panel{first_row, rows};
  const Index width = head.q.columns, columns = head.v.columns;
  WideScratch memory{scratch};
  WidePanel q = {memory.take(width), nullptr, memory.take(width)};
  const ScorePanel scores = {memory.take_panel(wide_tile), nullptr, nullptr};
  const WidePanel o = memory.take_panel(columns);
  load_panel(head.q, panel, q.hi, q.magnitude);
  for (Index n = 0; n < 3 * columns * panel_lanes; ++n) o.hi[n] = 0;

  RunningRow running[panel_vectors_wide];
  for (RunningRow& row : running) {
    const double sink = head.sink ? *head.sink : -infinity<double>;
    row.m = {broadcast(sink), Doubles{}};
    row.base = broadcast(sink);
    row.l = {broadcast(sink == -infinity<double> ? 0.0 : sink - sink + 1.0), Doubles{}};
    row.size = sink == -infinity<double> ? Doubles{} : absolute(broadcast(sink));
  }
  const Index last = visible_keys(head, first_row + rows - 1).last;
  for (Index j = visible_keys(head, first_row).first; j < last; j += wide_tile) {
    const PanelTile tile{head, true, panel, j, least(wide_tile, last - j)};
    prefetch(head.v, j, tile.rows);
    multiply_panel<false, false>(tile.rows, width, {head.k.at(j, 0), head.k.row_stride, head.k.column_stride},
                                 q, scores.s);
    for (Index x = 0; x < panel_vectors_wide; ++x) {
      finish_scores<false>(tile, scores, x, running[x].size);
      raise_base(scores.s, tile.rows, x, running[x], o, columns);
      weigh(scores.s, tile.rows, x, running[x]);
    }
    multiply_panel<true, true>(columns, tile.rows, {head.v.at(j, 0), head.v.column_stride, head.v.row_stride},
                               scores.s, o);
  }
  for (Index x = 0; x < panel_vectors_wide; ++x) finish_rows(head, out, panel, x, running[x], o);
}

}  // namespace attest::tiled::ATTEST_TILED_LEVEL
