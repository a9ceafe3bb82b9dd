// Keys dealt to parts: tiled's own, and partial results merged by hand, against ref.
#include <limits>
#include <vector>

#include "tests/catch.hpp"
#include "tests/support/random.hpp"
#include "tests/tiled/attention_rounding.hpp"
#include "tiled/heads.hpp"
#include "tiled/merge.hpp"

namespace {

using namespace attest;
using namespace attest::test;

constexpr double infinity = std::numeric_limits<double>::infinity();

Index parts_of_head(const AttentionProblem& problem, tiled::Level level) {
  const AttentionInputs in = problem.inputs();
  return tiled::kernels_for<double>(level).forward_parts(tiled::query_head<double>(problem.spec, in, 0),
                                                         in.q_heads());
}

/// The problem with the keys [first, first + count) only; a sink belongs to the first of them.
AttentionInputs share_of_keys(const AttentionInputs& whole, Index first, Index count) {
  AttentionInputs in = whole;
  in.k = whole.k.narrowed(1, first, count);
  in.v = whole.v.narrowed(1, first, count);
  if (in.mask) in.mask = whole.mask.narrowed(2, first, count);
  if (in.bias) in.bias = whole.bias.narrowed(2, first, count);
  if (first > 0) in.sink = {};
  return in;
}

/// tiled on each share of the keys by itself, merged. cuts: where the shares begin and end.
ForwardTensors merged_by_hand(const AttentionProblem& problem, const std::vector<Index>& cuts, bool with_l) {
  const AttentionInputs whole = problem.inputs();
  AttentionSpec spec = problem.spec;
  spec.empty_row = EmptyRow::nan;  // which the merger must not read
  std::vector<ForwardTensors> results;
  for (std::size_t n = 0; n + 1 < cuts.size(); ++n) {
    const AttentionInputs in = share_of_keys(whole, cuts[n], cuts[n + 1] - cuts[n]);
    ForwardTensors& x = results.emplace_back(whole);
    const tiled::Outputs<double> out{x.o.view(), x.lse.view(), x.m.view(), x.l.view()};
    tiled::attention_forward<double>(spec, {&in, 1}, {&out, 1});
  }
  std::vector<tiled::Part<double>> parts;
  for (const ForwardTensors& x : results) {
    parts.push_back(with_l ? tiled::Part<double>{x.o.view(), x.m.view(), x.l.view()}
                           : tiled::Part<double>{x.o.view(), x.lse.view(), {}});
  }
  ForwardTensors merged(whole);
  tiled::merge<double>(parts, {merged.o.view(), merged.lse.view(), merged.m.view(), merged.l.view()});
  return merged;
}

}  // namespace

TEST_CASE("few rows against many keys are dealt to parts, as the shape alone decides") {
  struct Row {
    AttentionShape shape;
    Index parts;
  };
  const Row rows[] = {{{1, 1, 1, 8191, 1, 1}, 1},    {{1, 1, 1, 8192, 1, 1}, 2},
                      {{1, 1, 1, 100000, 1, 1}, 24}, {{8, 2, 1, 36000, 1, 1}, 4},
                      {{32, 8, 1, 36000, 1, 1}, 1},  {{1, 1, 1, 0, 1, 1}, 1}};
  for (const Row& row : rows) {
    const AttentionProblem problem = random_problem(row.shape, plain_spec(Causal::none, 1), {}, 0, 1);
    for (const tiled::Level level : tiled::available_levels())
      CHECK(parts_of_head(problem, level) == row.parts);
  }
  AttentionProblem windowed = random_problem({1, 1, 1, 100000, 1, 1}, plain_spec(Causal::none, 1), {}, 0, 1);
  windowed.spec.window_left = 1500;
  CHECK(parts_of_head(windowed, tiled::fastest_level()) == 1);
}

