// What is said of ALiBi whose distances are not those of its diagonal, and of diagonals that end elsewhere.
#include <functional>
#include <numbers>

#include "tests/catch.hpp"
#include "tests/emulate/honest_attention.hpp"
#include "tests/emulate/judged.hpp"
#include "tests/emulate/packed.hpp"

namespace {

using namespace attest;
using namespace attest::emulate;

constexpr Index rows = 32, keys = 100, heads = 2;

Setup declared(DType element) {
  return plain_setup(element, rows, keys, heads, heads);
}

/// A kernel with these distances while the dump declares those from the bottom right diagonal.
Case with_distances(DType element, Causal causal, const std::function<double(Index i, Index j)>& distance) {
  Setup setup = declared(element);
  setup.has_alibi = true;
  setup.spec.causal = causal;
  const Kernel kernel = honest_kernels(element)[0].kernel;
  Case asked = inputs_of(setup, kernel.p_dtype);
  asked.in.erase("do");
  Case read = asked;
  Tensor bias{"float32", DType::float32, {1, heads, rows, keys}, {}};
  for (Index n = 0; n < heads * rows * keys; ++n) {
    const double slope = asked.in.at("alibi_slopes").values[n / (rows * keys)];
    bias.values.push_back(-slope * distance(n / keys % rows, n % keys));
  }
  read.in["bias"] = bias;
  read.in.erase("alibi_slopes");
  store(asked, run(kernel, setup.spec, views_of(read), {}, element), {"o", "lse"}, element, element);
  return asked;
}

double declared_distance(Index i, Index j) {
  return static_cast<double>(std::abs(keys - rows + i - j));
}

}  // namespace

TEST_CASE("ALiBi of other distances is named") {
  const DType element = GENERATE(DType::float16, DType::float32);
  const Causal causal = element == DType::float16 ? Causal::none : Causal::bottom_right;
  REQUIRE(judged(with_distances(element, causal, declared_distance)).verdict == Verdict::pass);
  CHECK(first_cause(with_distances(element, causal, [](Index i, Index j) {
          return static_cast<double>(std::abs(i - j));
        })) == "ALiBi distance |i - j|, without the offset of the diagonal");
  CHECK(first_cause(with_distances(element, causal, [](Index i, Index j) {
          return std::min(declared_distance(i, j), 12.0);
        })) == "ALiBi distance at most 12");
  CHECK(first_cause(with_distances(element, causal, [](Index i, Index j) {
          return declared_distance(i + 3, j);
        })) == "ALiBi distance from a diagonal 3 keys too far");
}

TEST_CASE("ALiBi of other slopes is named") {
  const DType element = DType::float32;
  const auto with_slopes = [&](auto slope) {
    Setup setup = declared(element);
    setup.has_alibi = true;
    const Kernel kernel = honest_kernels(element)[0].kernel;
    Case asked = inputs_of(setup, kernel.p_dtype);
    asked.in.erase("do");
    asked.in.at("alibi_slopes").values = {0.25, 0.0625};
    Case read = asked;
    for (double& x : read.in.at("alibi_slopes").values) x = slope(x);
    store(asked, run(kernel, setup.spec, views_of(read), {}, element), {"o", "lse"}, element, element);
    return first_cause(asked);
  };
  if (element == DType::float16) {  // each in one type
    const double scale = declared(element).spec.scale;
    CHECK(with_slopes([=](double x) { return scale * x; }) == "ALiBi multiplied by the scale");
    CHECK(with_slopes([](double x) { return 1.1 * x; }) == "ALiBi slopes multiplied by 1.1");
    CHECK(with_slopes([](double x) { return x * x; }) == "ALiBi slopes squared");
    return;
  }
  CHECK(with_slopes([](double x) { return std::numbers::log2e * x; }) == "ALiBi multiplied by log2(e)");
  CHECK(with_slopes([](double x) { return 2 * x; }) == "ALiBi added twice");
  CHECK(with_slopes([](double x) { return x == 0.25 ? 0.3 : 0.02; }) ==
        "other ALiBi slopes: 0.3 in place of 0.25 in head 0, 0.02 in place of 0.0625 in head 1");
  CHECK(first_cause(with_distances(element, Causal::none, [](Index i, Index j) {
          return static_cast<double>(std::abs(keys - rows + i - j % 32));
        })) == "ALiBi distance from the place of a key in its tile of 32");
}

TEST_CASE("a diagonal that ends at the padded length is named") {
  const Setup setup = declared(DType::float16);
  const Kernel kernel = honest_kernels(DType::float16)[0].kernel;
  Case c = inputs_of(setup, kernel.p_dtype);
  c.in.erase("do");
  AttentionInputs in = views_of(c);
  in.k = in.k.narrowed(1, 0, 80), in.v = in.v.narrowed(1, 0, 80), in.past = keys - rows;
  AttentionSpec seen = setup.spec;
  seen.causal = Causal::top_left;
  store(c, run(kernel, seen, in, {}, DType::float16), {"o", "lse"}, DType::float16, DType::float16);
  c.in["kv_lengths"] = {"int64", {}, {1}, {80}};
  c.spec["causal"] = "bottom_right";
  CHECK(first_cause(c) == "a diagonal that ends at the padded length, not at in/kv_lengths");
}

TEST_CASE("the diagonal of the longest packed sequence in the others is named") {
  const Setup setup = declared(DType::float16);
  const Kernel kernel = honest_kernels(DType::float16)[0].kernel;
  Case c = inputs_of(setup, kernel.p_dtype), read = c;
  c.in.erase("do");
  // Rows 0..7 and keys 0..19 are one sequence, the others another; both have a diagonal at 80 - 24 = 56.
  Tensor mask{"bool", {}, {1, 1, rows, keys}, {}};
  for (Index n = 0; n < rows * keys; ++n) {
    const Index i = n / keys, j = n % keys;
    mask.values.push_back(i < 8 ? j < 20 : j >= 20 && j - 20 <= i - 8 + 56);
  }
  read.in["mask"] = mask;
  store(c, run(kernel, setup.spec, views_of(read), {}, setup.element), {"o", "lse"}, setup.element,
        setup.element);
  for (auto* tensors : {&c.in, &c.out})
    for (auto& [name, tensor] : *tensors) tensor = packed(tensor);
  c.spec["layout"] = "thd", c.spec["causal"] = "bottom_right";
  c.in["cu_seqlens_q"] = {"int64", {}, {3}, {0, 8, rows}};
  c.in["cu_seqlens_k"] = {"int64", {}, {3}, {0, 20, keys}};
  CHECK(first_cause(c) == "the diagonal of the longest sequence in all of them");
}
