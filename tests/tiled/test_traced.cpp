// The trace of a pass ends where the pass does, and its tiles are those that the mask leaves.
#include "tiled/traced.hpp"

#include <cmath>
#include <limits>
#include <set>
#include <utility>

#include "tests/catch.hpp"
#include "tests/tiled/attention_rounding.hpp"
#include "tests/tiled/backward_rounding.hpp"

namespace {

using namespace attest;
using namespace attest::test;
using tiled::Trace;
using tiled::TracedTile;
using tiled::TraceTiles;

const AttentionShape shapes[] = {
    {1, 1, 8, 8, 4, 4}, {1, 1, 7, 11, 3, 2}, {1, 1, 5, 4, 1, 6}, {1, 1, 1, 1, 1, 1}};

/// Calls f(problem, tiles, trace) for shapes, masks and tiles.
template <class F>
void for_traces(const F& f) {
  std::uint64_t seed = 7000;
  for (const AttentionShape& shape : shapes) {
    for (const Causal causal : {Causal::none, Causal::top_left, Causal::bottom_right}) {
      for (const Index window : {-1, 2}) {
        AttentionSpec spec = plain_spec(causal, 0.5);
        spec.window_left = window;
        const AttentionProblem problem = random_problem(shape, spec, {}, 0, ++seed);
        for (const TraceTiles& tiles : {TraceTiles{1, 1}, {2, 3}, {3, 2}, {6, 1}, {5, 16}}) {
          INFO("tiles " << tiles.queries << ' ' << tiles.keys << ", " << problem.name());
          f(problem, tiles, tiled::trace_attention(spec, problem.inputs(), problem.d_o.view(), tiles));
        }
      }
    }
  }
}

/// The mask rule as core/attention.hpp states it.
bool may_attend(const AttentionProblem& problem, Index i, Index j) {
  const Index on_diagonal = diagonal(problem.spec, problem.inputs(), i);
  return (problem.spec.causal == Causal::none || j <= on_diagonal) &&
         (problem.spec.window_left < 0 || j >= on_diagonal - problem.spec.window_left);
}

template <class Step>
void check_tiles(const AttentionProblem& problem, const TraceTiles& tiles, const std::vector<Step>& steps) {
  const AttentionInputs in = problem.inputs();
  std::set<std::pair<Index, Index>> traced;
  for (const TracedTile& x : steps) {
    CHECK(x.first_row % tiles.queries == 0);
    CHECK(x.first_key % tiles.keys == 0);
    CHECK(x.rows == std::min(tiles.queries, in.queries() - x.first_row));
    CHECK(x.keys == std::min(tiles.keys, in.keys() - x.first_key));
    CHECK(traced.insert({x.first_row, x.first_key}).second);  // no tile twice
  }
  for (Index first_row = 0; first_row < in.queries(); first_row += tiles.queries) {
    for (Index first_key = 0; first_key < in.keys(); first_key += tiles.keys) {
      Index visible = 0, all = 0;
      for (Index i = first_row; i < std::min(first_row + tiles.queries, in.queries()); ++i) {
        for (Index j = first_key; j < std::min(first_key + tiles.keys, in.keys()); ++j, ++all) {
          visible += may_attend(problem, i, j);
        }
      }
      CHECK(traced.contains({first_row, first_key}) == (visible > 0));
      for (const TracedTile& x : steps) {
        if (x.first_row != first_row || x.first_key != first_key) continue;
        CHECK((x.kind == tiled::TileKind::all) == (visible == all));
        for (Index n = 0; n < all; ++n) {
          CHECK(x.sees[n] == may_attend(problem, first_row + n / x.keys, first_key + n % x.keys));
        }
      }
    }
  }
}

bool equal(const Array<double, 2>& a, const Array<double, 2>& b) {
  return std::equal(a.data(), a.data() + a.size(), b.data(), b.data() + b.size());
}

}  // namespace

TEST_CASE("every tile is traced once, unless no row of it may attend to a key of it") {
  for_traces([](const AttentionProblem& problem, const TraceTiles& tiles, const Trace& trace) {
    check_tiles(problem, tiles, trace.forward);
    check_tiles(problem, tiles, trace.backward);
  });
}

