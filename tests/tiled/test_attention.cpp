// tiled's forward pass against ref, at every instruction set level that the machine has.
#include "tiled/attention.hpp"

#include <omp.h>

#include <cmath>
#include <limits>

#include "tests/catch.hpp"
#include "tests/tiled/attention_rounding.hpp"
#include "tests/tiled/problem_with_options.hpp"

namespace {

using namespace attest;
using namespace attest::test;

constexpr Causal causals[] = {Causal::none, Causal::top_left, Causal::bottom_right};
constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

void check_against_ref(const AttentionProblem& problem) {
  for (const auto normalisation : {tiled::Normalisation::deferred, tiled::Normalisation::per_step}) {
    const bool per_step = normalisation == tiled::Normalisation::per_step;
    if (per_step && problem.seed % 7 >= 2) continue;  // enough of every option
    const ReferenceForward want = reference_forward(problem, {.joins = per_step});
    for (const tiled::Level level : tiled::available_levels()) {
      INFO(tiled::name_of(level) << (per_step ? ", per step, " : ", ") << problem.name());
      CHECK(first_disagreement(run_tiled<float>(problem, level, normalisation), want.value,
                               want.bound_float) == "");
      CHECK(first_disagreement(run_tiled<double>(problem, level, normalisation), want.value,
                               want.bound_double) == "");
    }
  }
}

}  // namespace

TEST_CASE("tiled attention is within its rounding errors of ref for every shape, diagonal and window") {
  // Queries and keys on both sides of vectors (2 to 16), panels (8 to 80) and tiles of keys (96 to 120).
  const AttentionShape shapes[] = {{1, 1, 1, 1, 1, 1},      {2, 1, 15, 95, 16, 16},  {2, 2, 16, 96, 64, 64},
                                   {4, 2, 17, 97, 7, 5},    {1, 1, 63, 120, 8, 24},  {1, 1, 64, 121, 33, 65},
                                   {2, 1, 81, 217, 64, 80}, {1, 1, 330, 77, 16, 16}, {3, 3, 5, 0, 4, 3},
                                   {2, 1, 1, 250, 32, 32},  {1, 1, 7, 3, 1, 2}};
  std::uint64_t seed = 0;
  for (const AttentionShape& shape : shapes) {
    for (const Causal causal : causals) {
      for (const auto& [left, right] :
           {std::pair<Index, Index>{-1, -1}, {20, -1}, {0, 5}, {-1, 3}, {130, 0}}) {
        check_against_ref(problem_with_options(shape, causal, left, right, ++seed));
      }
    }
  }
}

TEST_CASE("tiled attention is within its rounding errors of ref for every combination of options") {
  std::uint64_t seed = 1000;
  for (const Causal causal : causals) {
    for (int options = 0; options < 32; ++options) {
      const AttentionSpec spec{causal, 0.25, -1, -1, options & 16 ? 1.5 : 0, EmptyRow::zero};
      const AttentionExtras extras{(options & 1) != 0, (options & 2) != 0, (options & 4) != 0,
                                   (options & 8) != 0};
      check_against_ref(random_problem({4, 2, 21, 101, 8, 8}, spec, extras, options % 3, ++seed));
    }
  }
}

TEST_CASE("scores of magnitude a thousand do not overflow and leave weights that are 0 or 1") {
  AttentionProblem problem = random_problem({1, 1, 20, 130, 1, 2}, plain_spec(Causal::none, 1), {}, 0, 2000);
  for (Index i = 0; i < 20; ++i) problem.q(0, i, 0) = 1024;
  for (Index j = 0; j < 130; ++j) problem.k(0, j, 0) = j == 100 ? 1 : -1;
  for (const tiled::Level level : tiled::available_levels()) {
    constexpr auto per_step = tiled::Normalisation::per_step;
    for (const ForwardTensors& x :
         {run_tiled<float>(problem, level), run_tiled<double>(problem, level),
          run_tiled<float>(problem, level, per_step), run_tiled<double>(problem, level, per_step)}) {
      for (Index i = 0; i < 20; ++i) {
        CHECK(x.l(0, i) == 1);
        CHECK(x.lse(0, i) == x.m(0, i));
        CHECK(x.o(0, i, 1) == problem.v(0, 100, 1));
      }
    }
  }
}

