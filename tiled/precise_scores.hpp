// Scores of a panel of queries with a tile of keys, or of a panel of keys with a tile of queries, in
// double-double: one lane of a vector is one row of the panel.
#pragma once

#include "tiled/precise_problem.hpp"
#include "tiled/precise_product.hpp"
#include "tiled/scores.hpp"

namespace attest::tiled::ATTEST_TILED_LEVEL {

/// Rows of a tile.
constexpr Index wide_tile = 64;

/// What errors are counted in.
constexpr double wide_unit = 0x1p-104;
/// Of a product of n terms, in units of the sum of their magnitudes.
constexpr double product_units(Index n) {
  return 6 * static_cast<double>(n) + 8;
}
/// Of sums over tiles in units of their magnitudes.
constexpr double tile_units(Index rows) {
  return product_units(wide_tile) + 4 * (static_cast<double>(rows) / wide_tile + 2);
}
/// Of a score, in units of its magnitude.
inline double score_units(const Head<double>& head);

/// The size that errors of a weight are counted from: small ones lose digits, and below e^-700 all.
ATTEST_ALWAYS_INLINE Doubles weight_magnitude(Wide p) {
  return p.hi + 0x1p-900;
}

/// The bounds take exp(error) for 1 + error, so they claim nothing beyond an error of 2^-10.
ATTEST_ALWAYS_INLINE Doubles sure(Doubles units) {
  return units < 0x1p-10 / wide_unit ? units : broadcast(infinity<double>);
}

/// The numbers of one row each, where lanes that stand for no row repeat the last.
struct Panel {
  Index first, rows;

  Index row(Index lane) const { return first + least(lane, rows - 1); }
};

/// Queries and keys that meet.
struct PanelTile {
  const Head<double>& head;
  bool lanes_are_queries;
  Panel panel;
  Index first, rows;  // of the tile

  Index query(Index row, Index lane) const { return lanes_are_queries ? panel.row(lane) : first + row; }
  Index key(Index row, Index lane) const { return lanes_are_queries ? first + row : panel.row(lane); }

  KeyRange queries() const {
    return lanes_are_queries ? KeyRange{panel.first, panel.first + panel.rows}
                             : KeyRange{first, first + rows};
  }
  KeyRange keys() const {
    return lanes_are_queries ? KeyRange{first, first + rows}
                             : KeyRange{panel.first, panel.first + panel.rows};
  }
  /// No query sees a key.
  bool is_empty() const {
    const KeyRange i = queries(), j = keys();
    return visible_keys(head, i.last - 1).last <= j.first || visible_keys(head, i.first).first >= j.last;
  }
  /// The diagonal and the windows hide no pair.
  bool is_whole() const {
    const KeyRange i = queries(), j = keys();
    return visible_keys(head, i.last - 1).first <= j.first && j.last <= visible_keys(head, i.first).last;
  }
};

/// x[rows, columns] of a panel as [columns, panel_lanes], and absolute values beside them.
inline void load_panel(const Matrix<const double>& x, Panel panel, double* values, double* magnitudes);

/// Where the scores of a tile go, with the slope of the softcap if there is one.
struct ScorePanel {
  WidePanel s;
  double *slope_hi, *slope_lo;
};

/// Turns products q.k into scores, -inf where a query may not attend, with their magnitudes. size: the
/// largest of each lane.
template <bool wants_slope>
void finish_scores(const PanelTile& tile, const ScorePanel& scores, Index x, Doubles& size) {
  const Head<double>& head = tile.head;
  const AttentionSpec& spec = head.spec;
  const bool is_plain = tile.is_whole() && !head.alibi_slope && !head.bias.data && !head.mask.data;
  const Doubles scale = broadcast(spec.scale), scale_size = absolute(scale);
  for (Index row = 0; row < tile.rows; ++row) {
    Wide s = multiply(scores.s.at(row, x), scale);
    Doubles magnitude = load(scores.s.magnitudes(row, x)) * scale_size;
    if (spec.softcap != 0) {
      const Wide cap = {broadcast(spec.softcap), Doubles{}};
      const TanhAndSlope y = tanh_and_slope(divide(s, cap));
      s = multiply(y.tanh, cap.hi);
      if constexpr (wants_slope) {
        const Index n = row * panel_lanes + x * double_lanes;
        store(scores.slope_hi + n, y.slope.hi);
        store(scores.slope_lo + n, y.slope.lo);
      }
    }
    if (!is_plain) {
      Doubles distance{}, bias{};
      Longs is_visible{};
      for (Index lane = 0; lane < double_lanes; ++lane) {
        const Index i = tile.query(row, x * double_lanes + lane), j = tile.key(row, x * double_lanes + lane);
        const KeyRange visible = visible_keys(head, i);
        if (j < visible.first || j >= visible.last || (head.mask.data && *head.mask.at(i, j) == 0)) continue;
        if (head.bias.data) {
          const double b = *head.bias.at(i, j);
          if (b == -infinity<double>) continue;
          bias[lane] = b;
        }
        distance[lane] = static_cast<double>(alibi_distance(spec.alibi, head.first_diagonal + i, j));
        is_visible[lane] = -1;
      }
      if (head.alibi_slope) {
        const Wide alibi = two_product(broadcast(-*head.alibi_slope), distance);
        s = add(s, alibi);
        magnitude += absolute(alibi.hi);
      }
      if (head.bias.data) {
        s = add(s, {bias, Doubles{}});
        magnitude += absolute(bias);
      }
      s = where(is_visible, s, {broadcast(-infinity<double>), Doubles{}});
      magnitude = is_visible ? magnitude : Doubles{};
    }
    scores.s.set(row, x, s);
    store(scores.s.magnitudes(row, x), magnitude);
    size = maximum<double>(magnitude, size);
  }
}

inline double score_units(const Head<double>& head) {
  return product_units(head.q.columns) + 16 + (head.spec.softcap != 0 ? 256 : 0);
}

inline void load_panel(const Matrix<const double>& x, Panel panel, double* values, double* magnitudes) {
  for (Index lane = 0; lane < panel_lanes; ++lane) {
    for (Index c = 0; c < x.columns; ++c) {
      const double value = *x.at(panel.row(lane), c);
      values[c * panel_lanes + lane] = value;
      magnitudes[c * panel_lanes + lane] = value < 0 ? -value : value;
    }
  }
}

}  // namespace attest::tiled::ATTEST_TILED_LEVEL
