// Scores that a mask lowers by a number instead of removing them, and scores so large that bounds say
// nothing.
#include <limits>

#include "tests/catch.hpp"
#include "tests/emulate/honest_attention.hpp"
#include "tests/emulate/judged.hpp"
#include "tests/emulate/softmax.hpp"

namespace {

using namespace attest;
using namespace attest::emulate;
using test::Random;

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double lowest = std::numeric_limits<float>::lowest();

Setup setup_of(DType element) {
  Setup setup;
  setup.element = element;
  setup.queries = 24;
  setup.keys = 60;
  return setup;
}

/// Outputs of a kernel that gives a random half of the keys, but never the first, no weight.
Case masked_case(const Setup& setup) {
  const Kernel kernel = honest_kernels(setup.element)[0].kernel;
  Case c = inputs_of(setup, kernel.p_dtype);
  Tensor mask{"bool", {}, {1, 1, setup.queries, setup.keys}, {}};
  Random random(5);
  for (Index i = 0; i < setup.queries; ++i)
    for (Index j = 0; j < setup.keys; ++j) mask.values.push_back(j == 0 || random.one_in(2) ? 1 : 0);
  c.in["mask"] = mask;
  const View<const double, 3> d_o{c.in.at("do").values.data(), {setup.q_heads, setup.queries, setup.v_width}};
  store(c, run(kernel, setup.spec, views_of(c), d_o, setup.element), {"o", "lse", "p", "dq", "dk", "dv"},
        setup.element, kernel.p_dtype);
  return c;
}

Case with_numbers(Case c, double number) {
  Tensor bias = tensor_of(DType::float32, c.in.at("mask").shape);
  for (std::size_t n = 0; n < bias.values.size(); ++n)
    bias.values[n] = c.in.at("mask").values[n] == 0 ? round_to(number, DType::float32) : 0;
  c.in.erase("mask");
  c.in["bias"] = bias;
  return c;
}

}  // namespace

TEST_CASE("a mask that is added as a number has the bounds of a mask") {
  const DType element = GENERATE(DType::float16, DType::bfloat16, DType::float32);
  const Case masked = masked_case(setup_of(element));
  const CaseFindings by_mask = judged(masked);
  CHECK(by_mask.verdict == Verdict::pass);
  for (const double number : {-1e4, -1e9, lowest}) {
    const Case added = with_numbers(masked, number);
    const CaseFindings findings = judged(added);
    INFO(number << ": " << summary(findings) << "; by mask: " << summary(by_mask));
    CHECK(findings.verdict == Verdict::pass);
    for (const OutputFindings& o : by_mask.outputs)
      CHECK(output(findings, o.name).worst_ratio >= 0.5 * o.worst_ratio);
  }
}

TEST_CASE("softmax bounds do not depend on how far below the maximum scores are that have no weight") {
  const double number = GENERATE(-1e4, -1e6, -1e9, lowest);
  for (const double scale : {1.0, 0.125}) {
    SoftmaxSetup setup;
    setup.scale = scale;
    const auto case_with = [&](double absent) {
      Random random(3);
      return softmax_case(setup, SoftmaxKernel{}, 4, [&](Index, Index j) {
        const double x = random.symmetric();
        return j % 3 == 1 ? absent : x;
      });
    };
    const CaseFindings absent = judged(case_with(-infinity)), low = judged(case_with(number));
    INFO(summary(low) << "; absent: " << summary(absent));
    CHECK(low.verdict == Verdict::pass);
    for (const OutputFindings& o : absent.outputs)
      CHECK(output(low, o.name).worst_ratio >= 0.5 * o.worst_ratio);
    Case wrong = case_with(number);
    for (double& y : wrong.out.at("y").values) y = 1e30;
    CHECK(judged(wrong).verdict == Verdict::fail);
  }
}

TEST_CASE("where bounds are empty a right kernel does not fail, and no kernel passes") {
  const DType softmax_dtype = GENERATE(DType::float32, DType::bfloat16);
  Setup setup = setup_of(softmax_dtype == DType::float32 ? DType::float32 : DType::float16);
  setup.spec.scale = softmax_dtype == DType::float32 ? 1e6 : 3000;
  setup.distribution = Distribution::repeated_keys;
  Case c = dump_of(setup, honest_kernels(setup.element)[0].kernel, false, {"o"});
  c.contract["softmax_dtype"] = std::string(format_of(softmax_dtype).name);
  const CaseFindings right = judged(c);
  INFO(summary(right));
  CHECK(right.verdict == Verdict::inconclusive);
  Random random(7);
  for (double& o : c.out.at("o").values) o = round_to(random.symmetric(), setup.element);
  CHECK(judged(c).verdict != Verdict::pass);
}

TEST_CASE("a wrong gradient is diagnosed beside a sequence without keys") {
  constexpr Index batch = 2, rows = 4, width = 8;
  Case c;
  c.file = "emulated.h5", c.name = "case", c.op = "attention";
  c.spec = {{"causal", std::string("none")}, {"scale", 0.25}};
  Random random(9);
  for (const char* name : {"q", "k", "v", "do"}) {
    Tensor& t = c.in[name] = tensor_of(DType::float16, {batch, 1, rows, width});
    for (double& x : t.values) x = round_to(random.symmetric(), DType::float16);
  }
  c.in["kv_lengths"] = {"int64", {}, {batch}, {rows, 0}};
  Tensor& dq = c.out["dq"] = tensor_of(DType::float16, {batch, 1, rows, width});
  for (double& x : dq.values) x = round_to(random.symmetric(), DType::float16);
  CHECK(judged(c).verdict == Verdict::fail);
}
