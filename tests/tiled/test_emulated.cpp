// The forward pass in the arithmetic of a device: like ref where nothing is rounded, and each rounding where
// the contract has it.
#include "tiled/emulated.hpp"

#include <cmath>
#include <stdexcept>
#include <vector>

#include "tests/catch.hpp"
#include "tests/emulate/sums.hpp"
#include "tests/support/random.hpp"
#include "tests/tiled/attention_rounding.hpp"

namespace {

using namespace attest;
using namespace attest::test;
using tiled::EmulatedKernel;
using tiled::Normalisation;

constexpr Contract exact{DType::float64, DType::float64, {DType::float64, 0, 0}, {DType::float64, 0, 0}};
constexpr Contract hopper{DType::float16, DType::float32, {DType::float32, 16, 2}, {DType::float32, 16, 2}};

ForwardTensors run(const AttentionProblem& problem, const Contract& contract, const EmulatedKernel& kernel) {
  ForwardTensors x(problem.inputs());
  tiled::attention_forward_emulated(problem.spec, contract, kernel, problem.inputs(),
                                    {x.o.view(), x.lse.view(), x.m.view(), x.l.view()});
  return x;
}

/// A problem of float16 operands without options.
AttentionProblem half_problem(const AttentionShape& shape, std::uint64_t seed) {
  AttentionProblem problem = random_problem(shape, plain_spec(Causal::none, 0.125), {}, 0, seed);
  for (Array<double, 3>* x : {&problem.q, &problem.k, &problem.v}) {
    for (Index n = 0; n < x->size(); ++n) x->data()[n] = round_to(x->data()[n], DType::float16);
  }
  return problem;
}

/// A sum of products as the emulated kernels of tests/emulate form it.
template <class A, class B>
float device_sum(float start, Index count, A a, B b) {
  return emulate::add_products(emulate::Adder{emulate::Adder::Kind::tensor_core, 16, 2, DType::float64},
                               start, count, a, b);
}

}  // namespace

TEST_CASE("emulated arithmetic in float64 is within its rounding errors of ref") {
  const EmulatedKernel kernels[] = {
      {64, 64, 1, Normalisation::deferred}, {16, 8, 1, Normalisation::per_step},
      {32, 5, 3, Normalisation::deferred},  {1, 1, 1, Normalisation::deferred},
      {7, 100, 2, Normalisation::per_step}, {200, 16, 1, Normalisation::deferred}};
  const AttentionShape shapes[] = {{1, 1, 1, 1, 1, 1},   {2, 1, 15, 63, 16, 16}, {4, 2, 17, 65, 7, 5},
                                   {1, 1, 33, 64, 8, 9}, {3, 3, 5, 0, 4, 3},     {2, 1, 1, 130, 8, 8}};
  std::uint64_t seed = 5000;
  for (const EmulatedKernel& kernel : kernels) {
    for (const AttentionShape& shape : shapes) {
      for (const Causal causal : {Causal::none, Causal::top_left, Causal::bottom_right}) {
        for (const auto& [left, right] : {std::pair<Index, Index>{-1, -1}, {20, -1}, {-1, 3}, {9, 0}}) {
          Random random(++seed);
          const EmptyRow empty_row = std::array{EmptyRow::zero, EmptyRow::nan, EmptyRow::mean_v}[seed % 3];
          const AttentionSpec spec{causal, random.one_in(2) ? 0.25 : -0.3, left,
                                   right,  random.one_in(3) ? 1.5 : 0,     empty_row};
          const AttentionExtras extras{random.one_in(4), random.one_in(4), random.one_in(4),
                                       random.one_in(4)};
          const AttentionProblem problem =
              random_problem(shape, spec, extras, random.below(shape.sk + 1), seed);
          const ReferenceForward want = reference_forward(problem, {.tile = kernel.key_tile, .joins = true});
          INFO("tiles " << kernel.key_tile << ' ' << kernel.query_tile << ", splits " << kernel.splits << ", "
                        << problem.name());
          CHECK(first_disagreement(run(problem, exact, kernel), want.value, want.bound_double) == "");
        }
      }
    }
  }
}

