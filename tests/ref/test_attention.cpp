// ref's attention against the oracle, over every option, and what ref promises about single rows and outputs.
#include "ref/attention.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "tests/catch.hpp"
#include "tests/ref/attention_rounding.hpp"
#include "tests/support/random.hpp"

namespace {

using namespace attest;
using namespace attest::test;

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();
constexpr Causal causals[] = {Causal::none, Causal::top_left, Causal::bottom_right};
constexpr EmptyRow empty_rows[] = {EmptyRow::zero, EmptyRow::nan, EmptyRow::mean_v};
constexpr double scales[] = {0.5, -0.75, 0};

}  // namespace

TEST_CASE("ref attention is within its rounding errors of the oracle for every shape, diagonal and window") {
  const AttentionShape shapes[] = {{1, 1, 4, 4, 3, 2}, {2, 1, 3, 7, 1, 4}, {2, 2, 7, 3, 4, 1},
                                   {3, 1, 1, 6, 2, 3}, {6, 3, 5, 1, 3, 3}, {6, 2, 5, 6, 2, 5},
                                   {1, 1, 1, 1, 1, 1}};
  std::uint64_t seed = 0;
  for (const AttentionShape& shape : shapes) {
    for (const Causal causal : causals) {
      for (const Index left : {-1, 0, 1, 3}) {
        for (const Index right : {-1, 0, 1, 3}) {
          for (const EmptyRow empty_row : empty_rows) {
            ++seed;
            Random random(seed);
            const AttentionSpec spec{causal, scales[seed % 3 % 2],       left,
                                     right,  random.one_in(3) ? 1.5 : 0, empty_row};
            const AttentionExtras extras{random.one_in(3), random.one_in(4), random.one_in(4),
                                         random.one_in(4)};
            const Index past = random.below(shape.sk + 1);
            CHECK(first_disagreement(random_problem(shape, spec, extras, past, seed)) == "");
          }
        }
      }
    }
  }
}

TEST_CASE("ref attention is within its rounding errors of the oracle for every combination of options") {
  std::uint64_t seed = 10000;
  for (const AttentionShape& shape : {AttentionShape{4, 2, 4, 5, 3, 2}, AttentionShape{2, 1, 5, 3, 2, 3}}) {
    for (const Causal causal : causals) {
      for (const double scale : scales) {
        for (const EmptyRow empty_row : empty_rows) {
          for (int options = 0; options < 32; ++options) {
            const AttentionSpec spec{causal, scale, -1, -1, options & 16 ? 1.5 : 0, empty_row};
            const AttentionExtras extras{(options & 1) != 0, (options & 2) != 0, (options & 4) != 0,
                                         (options & 8) != 0};
            CHECK(first_disagreement(random_problem(shape, spec, extras, options % 3, ++seed)) == "");
          }
        }
      }
    }
  }
}

TEST_CASE("scores of magnitude ten thousand do not overflow") {
  for (const double softcap : {0.0, 5000.0}) {
    AttentionSpec spec = plain_spec(Causal::bottom_right, 4096);
    spec.softcap = softcap;
    const AttentionProblem problem =
        random_problem({2, 1, 5, 6, 4, 3}, spec, {.alibi = true, .sink = softcap != 0}, 0, 21);
    const AttentionTensors x = run_ref(problem);
    double largest = 0;
    for (Index n = 0; n < x.m.size(); ++n) largest = std::max(largest, std::abs(x.m.data()[n]));
    REQUIRE(largest > (softcap == 0 ? 1e4 : 1e3));
    for (Index n = 0; n < x.o.size(); ++n) REQUIRE(std::isfinite(x.o.data()[n]));
    CHECK(first_disagreement(problem) == "");
  }
}

