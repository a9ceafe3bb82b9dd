// Activations whose factor of x, the gate, a table, a polynomial or a device's own tanh makes.
#include <cmath>
#include <numbers>

#include "ref/activation.hpp"
#include "tests/catch.hpp"
#include "tests/emulate/judged.hpp"
#include "tests/verify/activation_dump.hpp"

namespace {

using namespace attest;
using namespace attest::emulate;

/// What the gate is off by.
constexpr double error = 0x1p-13;
double off(double gate, double x) {
  return gate + error * std::sin(1e4 * x);
}

double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}
double normal(double x) {
  return std::erfc(-x / std::numbers::sqrt2) / 2;
}
double inner(double x) {
  return ref::gelu_tanh_scale * (x + ref::gelu_tanh_cubic * x * x * x);
}

struct Kernel {
  std::string op, approximate;
  Function y, slope;
};

Kernel through_sigmoid(const std::string& op, const std::string& approximate, double factor) {
  const auto gate = [factor](double x) { return off(sigmoid(factor * x), x); };
  return {op, approximate, [=](double x) { return x * gate(x); },
          [=](double x) { return gate(x) * (1 + factor * x * (1 - gate(x))); }};
}

std::vector<Kernel> kernels() {
  const auto of_tanh = [](double x) { return off(sigmoid(2 * inner(x)), x); };
  const auto of_erf = [](double x) { return off(normal(x), x); };
  const auto alone = [](double x) { return off(sigmoid(x), x); };
  return {{"gelu", "none", [=](double x) { return x * of_erf(x); },
           [=](double x) {
             return of_erf(x) + x * std::exp(-x * x / 2) * std::numbers::inv_sqrtpi / std::numbers::sqrt2;
           }},
          {"gelu", "tanh", [=](double x) { return x * of_tanh(x); },
           [=](double x) {
             const double t = 2 * of_tanh(x) - 1;
             const double slope = ref::gelu_tanh_scale * (1 + 3 * ref::gelu_tanh_cubic * x * x);
             return of_tanh(x) + x * (1 - t * t) / 2 * slope;
           }},
          through_sigmoid("gelu", "quick", ref::gelu_quick_scale),
          through_sigmoid("silu", "", 1),
          {"sigmoid", "", alone, [=](double x) { return alone(x) * (1 - alone(x)); }}};
}

}  // namespace

TEST_CASE(
    "a gate that a table or a polynomial makes is right within the error that is declared, and no more") {
  for (const Kernel& kernel : kernels()) {
    for (const DType element : {DType::float16, DType::bfloat16, DType::float32}) {
      Case c = dump(kernel.op, kernel.approximate, element, kernel.y, kernel.slope);
      INFO(kernel.op << " " << kernel.approximate << ", " << format_of(element).name);
      CHECK(judged(c).verdict == Verdict::fail);
      c.contract["gate_error"] = error;
      const CaseFindings findings = judged(c);
      INFO(summary(findings));
      CHECK(findings.verdict == Verdict::pass);
      if (element == DType::float32) {  // others have stores to allow for, dx of a sigmoid that of y, too
        for (const OutputFindings& o : findings.outputs) CHECK(o.worst_ratio > 0.7);
      }
      c.contract["gate_error"] = error / 4;
      CHECK(judged(c).verdict == Verdict::fail);
    }
  }
}

TEST_CASE("the error of a gate is a number above 0 and below 1, and shown") {
  const Kernel kernel = kernels().back();
  Case c = dump(kernel.op, kernel.approximate, DType::float32, kernel.y, kernel.slope);
  c.contract["gate_error"] = 0x1p-13;
  CHECK(judged(c).contract == "computed in float32, the gate within 0.000122 (declared)");
  c.contract["gate_error"] = 0.0;
  CHECK(message_of(c) ==
        "memory.h5: /sigmoid/contract attribute gate_error is 0; a number above 0 and below 1 is expected");
}

TEST_CASE(
    "a gate whose tail is lost to the roundings of 1 has a name, and passes with the key that it names") {
  const auto gate = [](double x) { return 0.5f + 0.5f * std::tanh(static_cast<float>(x) / 2); };
  Case c = dump(
      "silu", "", DType::float32, [&](double x) { return x * gate(x); },
      [](double x) { return sigmoid(x) * (1 + x * (1 - sigmoid(x))); }, 12);
  CHECK_THAT(first_cause(c), Catch::Matchers::StartsWith("the sigmoid is off by up to ") &&
                                 Catch::Matchers::EndsWith(" however small it is: contract key gate_error"));
  c.contract["gate_error"] = 0x1p-24;
  CHECK(judged(c).verdict == Verdict::pass);
}
