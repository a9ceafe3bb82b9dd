// What must hold for any attention: permutations, shifts, averages and splits.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "tests/catch.hpp"
#include "tests/ref/attention_rounding.hpp"

namespace {

using namespace attest;
using namespace attest::test;
using oracle::Real;

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr AttentionShape shape{4, 2, 5, 6, 3, 2};

/// ref's results and how far each may be from exact: two runs whose exact results are equal differ by both
/// bounds.
struct Run {
  AttentionTensors x, bound;
};

Run run(const AttentionProblem& problem) {
  return {run_ref(problem), rounding_bounds(problem, run_oracle(problem))};
}

template <int Rank>
bool close(const Array<double, Rank>& a, const Array<double, Rank>& e_a, const Array<double, Rank>& b,
           const Array<double, Rank>& e_b) {
  for (Index n = 0; n < a.size(); ++n) {
    if (!agrees(a.data()[n], b.data()[n], e_a.data()[n] + e_b.data()[n])) return false;
  }
  return a.size() == b.size();
}

/// Axis 1 of k and v and axis 2 of mask and bias in the order `from`: new key j is old key from[j].
AttentionProblem with_keys(const AttentionProblem& problem, const std::vector<Index>& from) {
  AttentionProblem x = problem;
  const Index keys = static_cast<Index>(from.size());
  const auto take = [&](Array<double, 3>& array, int axis) {
    if (array.size() == 0) return;
    const Array<double, 3> old = array;
    std::array<Index, 3> extents{old.extent(0), old.extent(1), old.extent(2)};
    extents[axis] = keys;
    array = Array<double, 3>(extents);
    for (Index a = 0; a < extents[0]; ++a) {
      for (Index b = 0; b < extents[1]; ++b) {
        for (Index c = 0; c < extents[2]; ++c) {
          array(a, b, c) = axis == 1 ? old(a, from[b], c) : old(a, b, from[c]);
        }
      }
    }
  };
  take(x.k, 1);
  take(x.v, 1);
  take(x.mask, 2);
  take(x.bias, 2);
  return x;
}

/// The query rows [first, first + count); what stood before them belongs to the past. No mask, no bias.
AttentionProblem with_queries(const AttentionProblem& problem, Index first, Index count) {
  AttentionProblem x = problem;
  x.past += first;
  for (Array<double, 3>* array : {&x.q, &x.d_o}) {
    const Array<double, 3> old = *array;
    *array = Array<double, 3>({old.extent(0), count, old.extent(2)});
    for (Index h = 0; h < old.extent(0); ++h) {
      for (Index i = 0; i < count; ++i) {
        for (Index d = 0; d < old.extent(2); ++d) (*array)(h, i, d) = old(h, first + i, d);
      }
    }
  }
  return x;
}

std::vector<Index> range(Index first, Index end) {
  std::vector<Index> x(end - first);
  std::iota(x.begin(), x.end(), first);
  return x;
}

}  // namespace

TEST_CASE("permuting the keys leaves o, lse and dq unchanged and permutes dk and dv") {
  const AttentionProblem problem = random_problem(shape, plain_spec(Causal::none, 0.5),
                                                  {.bias = true, .mask = true, .sink = true}, 0, 101);
  const std::vector<Index> from{3, 0, 5, 1, 4, 2};
  const Run a = run(problem), b = run(with_keys(problem, from));
  REQUIRE(close(a.x.o, a.bound.o, b.x.o, b.bound.o));
  REQUIRE(close(a.x.lse, a.bound.lse, b.x.lse, b.bound.lse));
  REQUIRE(close(a.x.dq, a.bound.dq, b.x.dq, b.bound.dq));
  for (Index g = 0; g < shape.hkv; ++g) {
    for (Index j = 0; j < shape.sk; ++j) {
      for (Index d = 0; d < shape.d; ++d) {
        REQUIRE(
            agrees(b.x.dk(g, j, d), a.x.dk(g, from[j], d), a.bound.dk(g, from[j], d) + b.bound.dk(g, j, d)));
      }
      for (Index c = 0; c < shape.e; ++c) {
        REQUIRE(
            agrees(b.x.dv(g, j, c), a.x.dv(g, from[j], c), a.bound.dv(g, from[j], c) + b.bound.dv(g, j, c)));
      }
    }
  }
}

