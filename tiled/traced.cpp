// Watches both passes of attention at work on small tiles, and keeps what they have computed.
#include "tiled/traced.hpp"

#include <algorithm>
#include <utility>

#include "tiled/backward.hpp"
#include "tiled/forward.hpp"
#include "tiled/heads.hpp"

namespace attest::tiled::ATTEST_TILED_LEVEL {
namespace {

/// What is copied to where.
class Recorder {
 public:
  Trace trace;
  Index first_row = 0;  // of the rows that a pass was given, in the whole head

  void take(Stage stage, const Panel<double>& panel, const ForwardScratch<double>& own) {
    const ScoreTile<double>& tile = panel.tile;
    if (stage == Stage::scores) {
      ForwardStep& x =
          trace.forward.emplace_back(ForwardStep{located(tile, own.s), {}, {}, {}, {}, {}, {}, {}, {}});
      x.m_before = lanes_of(tile, panel.m, ln_2<double>);
      x.l_before = lanes_of(tile, panel.l, 1);
      x.o_before = copied(panel.o, tile.rows, tile.head.v.columns, own.o_stride);
    } else if (stage == Stage::weights) {
      ForwardStep& x = trace.forward.back();
      x.m = lanes_of(tile, panel.m, ln_2<double>);
      x.l = lanes_of(tile, panel.l, 1);
      x.factor.assign(own.factor, own.factor + tile.rows);
      x.p = transposed(tile, own.s, 1);
    } else {
      trace.forward.back().o = copied(panel.o, tile.rows, tile.head.v.columns, own.o_stride);
    }
  }

  void take(Stage stage, const BackwardPanel<double>& panel, const BackwardTask<double>& own,
            const double* dk, const double* dv) {
    const ScoreTile<double>& tile = panel.tile;
    const Index d = tile.head.q.columns, e = tile.head.v.columns;
    const Index d_stride = padded_columns(tile.head.q), e_stride = padded_columns(tile.head.v);
    const auto dq_now = [&] { return copied(panel.dq, tile.rows, d, d_stride); };
    const auto dk_now = [&] { return copied(dk + tile.first_key * d_stride, tile.keys, d, d_stride); };
    const auto dv_now = [&] { return copied(dv + tile.first_key * e_stride, tile.keys, e, e_stride); };
    if (stage == Stage::scores) {
      BackwardStep& x = trace.backward.emplace_back(
          BackwardStep{located(tile, own.s), {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}});
      for (Index i = 0; i < tile.rows; ++i) {
        const double lse = panel.lse[i];  // in base 2, infinite where the row is empty
        x.lse.push_back(lse == infinity<double> ? -lse : lse * ln_2<double>);
        x.delta.push_back(panel.delta[i]);
      }
      x.dp = transposed(tile, own.ds, 1);
      x.dq_before = dq_now(), x.dk_before = dk_now(), x.dv_before = dv_now();
    } else if (stage == Stage::weights) {
      trace.backward.back().p = transposed(tile, own.s, 1);
      trace.backward.back().ds = transposed(tile, own.ds, 1);
    } else {
      BackwardStep& x = trace.backward.back();
      x.dq = dq_now(), x.dk = dk_now(), x.dv = dv_now();
    }
  }

 private:
  /// Scores come in base 2.
  TracedTile located(const ScoreTile<double>& tile, const double* s) const {
    TracedTile x{first_row + tile.first_row,
                 tile.rows,
                 tile.first_key,
                 tile.keys,
                 tile.is_whole ? TileKind::all : TileKind::part,
                 {},
                 transposed(tile, s, ln_2<double>)};
    for (Index i = 0; i < tile.rows; ++i) {
      const KeyRange keys = visible_keys(tile.head, tile.first_row + i);
      for (Index j = tile.first_key; j < tile.first_key + tile.keys; ++j) {
        x.sees.push_back(keys.first <= j && j < keys.last);
      }
    }
    return x;
  }

  /// [rows, keys] of a tile, which has them as [keys, stride].
  static Array<double, 2> transposed(const ScoreTile<double>& tile, const double* s, double factor) {
    Array<double, 2> x({tile.rows, tile.keys});
    for (Index i = 0; i < tile.rows; ++i) {
      for (Index j = 0; j < tile.keys; ++j) x(i, j) = s[j * tile.stride() + i] * factor;
    }
    return x;
  }

  static Array<double, 2> copied(const double* from, Index rows, Index columns, Index stride) {
    Array<double, 2> x({rows, columns});
    for (Index i = 0; i < rows; ++i) std::copy_n(from + i * stride, columns, &x(i, 0));
    return x;
  }