TEST_CASE("a score far above the others takes all the weight") {
  AttentionProblem problem = random_problem({1, 1, 2, 4, 1, 3}, plain_spec(Causal::none, 1e150), {}, 0, 22);
  for (Index i = 0; i < 2; ++i) problem.q(0, i, 0) = 1e150;
  for (Index j = 0; j < 4; ++j) problem.k(0, j, 0) = j == 2 ? 1 : -1;
  const AttentionTensors x = run_ref(problem);
  for (Index i = 0; i < 2; ++i) {
    REQUIRE(x.l(0, i) == 1);
    REQUIRE(x.lse(0, i) == x.m(0, i));
    for (Index c = 0; c < 3; ++c) REQUIRE(x.o(0, i, c) == problem.v(0, 2, c));
  }
}

TEST_CASE("keys that tie share the weight equally, whatever the sign of their zeros") {
  AttentionProblem problem =
      random_problem({2, 2, 3, 7, 2, 2}, plain_spec(Causal::bottom_right, 1), {}, 0, 23);
  for (Index n = 0; n < problem.q.size(); ++n) problem.q.data()[n] = n % 2 ? -0.0 : 0.0;
  const AttentionTensors x = run_ref(problem);
  for (Index i = 0; i < 3; ++i) {
    const Index visible = 5 + i;
    REQUIRE(x.l(1, i) == static_cast<double>(visible));
    for (Index j = 0; j < visible; ++j) REQUIRE(x.p(1, i, j) == 1 / static_cast<double>(visible));
  }
  CHECK(first_disagreement(problem) == "");
}

TEST_CASE("subnormal inputs are not flushed to zero") {
  AttentionProblem problem = random_problem({1, 1, 3, 3, 2, 2}, plain_spec(Causal::top_left, 1), {}, 0, 24);
  for (Index n = 0; n < problem.v.size(); ++n) problem.v.data()[n] *= 0x1p-1060;
  for (Index n = 0; n < problem.k.size(); ++n) problem.k.data()[n] *= 0x1p-1060;
  for (Index n = 0; n < problem.q.size(); ++n) problem.q.data()[n] *= 0x1p+1000;
  const AttentionTensors x = run_ref(problem);
  REQUIRE(x.s(0, 0, 0) != 0);
  REQUIRE(x.o(0, 0, 0) == problem.v(0, 0, 0));
  REQUIRE(x.o(0, 0, 0) != 0);
  CHECK(first_disagreement(problem) == "");
}

TEST_CASE("an attention over no keys at all is empty in every row") {
  for (const EmptyRow empty_row : {EmptyRow::zero, EmptyRow::nan}) {
    AttentionSpec spec = plain_spec(Causal::none, 1);
    spec.empty_row = empty_row;
    const AttentionTensors x = run_ref(random_problem({1, 1, 2, 0, 3, 2}, spec, {}, 0, 25));
    for (Index i = 0; i < 2; ++i) {
      REQUIRE(x.m(0, i) == -infinity);
      REQUIRE(x.l(0, i) == 0);
      REQUIRE(x.lse(0, i) == -infinity);
      for (Index c = 0; c < 2; ++c)
        REQUIRE(agrees(x.o(0, i, c), empty_row == EmptyRow::nan ? not_a_number : 0, 0));
    }
  }
}

TEST_CASE("a bottom-right causal row of a short query sees the last keys") {
  AttentionSpec spec = plain_spec(Causal::bottom_right, 1);
  const AttentionTensors wide = run_ref(random_problem({1, 1, 2, 5, 2, 2}, spec, {}, 0, 26));
  for (Index j = 0; j < 5; ++j) {
    REQUIRE((wide.p(0, 0, j) > 0) == (j <= 3));
    REQUIRE(wide.p(0, 1, j) > 0);
  }
  spec.window_left = 0;
  const AttentionProblem problem = random_problem({1, 1, 2, 5, 2, 2}, spec, {}, 0, 26);
  const AttentionTensors narrow = run_ref(problem);
  for (Index c = 0; c < 2; ++c) {
    REQUIRE(narrow.o(0, 0, c) == problem.v(0, 3, c));
    REQUIRE(narrow.o(0, 1, c) == problem.v(0, 4, c));
  }
}

