// tiled's backward pass against ref, both on the same o and lse, at every instruction set level.
#include <omp.h>

#include <utility>

#include "tests/catch.hpp"
#include "tests/tiled/backward_rounding.hpp"
#include "tests/tiled/problem_with_options.hpp"
#include "tiled/attention.hpp"

namespace {

using namespace attest;
using namespace attest::test;

void check_against_ref(const AttentionProblem& problem) {
  const SavedTensors saved(problem);
  const AttentionInputs in = problem.inputs();
  const GradientTensors want = reference_backward(problem, saved);
  GradientTensors single(in), twice(in);
  add_bounds(problem, saved, 0x1p-53, 0x1p-1074, 0x1p-1022, twice);
  add_bounds(problem, saved, 0x1p-53, 0x1p-1074, 0x1p-1022, twice);
  add_bounds(problem, saved, 0x1p-24, 0x1p-149, 0x1p-126, single);
  add_bounds(problem, saved, 0x1p-53, 0x1p-1074, 0x1p-1022, single);
  for (Index h = 0; h < want.dsink.size(); ++h) single.dsink(h) += 0x1p-24 * std::abs(want.dsink(h));
  for (const tiled::Level level : tiled::available_levels()) {
    INFO(tiled::name_of(level) << ", " << problem.name());
    CHECK(disagreement(run_tiled_backward<float>(problem, saved, level), want, single) == "");
    CHECK(disagreement(run_tiled_backward<double>(problem, saved, level), want, twice) == "");
  }
}

template <int Rank>
bool same_bits(const Array<double, Rank>& a, const Array<double, Rank>& b) {
  for (Index n = 0; n < a.size(); ++n) {
    if (!(a.data()[n] == b.data()[n])) return false;
  }
  return a.size() == b.size();
}

}  // namespace

TEST_CASE("tiled gradients are within their rounding errors of ref for every shape, diagonal and window") {
  const AttentionShape shapes[] = {{1, 1, 1, 1, 1, 1},      {2, 1, 15, 95, 16, 16},  {4, 2, 17, 97, 7, 5},
                                   {1, 1, 63, 121, 8, 24},  {1, 1, 82, 217, 33, 16}, {3, 3, 5, 0, 4, 3},
                                   {2, 1, 150, 77, 16, 16}, {1, 1, 7, 3, 1, 2}};
  std::uint64_t seed = 3000;
  for (const AttentionShape& shape : shapes) {
    for (const Causal causal : {Causal::none, Causal::top_left, Causal::bottom_right}) {
      for (const auto& [left, right] : {std::pair<Index, Index>{-1, -1}, {20, -1}, {0, 5}, {130, 0}}) {
        check_against_ref(problem_with_options(shape, causal, left, right, ++seed));
      }
    }
  }
}

TEST_CASE(
    "the bits of tiled gradients do not depend on the number of threads, also where parts are added up") {
  // 64 or more panels of at most 5 vectors of 16 rows: several parts at every level.
  const AttentionProblem problem =
      random_problem({1, 1, 5200, 130, 8, 8}, plain_spec(Causal::none, 0.25), {}, 0, 4000);
  const SavedTensors saved(problem);
  const int threads_before = omp_get_max_threads();
  for (const tiled::Level level : tiled::available_levels()) {
    omp_set_num_threads(1);
    const GradientTensors one = run_tiled_backward<float>(problem, saved, level);
    for (const int threads : {2, 3}) {
      omp_set_num_threads(threads);
      const GradientTensors many = run_tiled_backward<float>(problem, saved, level);
      CHECK(same_bits(many.dq, one.dq));
      CHECK(same_bits(many.dk, one.dk));
      CHECK(same_bits(many.dv, one.dv));
    }
  }
  omp_set_num_threads(threads_before);
  check_against_ref(problem);
}