TEST_CASE("attention dealt to parts is within its rounding errors of ref for every mask and diagonal") {
  std::uint64_t seed = 3000;
  for (const AttentionShape& shape :
       {AttentionShape{1, 1, 1, 8192, 8, 4}, AttentionShape{2, 1, 5, 8193, 3, 5},
        AttentionShape{4, 2, 2, 17000, 8, 8}, AttentionShape{1, 1, 97, 8500, 4, 4}}) {
    for (const Causal causal : {Causal::none, Causal::top_left, Causal::bottom_right}) {
      for (const auto& [left, right] : {std::pair<Index, Index>{-1, -1}, {-1, 3}, {8300, 0}}) {
        for (const auto normalisation : {tiled::Normalisation::deferred, tiled::Normalisation::per_step}) {
          Random random(++seed);
          const EmptyRow empty_row = std::array{EmptyRow::zero, EmptyRow::nan, EmptyRow::mean_v}[seed % 3];
          const AttentionSpec spec{causal, 0.25, left, right, random.one_in(3) ? 1.5 : 0, empty_row};
          const AttentionExtras extras{random.one_in(4), random.one_in(3), random.one_in(3),
                                       random.one_in(3)};
          const Index past = causal == Causal::top_left ? shape.sk - shape.sq - 30 : 0;
          AttentionProblem problem = random_problem(shape, spec, extras, past, seed);
          for (Index h = 0; h < problem.alibi_slopes.size(); ++h) problem.alibi_slopes(h) *= 0x1p-9;
          const ReferenceForward want = reference_forward(problem, {.joins = true});
          for (const tiled::Level level : tiled::available_levels()) {
            INFO(tiled::name_of(level) << ", " << problem.name());
            CHECK(first_disagreement(run_tiled<float>(problem, level, normalisation), want.value,
                                     want.bound_float) == "");
            CHECK(first_disagreement(run_tiled<double>(problem, level, normalisation), want.value,
                                     want.bound_double) == "");
          }
        }
      }
    }
  }
}

TEST_CASE("partial results merge into attention over all keys") {
  std::uint64_t seed = 4000;
  for (const std::vector<Index>& cuts :
       {std::vector<Index>{0, 150}, {0, 1, 150}, {0, 75, 75, 150}, {0, 40, 41, 90, 149, 150}}) {
    for (int options = 0; options < 8; ++options) {
      const AttentionExtras extras{false, (options & 1) != 0, (options & 2) != 0, (options & 4) != 0};
      AttentionProblem problem =
          random_problem({2, 1, 9, 150, 8, 4}, plain_spec(Causal::none, 0.25), extras, 0, ++seed);
      if (problem.mask.size() > 0) {  // row 3 sees nothing of the first half, row 4 nothing of the second
        for (Index j = 0; j < 75; ++j) problem.mask(1, 3, j) = problem.mask(1, 4, 75 + j) = 0;
      }
      const ReferenceForward want = reference_forward(problem, {.joins = true});
      INFO(problem.name());
      CHECK(first_disagreement(merged_by_hand(problem, cuts, true), want.value, want.bound_double) == "");
      // Of parts that tell only their lse, o and lse are those of attention.
      ForwardTensors from_lse = merged_by_hand(problem, cuts, false);
      from_lse.m = want.value.m;
      from_lse.l = want.value.l;
      CHECK(first_disagreement(from_lse, want.value, want.bound_double) == "");
    }
  }
}

TEST_CASE("merging takes the weight of a part from its m and l, skips empty parts and keeps NaN") {
  // Two rows of two parts. Row 0: the second part saw no key, and what its o and l hold is not read.
  const Array<double, 3> first_o({1, 2, 1}, 2), second_o({1, 2, 1}, 8);
  Array<double, 2> first_m({1, 2}, 0), second_m({1, 2}, 0), first_l({1, 2}, 1), second_l({1, 2}, 2);
  second_m(0, 0) = -infinity;
  const tiled::Part<double> parts[] = {{first_o.view(), first_m.view(), first_l.view()},
                                       {second_o.view(), second_m.view(), second_l.view()}};
  Array<double, 3> o({1, 2, 1}, -1);
  Array<double, 2> lse({1, 2}), m({1, 2}), l({1, 2});
  const tiled::Outputs<double> out{o.view(), lse.view(), m.view(), l.view()};
  tiled::merge<double>(parts, out);
  CHECK(o(0, 0, 0) == 2);
  CHECK(l(0, 0) == 1);
  CHECK(lse(0, 0) == 0);
  CHECK(o(0, 1, 0) == 6);  // (1 * 2 + 2 * 8) / 3
  CHECK(l(0, 1) == 3);

  first_m(0, 0) = -infinity;
  second_m(0, 1) = std::numeric_limits<double>::quiet_NaN();
  o(0, 0, 0) = -1;
  tiled::merge<double>(parts, out);
  CHECK(o(0, 0, 0) == -1);
  CHECK(l(0, 0) == 0);
  CHECK(m(0, 0) == -infinity);
  CHECK(lse(0, 0) == -infinity);
  for (const double x : {o(0, 1, 0), l(0, 1), m(0, 1), lse(0, 1)}) CHECK(x != x);
}