TEST_CASE("the first rows of a long bottom-right causal query see no key") {
  const AttentionProblem problem =
      random_problem({1, 1, 5, 2, 2, 2}, plain_spec(Causal::bottom_right, 1), {}, 0, 27);
  const AttentionTensors x = run_ref(problem);
  for (Index i = 0; i < 5; ++i) REQUIRE((x.lse(0, i) == -infinity) == (i < 3));
  REQUIRE(x.o(0, 3, 0) == problem.v(0, 0, 0));
}

TEST_CASE("top-left with a past equals bottom-right when the past and the queries are all the keys") {
  AttentionSpec spec{Causal::top_left, 0.5, 3, 0, 0, EmptyRow::zero};
  const AttentionShape shape{2, 1, 4, 7, 3, 2};
  const AttentionTensors top_left = run_ref(random_problem(shape, spec, {.alibi = true}, 3, 28));
  const AttentionTensors without_past = run_ref(random_problem(shape, spec, {.alibi = true}, 0, 28));
  spec.causal = Causal::bottom_right;
  const AttentionTensors bottom_right = run_ref(random_problem(shape, spec, {.alibi = true}, 3, 28));
  REQUIRE(same(top_left, bottom_right));
  REQUIRE_FALSE(same(without_past, bottom_right));
}

TEST_CASE("ALiBi takes the slope times the distance from the diagonal, on both sides of it") {
  AttentionProblem problem =
      random_problem({2, 1, 2, 4, 1, 1}, plain_spec(Causal::none, 0), {.alibi = true}, 0, 29);
  problem.alibi_slopes(0) = 0.25;
  problem.alibi_slopes(1) = 2;
  const AttentionTensors x = run_ref(problem);
  const double distance[2][4] = {{2, 1, 0, 1}, {3, 2, 1, 0}};
  for (Index i = 0; i < 2; ++i) {
    for (Index j = 0; j < 4; ++j) {
      REQUIRE(x.s(0, i, j) == -0.25 * distance[i][j]);
      REQUIRE(x.s(1, i, j) == -2 * distance[i][j]);
    }
  }
}

TEST_CASE("a sink takes weight from every key and a row with a sink alone gives 0") {
  AttentionProblem problem =
      random_problem({2, 1, 3, 4, 2, 2}, plain_spec(Causal::none, 0), {.mask = true, .sink = true}, 0, 30);
  for (Index n = 0; n < problem.mask.size(); ++n) problem.mask.data()[n] = n < 4 ? 0 : 1;
  problem.sink(0) = problem.sink(1) = 0;
  const AttentionTensors x = run_ref(problem);
  REQUIRE(x.l(0, 0) == 1);
  REQUIRE(x.lse(0, 0) == 0);
  REQUIRE(x.o(0, 0, 0) == 0);
  REQUIRE(x.l(0, 1) == 5);
  for (Index j = 0; j < 4; ++j) REQUIRE(x.p(0, 1, j) == 1.0 / 5);
}

TEST_CASE("a sink of minus infinity changes nothing in the forward pass") {
  for (const EmptyRow empty_row : empty_rows) {
    AttentionSpec spec = plain_spec(Causal::bottom_right, 0.5);
    spec.empty_row = empty_row;
    AttentionProblem problem = random_problem({2, 1, 4, 3, 2, 2}, spec, {.sink = true}, 0, 31);
    problem.sink(0) = problem.sink(1) = -infinity;
    const AttentionTensors with = run_ref(problem);
    problem.sink = {};
    const AttentionTensors without = run_ref(problem);
    REQUIRE(same(with.o, without.o));
    REQUIRE(same(with.lse, without.lse));
    REQUIRE(same(with.dq, without.dq));
  }
}