TEST_CASE("a NaN reaches the rows that may attend to it, and a key outside all their ranges reaches none") {
  for (const Causal causal : {Causal::none, Causal::top_left}) {
    AttentionProblem problem = random_problem({1, 1, 40, 200, 8, 8}, plain_spec(causal, 0.25), {}, 0, 2001);
    const ForwardTensors clean = run_tiled<float>(problem, tiled::fastest_level());
    problem.k(0, 150, 3) = not_a_number;
    problem.v(0, 150, 3) = not_a_number;
    for (const tiled::Level level : tiled::available_levels()) {
      const ForwardTensors x = run_tiled<float>(problem, level);
      for (Index i = 0; i < 40; ++i) {
        CHECK(std::isnan(x.o(0, i, 0)) == (causal == Causal::none));
        CHECK(std::isnan(x.lse(0, i)) == (causal == Causal::none));
        CHECK(std::isnan(x.m(0, i)) == (causal == Causal::none));
      }
      if (causal == Causal::top_left && level == tiled::fastest_level()) CHECK(same_bits(x, clean));
    }
  }
}

TEST_CASE("the bits of tiled attention do not depend on the number of threads") {
  // Many rows; and few, whose keys are dealt to parts.
  const AttentionShape shape =
      GENERATE(AttentionShape{2, 1, 400, 333, 24, 16}, AttentionShape{2, 1, 2, 9000, 8, 8});
  const AttentionProblem problem =
      random_problem(shape, plain_spec(Causal::bottom_right, 0.25), {.sink = true}, 0, 2002);
  const int threads_before = omp_get_max_threads();
  for (const tiled::Level level : tiled::available_levels()) {
    omp_set_num_threads(1);
    const ForwardTensors one = run_tiled<float>(problem, level),
                         one_double = run_tiled<double>(problem, level);
    for (const int threads : {2, 3}) {
      omp_set_num_threads(threads);
      CHECK(same_bits(run_tiled<float>(problem, level), one));
      CHECK(same_bits(run_tiled<double>(problem, level), one_double));
    }
  }
  omp_set_num_threads(threads_before);
}

TEST_CASE("a batch of sequences of different lengths gives the bits of each alone") {
  std::vector<AttentionProblem> problems;
  std::vector<tiled::Inputs<double>> in;
  std::vector<Array<double, 3>> o;
  std::vector<tiled::Outputs<double>> out;
  for (const Index length : {1, 130, 0, 77}) {
    problems.push_back(random_problem({2, 1, length, length + 1, 16, 8},
                                      plain_spec(Causal::bottom_right, 0.5), {}, 0,
                                      static_cast<std::uint64_t>(2003 + length)));
    o.push_back(Array<double, 3>({2, length, 8}));
  }
  for (std::size_t b = 0; b < problems.size(); ++b) {
    in.push_back(problems[b].inputs());
    out.push_back({o[b].view(), {}, {}, {}});
  }
  tiled::attention_forward<double>(problems[0].spec, in, out);
  for (std::size_t b = 0; b < problems.size(); ++b) {
    const ForwardTensors alone = run_tiled<double>(problems[b], tiled::fastest_level());
    for (Index n = 0; n < o[b].size(); ++n) REQUIRE(o[b].data()[n] == alone.o.data()[n]);
  }
}

TEST_CASE("tiled reads and writes strided views with the bits of packed ones") {
  const AttentionProblem problem = random_problem(
      {2, 2, 70, 110, 16, 32}, plain_spec(Causal::bottom_right, 0.5), {.bias = true, .mask = true}, 0, 2010);
  const ForwardTensors packed = run_tiled<double>(problem, tiled::fastest_level());
  Array<double, 3> q({70, 2, 17}), k({2, 16, 110}), v({110, 2, 33}), o({70, 32, 2});  // rows first, padded
  for (Index h = 0; h < 2; ++h) {
    for (Index d = 0; d < 16; ++d) {
      for (Index i = 0; i < 70; ++i) q(i, h, d) = problem.q(h, i, d);
      for (Index j = 0; j < 110; ++j) k(h, d, j) = problem.k(h, j, d);
    }
    for (Index j = 0; j < 110; ++j) {
      for (Index e = 0; e < 32; ++e) v(j, h, e) = problem.v(h, j, e);
    }
  }
  tiled::Inputs<double> in = problem.inputs();
  in.q = {q.data(), {2, 70, 16}, {17, 34, 1}};
  in.k = {k.data(), {2, 110, 16}, {16 * 110, 1, 110}};
  in.v = {v.data(), {2, 110, 32}, {33, 66, 1}};
  const tiled::Outputs<double> out{{o.data(), {2, 70, 32}, {1, 64, 2}}, {}, {}, {}};
  tiled::attention_forward<double>(problem.spec, {&in, 1}, {&out, 1});
  for (Index h = 0; h < 2; ++h) {
    for (Index i = 0; i < 70; ++i) {
      for (Index e = 0; e < 32; ++e) REQUIRE(o(i, e, h) == packed.o(h, i, e));
    }
  }
}