TEST_CASE("what a trace ends with is within the rounding errors of ref") {
  for_traces([](const AttentionProblem& problem, const TraceTiles& tiles, const Trace& trace) {
    const ReferenceForward want = reference_forward(problem, {.tile = tiles.keys});
    ForwardTensors got(problem.inputs());
    got.o = trace.o, got.lse = trace.lse, got.m = want.value.m, got.l = want.value.l;
    CHECK(first_disagreement(got, want.value, want.bound_double) == "");

    const SavedTensors saved{trace.o, trace.lse};
    const GradientTensors gradients = reference_backward(problem, saved);
    GradientTensors bound(problem.inputs()), found(problem.inputs());
    for (int times = 0; times < 2; ++times) {  // of the trace, and of ref
      add_bounds(problem, saved, 0x1p-53, 0x1p-1074, 0x1p-1022, bound);
    }
    found.dq = trace.dq, found.dk = trace.dk, found.dv = trace.dv, found.ds = gradients.ds;
    CHECK(disagreement(found, gradients, bound) == "");
  });
}

TEST_CASE("each step of a trace starts where the one before it ended, and the last gives the result") {
  for_traces([](const AttentionProblem& problem, const TraceTiles& tiles, const Trace& trace) {
    for (std::size_t n = 0; n < trace.forward.size(); ++n) {
      const tiled::ForwardStep& x = trace.forward[n];
      const bool is_first = n == 0 || trace.forward[n - 1].first_row != x.first_row;
      const bool is_last = n + 1 == trace.forward.size() || trace.forward[n + 1].first_row != x.first_row;
      if (is_first) {
        CHECK(equal(x.o_before, Array<double, 2>({x.rows, problem.v.extent(2)})));
        CHECK(x.m_before == std::vector<double>(x.rows, -std::numeric_limits<double>::infinity()));
      } else {
        CHECK(equal(x.o_before, trace.forward[n - 1].o));
        CHECK(x.m_before == trace.forward[n - 1].m);
        CHECK(x.l_before == trace.forward[n - 1].l);
      }
      for (Index i = 0; i < x.rows; ++i) {
        for (Index j = 0; j < x.keys; ++j) CHECK((x.p(i, j) == 0) == !x.sees[i * x.keys + j]);
        if (!is_last || x.l[i] == 0) continue;
        for (Index e = 0; e < problem.v.extent(2); ++e) {
          CHECK(trace.o(0, x.first_row + i, e) == x.o(i, e) * (1 / x.l[i]));
        }
      }
    }
    const auto follow = [&](auto same_tile, auto before, auto after, auto final, Index columns) {
      for (std::size_t n = 0; n < trace.backward.size(); ++n) {
        const tiled::BackwardStep& x = trace.backward[n];
        Array<double, 2> start({before(x).extent(0), columns});
        for (std::size_t past = 0; past < n; ++past) {
          if (same_tile(trace.backward[past], x)) start = after(trace.backward[past]);
        }
        CHECK(equal(before(x), start));
        const bool is_last =
            std::none_of(trace.backward.begin() + static_cast<Index>(n) + 1, trace.backward.end(),
                         [&](const auto& y) { return same_tile(y, x); });
        if (is_last) final(x);
      }
    };
    using Step = tiled::BackwardStep;
    const double scale = problem.spec.scale;
    const auto same_keys = [](const Step& a, const Step& b) { return a.first_key == b.first_key; };
    const auto same_rows = [](const Step& a, const Step& b) { return a.first_row == b.first_row; };
    const auto check_final = [](const Array<double, 3>& got, Index first, const Array<double, 2>& sum,
                                double factor) {
      for (Index i = 0; i < sum.extent(0); ++i) {
        for (Index d = 0; d < sum.extent(1); ++d) CHECK(got(0, first + i, d) == sum(i, d) * factor);
      }
    };
    follow(
        same_keys, [](const Step& x) { return x.dk_before; }, [](const Step& x) { return x.dk; },
        [&](const Step& x) { check_final(trace.dk, x.first_key, x.dk, scale); }, problem.k.extent(2));
    follow(
        same_keys, [](const Step& x) { return x.dv_before; }, [](const Step& x) { return x.dv; },
        [&](const Step& x) { check_final(trace.dv, x.first_key, x.dv, 1); }, problem.v.extent(2));
    follow(
        same_rows, [](const Step& x) { return x.dq_before; }, [](const Step& x) { return x.dq; },
        [&](const Step& x) { check_final(trace.dq, x.first_row, x.dq, scale); }, problem.q.extent(2));
    static_cast<void>(tiles);
  });
}