TEST_CASE("a constant added to all scores leaves o and the gradients unchanged and moves m and lse by it") {
  AttentionProblem problem =
      random_problem(shape, plain_spec(Causal::bottom_right, 0.5), {.alibi = true, .bias = true}, 0, 102);
  const Run a = run(problem);
  for (Index n = 0; n < problem.bias.size(); ++n)
    problem.bias.data()[n] += 3;  // exact: bias is a multiple of 2^-20
  const Run b = run(problem);
  REQUIRE(close(a.x.o, a.bound.o, b.x.o, b.bound.o));
  REQUIRE(close(a.x.l, a.bound.l, b.x.l, b.bound.l));
  REQUIRE(close(a.x.dq, a.bound.dq, b.x.dq, b.bound.dq));
  REQUIRE(close(a.x.dk, a.bound.dk, b.x.dk, b.bound.dk));
  REQUIRE(close(a.x.dv, a.bound.dv, b.x.dv, b.bound.dv));
  for (Index n = 0; n < a.x.lse.size(); ++n) {
    REQUIRE(agrees(b.x.lse.data()[n], Real{a.x.lse.data()[n]} + 3,
                   a.bound.lse.data()[n] + b.bound.lse.data()[n]));
    REQUIRE(agrees(b.x.m.data()[n], Real{a.x.m.data()[n]} + 3, a.bound.m.data()[n] + b.bound.m.data()[n]));
  }
}

TEST_CASE("the average of ones is one") {
  AttentionProblem problem =
      random_problem(shape, plain_spec(Causal::top_left, -0.5), {.alibi = true, .bias = true}, 1, 103);
  for (Index n = 0; n < problem.v.size(); ++n) problem.v.data()[n] = 1;
  const Run a = run(problem);
  for (Index h = 0; h < shape.hq; ++h) {
    for (Index i = 0; i < shape.sq; ++i) {
      const double want = std::isinf(a.x.lse(h, i)) ? 0 : 1;
      for (Index c = 0; c < shape.e; ++c) REQUIRE(agrees(a.x.o(h, i, c), want, a.bound.o(h, i, c)));
    }
  }
}

TEST_CASE("o lies between the least and the greatest of the values that its row sees") {
  const AttentionProblem problem =
      random_problem(shape, plain_spec(Causal::bottom_right, 2), {.bias = true, .mask = true}, 0, 104);
  const Run a = run(problem);
  for (Index h = 0; h < shape.hq; ++h) {
    for (Index i = 0; i < shape.sq; ++i) {
      if (std::isinf(a.x.lse(h, i))) continue;
      for (Index c = 0; c < shape.e; ++c) {
        double least = infinity, greatest = -infinity;
        for (Index j = 0; j < shape.sk; ++j) {
          if (a.x.s(h, i, j) == -infinity) continue;
          least = std::min(least, problem.v(h / 2, j, c));
          greatest = std::max(greatest, problem.v(h / 2, j, c));
        }
        REQUIRE(a.x.o(h, i, c) >= least - a.bound.o(h, i, c));
        REQUIRE(a.x.o(h, i, c) <= greatest + a.bound.o(h, i, c));
      }
    }
  }
}

TEST_CASE("without a sink every row of ds sums to 0, and with one it sums to minus the sink's share") {
  for (const bool sink : {false, true}) {
    AttentionSpec spec = plain_spec(Causal::bottom_right, 0.5);
    spec.softcap = 1.5;
    const Run a = run(random_problem(shape, spec, {.alibi = true, .mask = true, .sink = sink}, 0, 105));
    for (Index h = 0; h < shape.hq; ++h) {
      Real total = 0, bound = 0;
      for (Index i = 0; i < shape.sq; ++i) {
        for (Index j = 0; j < shape.sk; ++j) {
          total += Real{a.x.ds(h, i, j)};
          bound += Real{a.bound.ds(h, i, j)};
        }
        if (!sink) REQUIRE(agrees(total, 0, bound));
      }
      if (sink) REQUIRE(agrees(total, -Real{a.x.dsink(h)}, bound + a.bound.dsink(h)));
    }
  }
}