TEST_CASE("strided, transposed and broadcast views give the bits of their packed copies") {
  const AttentionShape shape{4, 2, 3, 5, 3, 2};
  AttentionProblem problem = random_problem(shape, plain_spec(Causal::bottom_right, 0.5),
                                            {.alibi = true, .bias = true, .mask = true, .sink = true}, 0, 32);
  for (Index h = 0; h < 4; ++h) {  // one mask for all heads, one row of bias for all queries
    for (Index i = 0; i < 3; ++i) {
      for (Index j = 0; j < 5; ++j) {
        problem.mask(h, i, j) = problem.mask(1, i, j);
        problem.bias(h, i, j) = problem.bias(h, 0, j);
      }
    }
  }
  const AttentionTensors packed = run_ref(problem);

  Array<double, 3> by_row({3, 4, 3});  // [Sq, Hq, D]
  for (Index h = 0; h < 4; ++h) {
    for (Index i = 0; i < 3; ++i) {
      for (Index d = 0; d < 3; ++d) by_row(i, h, d) = problem.q(h, i, d);
    }
  }
  Array<double, 3> k_columns({2, 3, 5}), v_columns({2, 2, 5});  // [Hkv, D, Sk], [Hkv, E, Sk]
  for (Index g = 0; g < 2; ++g) {
    for (Index j = 0; j < 5; ++j) {
      for (Index d = 0; d < 3; ++d) k_columns(g, d, j) = problem.k(g, j, d);
      for (Index c = 0; c < 2; ++c) v_columns(g, c, j) = problem.v(g, j, c);
    }
  }
  AttentionInputs in = problem.inputs();
  in.k = {k_columns.data(), {2, 5, 3}, {15, 1, 5}};
  in.v = {v_columns.data(), {2, 5, 2}, {10, 1, 5}};
  in.q = {by_row.data(), {4, 3, 3}, {3, 12, 1}};
  in.mask = {problem.mask.data(), {4, 3, 5}, {0, 5, 1}};
  in.bias = {problem.bias.data(), {4, 3, 5}, {15, 0, 1}};
  AttentionTensors x(in);
  Array<double, 3> o({3, 4, 2}), dq({3, 4, 3});
  const View<double, 3> o_by_row(o.data(), {4, 3, 2}, {2, 8, 1}), dq_by_row(dq.data(), {4, 3, 3}, {3, 12, 1});
  ref::attention_forward(problem.spec, in, {o_by_row, x.lse.view(), {}, {}, {}, {}});
  ref::attention_backward(problem.spec, in,
                          {o_by_row, View<const double, 2>(x.lse.view()), problem.d_o.view()},
                          {dq_by_row, x.dk.view(), x.dv.view(), {}, {}});
  for (Index h = 0; h < 4; ++h) {
    for (Index i = 0; i < 3; ++i) {
      for (Index c = 0; c < 2; ++c) REQUIRE(o_by_row(h, i, c) == packed.o(h, i, c));
      for (Index d = 0; d < 3; ++d) REQUIRE(dq_by_row(h, i, d) == packed.dq(h, i, d));
    }
  }
  REQUIRE(same(x.dk, packed.dk));
  REQUIRE(same(x.dv, packed.dv));
}

TEST_CASE("each output of the forward pass may be asked for alone") {
  const AttentionProblem problem =
      random_problem({2, 1, 3, 4, 2, 3}, plain_spec(Causal::bottom_right, 0.5), {.sink = true}, 0, 33);
  const AttentionTensors all = run_ref(problem);
  AttentionTensors x(problem.inputs());
  const auto forward = [&](const ref::AttentionOutputs& out) {
    ref::attention_forward(problem.spec, problem.inputs(), out);
  };
  forward({x.o.view(), {}, {}, {}, {}, {}});
  forward({{}, x.lse.view(), {}, {}, {}, {}});
  forward({{}, {}, x.m.view(), {}, {}, {}});
  forward({{}, {}, {}, x.l.view(), {}, {}});
  forward({{}, {}, {}, {}, x.s.view(), {}});
  forward({{}, {}, {}, {}, {}, x.p.view()});
  REQUIRE((same(x.o, all.o) && same(x.lse, all.lse) && same(x.m, all.m)));
  REQUIRE((same(x.l, all.l) && same(x.s, all.s) && same(x.p, all.p)));
}
