// Kernels that store q or k times the scale before they multiply it: what they read is replayed.
#include <cmath>
#include <numbers>

#include "tests/catch.hpp"
#include "tests/emulate/honest_attention.hpp"
#include "tests/emulate/judged.hpp"

namespace {

using namespace attest;
using namespace attest::emulate;

Setup setup_of(DType element) {
  Setup setup;
  setup.element = element;
  setup.q_heads = 4;
  setup.queries = setup.keys = 90;
  setup.spec.causal = Causal::bottom_right;
  setup.spec.scale = 1 / std::sqrt(40.0);
  return setup;
}

/// The dump of an honest kernel but for its mistakes, and the verdict if the contract has this factor.
Verdict verdict(const Setup& setup, const Mistakes& mistakes, bool with_gradients, const char* key,
                double factor) {
  Kernel kernel = honest_kernels(setup.element).front().kernel;
  kernel.mistakes = mistakes;
  Case c = dump_of(setup, kernel, with_gradients);
  if (factor != 0) c.contract[key] = factor;
  const CaseFindings findings = judged(c);
  INFO(setup.text() << ", " << key << " = " << factor << ": " << summary(findings));
  CHECK(findings.verdict != Verdict::inconclusive);
  return findings.verdict;
}

std::string message(const std::function<void(Case&)>& change) {
  Case c = inputs_of(setup_of(DType::float16), DType::float16);
  c.out.emplace("o", c.in.at("q"));
  change(c);
  return message_of(c);
}

}  // namespace

TEST_CASE("q that is stored times the scale passes where the contract says so, and only there") {
  for (const DType element : {DType::float16, DType::bfloat16}) {
    const Setup setup = setup_of(element);
    Mistakes mistakes;
    mistakes.scaled_q = element;
    CHECK(verdict(setup, mistakes, false, "q_factor", 0) == Verdict::fail);
    CHECK(verdict(setup, mistakes, false, "q_factor", setup.spec.scale) == Verdict::pass);
    CHECK(verdict(setup, mistakes, false, "q_factor", setup.spec.scale * std::numbers::log2e) ==
          Verdict::fail);
    CHECK(verdict(setup, {}, false, "q_factor", setup.spec.scale) == Verdict::fail);
    CHECK(verdict(setup, {}, false, "q_factor", 0.25) == Verdict::pass);  // which rounds nothing
  }
}

TEST_CASE("k that the backward pass reads times the scale and log2(e) passes where the contract says so") {
  for (const DType element : {DType::float16, DType::bfloat16}) {
    for (const Index kv_heads : {1, 4}) {
      Setup setup = setup_of(element);
      setup.kv_heads = kv_heads;
      Mistakes mistakes;
      mistakes.scaled_k = element;
      const double factor = setup.spec.scale * std::numbers::log2e;
      CHECK(verdict(setup, mistakes, true, "backward_k_factor", 0) == Verdict::fail);
      CHECK(verdict(setup, mistakes, true, "backward_k_factor", factor) == Verdict::pass);
      CHECK(verdict(setup, {}, true, "backward_k_factor", factor) == Verdict::fail);
    }
  }
}

TEST_CASE("such a k has a name where the contract lacks it") {
  const Setup setup = setup_of(DType::float16);
  Kernel kernel = honest_kernels(setup.element).front().kernel;
  kernel.mistakes.scaled_k = setup.element;
  CHECK_THAT(first_cause(dump_of(setup, kernel, true)),
             attest::test::Mentions("contract key backward_k_factor"));
}

TEST_CASE("wrong kernels with scaled operands are diagnosed, whatever the lengths of their keys") {
  const Setup setup = setup_of(DType::float16);
  Kernel kernel = honest_kernels(setup.element).front().kernel;
  kernel.mistakes.scaled_q = kernel.mistakes.scaled_k = setup.element;
  kernel.mistakes.drops_delta = true;
  Case c = dump_of(setup, kernel, true);
  c.contract["q_factor"] = setup.spec.scale;
  c.contract["backward_k_factor"] = setup.spec.scale * std::numbers::log2e;
  c.in["kv_lengths"] = {"int64", {}, {1}, {70}};  // which the kernel has not read
  CHECK(judged(c).verdict == Verdict::fail);
}

TEST_CASE("factors that mean nothing are named") {
  using attest::test::Mentions;
  CHECK_THAT(message([](Case& c) { c.contract["q_factor"] = 0.0; }), Mentions("q_factor is 0"));
  CHECK_THAT(message([](Case& c) { c.contract["q_factor"] = 1e9; }),
             Mentions("q_factor is given") && Mentions("in/q at [") && Mentions("overflows float16"));
  CHECK_THAT(message([](Case& c) {
               c.contract["backward_k_factor"] = 0.5;
               c.contract["softmax_dtype"] = std::string("float64");
             }),
             Mentions("backward_k_factor is given") && Mentions("softmax_dtype in float64"));
  CHECK_THAT(message([](Case& c) {
               c.in["past_k"] = c.in.at("k");
               c.in["past_v"] = c.in.at("v");
               c.contract["backward_k_factor"] = 0.5;
             }),
             Mentions("in/past_k"));
}