  static std::vector<double> lanes_of(const ScoreTile<double>& tile, const Vector<double>* x, double factor) {
    std::vector<double> values;
    for (Index i = 0; i < tile.rows; ++i) values.push_back(x[i / tile.w][i % tile.w] * factor);
    return values;
  }
};

/// Native arithmetic in tiles of any size, with somebody who watches.
struct Traced : Native<double> {
  static constexpr bool takes_all = true;
  Index tile, longest_tile, grid;
  Recorder& recorder;

  Traced(Index keys, Recorder& recorder_) : tile(keys), longest_tile(keys), grid(keys), recorder(recorder_) {}

  template <class... Tile>
  void notice(Stage stage, const Tile&... x) const {
    recorder.take(stage, x...);
  }
};

BackwardHead<double> rows_of(BackwardHead<double> x, Index first) {
  x.o.data = x.o.at(first, 0);
  x.d_o.data = x.d_o.at(first, 0);
  x.lse.data = x.lse.at(first);
  x.dq.data = x.dq.at(first, 0);
  return x;
}

Trace run(const AttentionSpec& spec, const AttentionInputs& in, View<const double, 3> d_o,
          const TraceTiles& tiles) {
  static_assert(most_traced_rows == most_vectors * lanes<double>);
  Recorder recorder;
  const Traced arithmetic(tiles.keys, recorder);
  const Head<double> head = query_head(spec, in, 0);
  const auto for_tiles_of_rows = [&](const auto& run_tile) {
    for (Index first = 0; first < head.queries; first += tiles.queries) {
      recorder.first_row = first;
      run_tile(first, tiled::rows_of(head, first, least(tiles.queries, head.queries - first)));
    }
  };

  ForwardTensors<double> forward_of(in);
  for_tiles_of_rows([&](Index first, const Head<double>& rows) {
    const Scratch<double> scratch(ForwardScratch<double>(rows, tiles.keys, nullptr).size);
    const RowTask task{0, rows.queries};
    forward(arithmetic, rows, tiled::rows_of(forward_head(forward_of.outputs(), 0), first), task,
            keys_of_part(rows, task, arithmetic.tile, arithmetic.grid), scratch.data());
  });
  recorder.trace.o = std::move(forward_of.o);
  recorder.trace.lse = std::move(forward_of.lse);
  if (!d_o) return std::move(recorder.trace);

  Trace& trace = recorder.trace;
  trace.dq = Array<double, 3>({1, in.queries(), in.qk_width()});
  trace.dk = Array<double, 3>({1, in.keys(), in.qk_width()});
  trace.dv = Array<double, 3>({1, in.keys(), in.v_width()});
  const View<const double, 3> o = trace.o.view();
  const View<const double, 2> lse = trace.lse.view();
  const BackwardHead<double> tensors{
      matrix(o, 0), matrix(d_o, 0), column(lse, 0), matrix(trace.dq.view(), 0), {}, {}};
  const Scratch<double> dk(most(in.keys(), 1) * padded_columns(head.k)),
      dv(most(in.keys(), 1) * padded_columns(head.v));
  std::fill_n(dk.data(), in.keys() * padded_columns(head.k), 0.0);
  std::fill_n(dv.data(), in.keys() * padded_columns(head.v), 0.0);
  for_tiles_of_rows([&](Index first, const Head<double>& rows) {
    const Scratch<double> scratch(BackwardTask<double>(arithmetic, rows, 0, 0, nullptr).pieces.used);
    backward(arithmetic, rows, rows_of(tensors, first), 0, rows.queries, dk.data(), dv.data(),
             scratch.data());
  });
  add_part(dk.data(), in.keys(), true, spec.scale, matrix(trace.dk.view(), 0));
  add_part(dv.data(), in.keys(), true, 1.0, matrix(trace.dv.view(), 0));
  return std::move(recorder.trace);
}

}  // namespace
}  // namespace attest::tiled::ATTEST_TILED_LEVEL

namespace attest::tiled {

Trace trace_attention(const AttentionSpec& spec, const AttentionInputs& in, View<const double, 3> d_o,
                      const TraceTiles& tiles) {
  assert(in.q_heads() == 1 && in.kv_heads() == 1 && !in.mask);
  assert(spec.empty_row == EmptyRow::zero);
  assert(0 < tiles.queries && tiles.queries <= most_traced_rows && 0 < tiles.keys);
  return traced::run(spec, in, d_o, tiles);
}

}  // namespace attest::tiled