TEST_CASE("the keys may be split in two and the parts merged by their m, l and o") {
  const AttentionProblem whole =
      random_problem(shape, plain_spec(Causal::none, 2), {.bias = true, .mask = true, .sink = true}, 0, 106);
  const Run all = run(whole);
  for (Index cut = 1; cut < shape.sk; ++cut) {
    AttentionProblem last = with_keys(whole, range(cut, shape.sk));
    last.sink = {};  // a sink belongs to one part only
    const Run parts[] = {run(with_keys(whole, range(0, cut))), run(last)};
    for (Index h = 0; h < shape.hq; ++h) {
      for (Index i = 0; i < shape.sq; ++i) {
        const Real m = std::max(parts[0].x.m(h, i), parts[1].x.m(h, i));
        // A part's weight l exp(m_part - m) has the relative error E_l / l + E_m + E_m of the other part; the
        // quotient by their sum has at most twice the larger one, hence `relative` below.
        Real weight[2], l = 0, relative = 0;
        for (int n = 0; n < 2; ++n) {
          weight[n] = parts[n].x.l(h, i) * std::exp(parts[n].x.m(h, i) - m);
          l += weight[n];
          if (weight[n] > 0) relative += parts[n].bound.l(h, i) / parts[n].x.l(h, i) + parts[n].bound.m(h, i);
        }
        REQUIRE(agrees(all.x.m(h, i), m, 0));
        REQUIRE(agrees(all.x.l(h, i), l, all.bound.l(h, i) + relative * l));
        for (Index c = 0; c < shape.e; ++c) {
          Real o = 0, bound = all.bound.o(h, i, c);
          for (int n = 0; n < 2; ++n) {
            const Real share = l > 0 ? weight[n] / l : 0;
            o += share * parts[n].x.o(h, i, c);
            bound += share * (parts[n].bound.o(h, i, c) + 2 * relative * std::abs(parts[n].x.o(h, i, c)));
          }
          REQUIRE(agrees(all.x.o(h, i, c), o, bound));
        }
      }
    }
  }
}

TEST_CASE("the queries may be split in two: o and dq are stacked, dk and dv are added") {
  const AttentionProblem whole =
      random_problem(shape, plain_spec(Causal::top_left, 0.5), {.alibi = true}, 1, 107);
  const Run all = run(whole);
  constexpr Index cut = 2;
  const Run parts[] = {run(with_queries(whole, 0, cut)), run(with_queries(whole, cut, shape.sq - cut))};
  for (Index h = 0; h < shape.hq; ++h) {
    for (Index i = 0; i < shape.sq; ++i) {
      const AttentionTensors& x = parts[i < cut ? 0 : 1].x;
      const Index row = i < cut ? i : i - cut;
      for (Index c = 0; c < shape.e; ++c) REQUIRE(x.o(h, row, c) == all.x.o(h, i, c));
      for (Index d = 0; d < shape.d; ++d) REQUIRE(x.dq(h, row, d) == all.x.dq(h, i, d));
    }
  }
  const auto adds_up = [](const Array<double, 3>& a, const Array<double, 3>& b, const Array<double, 3>& total,
                          const Array<double, 3>& e_a, const Array<double, 3>& e_b,
                          const Array<double, 3>& e_total) {
    for (Index n = 0; n < total.size(); ++n) {
      const Real sum = Real{a.data()[n]} + Real{b.data()[n]};
      if (!agrees(total.data()[n], sum, e_a.data()[n] + e_b.data()[n] + e_total.data()[n])) return false;
    }
    return true;
  };
  REQUIRE(
      adds_up(parts[0].x.dk, parts[1].x.dk, all.x.dk, parts[0].bound.dk, parts[1].bound.dk, all.bound.dk));
  REQUIRE(
      adds_up(parts[0].x.dv, parts[1].x.dv, all.x.dv, parts[0].bound.dv, parts[1].bound.dv, all.bound.dv));
}