TEST_CASE("scores are sums as a tensor core forms them, and the scale waits until the end") {
  const AttentionProblem problem = half_problem({1, 1, 20, 1, 100, 1}, 6000);  // one key: m is its score
  const ForwardTensors x = run(problem, hopper, {});
  for (Index i = 0; i < 20; ++i) {
    const float s = device_sum(
        0, 100, [&](Index d) { return problem.q(0, i, d); }, [&](Index d) { return problem.k(0, 0, d); });
    CHECK(x.m(0, i) == static_cast<double>(s * 0.125f));
    // Its weight lacks what the rounding of m times scale log2(e) left over.
    const double unit = 0.125f * 1.44269504f, shift = static_cast<float>(s * unit);
    CHECK(std::abs(x.l(0, i) - std::exp2(s * unit - shift)) < 0x1p-22);
  }
}

TEST_CASE("the running sum of P V goes through the tensor core with the products, tile by tile") {
  AttentionProblem problem = half_problem({1, 1, 2, 200, 8, 24}, 6001);
  for (Index n = 0; n < problem.q.size(); ++n) problem.q.data()[n] = 0;  // all weights are 1
  for (const Index tile : {16, 24, 64, 256}) {
    const ForwardTensors x = run(problem, hopper, {tile, 64, 1, Normalisation::deferred});
    for (Index e = 0; e < 24; ++e) {
      float sum = 0;
      for (Index first = 0; first < 200; first += tile) {
        sum = device_sum(
            sum, std::min<Index>(tile, 200 - first), [](Index) { return 1; },
            [&](Index j) { return problem.v(0, first + j, e); });
      }
      CHECK(x.o(0, 1, e) == static_cast<double>(sum * (1 / 200.0f)));
    }
  }
}

TEST_CASE("weights are rounded for P V and not for the row sum") {
  AttentionProblem problem = half_problem({1, 1, 1, 2, 1, 2}, 6002);
  problem.spec.scale = 1;
  problem.q(0, 0, 0) = 1;
  problem.k(0, 0, 0) = 0;
  problem.k(0, 1, 0) = -1;
  problem.v(0, 0, 0) = 0;
  problem.v(0, 1, 0) = 1;
  const ForwardTensors x = run(problem, hopper, {});
  const double weight = std::exp(-1);
  CHECK(std::abs(x.l(0, 0) - (1 + weight)) < 0x1p-22);
  const double numerator = x.o(0, 0, 0) * x.l(0, 0), stored = round_to(weight, DType::float16);
  REQUIRE(std::abs(stored - weight) > 0x1p-15);
  CHECK(std::abs(numerator - stored) < 0x1p-22);

  // Normalised after every tile, weights are stored relative to the maximum of their tile.
  problem.k(0, 1, 0) = -20;
  const ForwardTensors per_step = run(problem, hopper, {1, 1, 1, Normalisation::per_step});
  CHECK(per_step.o(0, 0, 0) > 0);
  CHECK(run(problem, hopper, {1, 1, 1, Normalisation::deferred}).o(0, 0, 0) == 0);  // exp(-20) rounds to 0
}

TEST_CASE("narrow accumulators round every sum") {
  AttentionProblem problem = half_problem({1, 1, 1, 1, 3, 1}, 6003);
  problem.spec.scale = 1;
  const double q[] = {1024, 1, 1};
  for (Index d = 0; d < 3; ++d) problem.q(0, 0, d) = q[d], problem.k(0, 0, d) = 1;
  Contract contract = hopper;
  CHECK(run(problem, contract, {}).lse(0, 0) == 1026);
  problem.q(0, 0, 0) = 2048;  // 2048 + 1 rounds to even, twice
  CHECK(run(problem, contract, {}).lse(0, 0) == 2050);
  contract.qk = {DType::float16, 0, 0};
  CHECK(run(problem, contract, {}).lse(0, 0) == 2048);
}

TEST_CASE("emulated bits do not depend on tiles of queries, and softmax is in float32 or float64") {
  AttentionProblem problem = half_problem({2, 1, 70, 90, 16, 8}, 6004);
  problem.spec.causal = Causal::bottom_right;
  problem.spec.window_left = 40;
  const ForwardTensors wide = run(problem, hopper, {16, 128, 1, Normalisation::deferred});
  for (const Index query_tile : {1, 7, 64}) {
    CHECK(same_bits(run(problem, hopper, {16, query_tile, 1, Normalisation::deferred}), wide));
  }
  Contract contract = hopper;
  contract.softmax_dtype = DType::float16;
  CHECK_THROWS_AS(run(problem, contract, {}), std::invalid_argument);
}
