// The records of gelu, silu and sigmoid: every honest formula passes, confused ones and low precision do not.
#include <cmath>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "ref/activation.hpp"
#include "tests/catch.hpp"
#include "tests/emulate/judged.hpp"
#include "tests/support/random.hpp"
#include "verify/bounds/activation.hpp"

namespace {

using namespace attest;
using namespace attest::emulate;
using test::Random;

const std::vector<DType> elements = {DType::float16, DType::bfloat16, DType::float32};
const double infinity = std::numeric_limits<double>::infinity();

/// Value and derivative at x, in float arithmetic: what a kernel computes before it stores.
struct Formula {
  std::string name;
  std::function<float(float)> y, slope;
};

struct Function {
  std::string name, approximate;
  std::vector<Formula> honest;
};

float sigmoid_by_exp(float x) {
  return 1 / (1 + std::exp(-x));
}
float sigmoid_by_exp2(float x) {
  return 1 / (1 + std::exp2(x * -1.44269504f));
}
float sigmoid_stable(float x) {
  const float e = std::exp(-std::abs(x));
  return x < 0 ? e / (1 + e) : 1 / (1 + e);
}

float inner(float x) {
  return 0.797884560802865f * (x + 0.044715f * x * x * x);
}
float inner_factored(float x) {
  return 0.797884560802865f * x * (1 + 0.044715f * (x * x));
}

using Gate = float (*)(float);
Formula gated(const std::string& name, Gate gate, float scale) {
  return {name, [=](float x) { return x * gate(scale * x); },
          [=](float x) {
            const float s = gate(scale * x);
            return s * (1 + scale * x * (1 - s));
          }};
}

float density(float x) {
  return 0.398942280401432f * std::exp(-0.5f * x * x);
}

std::vector<Function> ops() {
  const float root = 0.707106781186547f;
  return {
      {"gelu",
       "none",
       {{"1 + erf", [=](float x) { return 0.5f * x * (1 + std::erf(x * root)); },
         [=](float x) { return 0.5f * (1 + std::erf(x * root)) + x * density(x); }},
        {"erfc", [=](float x) { return 0.5f * x * std::erfc(-x * root); },
         [=](float x) { return 0.5f * std::erfc(-x * root) + x * density(x); }},
        {"erf + 1", [=](float x) { return 0.5f * x * (std::erf(x * root) + 1); },
         [=](float x) { return x * density(x) + 0.5f * std::erf(x * root) + 0.5f; }}}},
      {"gelu",
       "tanh",
       {{"1 + tanh", [](float x) { return 0.5f * x * (1 + std::tanh(inner(x))); },
         [](float x) {
           const float t = std::tanh(inner(x));
           const float v = 0.797884560802865f * (1 + 3 * 0.044715f * x * x);
           return 0.5f * (1 + t) + 0.5f * x * (1 - t * t) * v;
         }},
        {"sigmoid", [](float x) { return x * sigmoid_by_exp(2 * inner_factored(x)); },
         [](float x) {
           const float s = sigmoid_by_exp(2 * inner_factored(x));
           const float v = 2 * 0.797884560802865f * (1 + 3 * 0.044715f * x * x);
           return s + x * s * (1 - s) * v;
         }}}},
      {"gelu",
       "quick",
       {gated("exp", sigmoid_by_exp, 1.702f), gated("exp2", sigmoid_by_exp2, 1.702f),
        gated("stable", sigmoid_stable, 1.702f)}},
      {"silu",
       "",
       {gated("exp", sigmoid_by_exp, 1),
        gated("exp2", sigmoid_by_exp2, 1),
        gated("stable", sigmoid_stable, 1),
        {"x / (1 + exp)", [](float x) { return x / (1 + std::exp(-x)); },
         [](float x) {
           const float s = sigmoid_stable(x);
           return s + x * s * (1 - s);
         }}}},
      {"sigmoid",
       "",
       {{"exp", sigmoid_by_exp, [](float x) { return sigmoid_by_exp(x) * (1 - sigmoid_by_exp(x)); }},
        {"exp2", sigmoid_by_exp2, [](float x) { return sigmoid_by_exp2(x) * (1 - sigmoid_by_exp2(x)); }},
        {"stable", sigmoid_stable, [](float x) { return sigmoid_stable(x) * sigmoid_stable(-x); }}}},
  };
}

/// Numbers of every size and sign, those around the zeros and turns of the functions more often.
std::vector<double> points(DType element, double width) {
  Random random(3);
  std::vector<double> x = {0.0, -0.0, 1, -1};
  for (int e = -30; e < 5; ++e) x.insert(x.end(), {std::ldexp(1.1, e), -std::ldexp(1.1, e)});
  while (x.size() < 3000) x.push_back(width * random.symmetric());
  for (double& value : x) value = round_to(value, element);
  return x;
}

/// dx of a sigmoid from dy and y as stored, in float32; or every step in the element type, as PyTorch's
/// kernel.
enum class FromStored { no, in_float32, in_element_type };

double sigmoid_dx(double dy, double y, DType step) {
  const double rest = round_to(1 - y, step);
  return round_to(round_to(dy * rest, step) * y, step);
}

Case case_of(const Function& op, DType element, const Formula& formula, const std::vector<double>& x,
             FromStored from_stored = FromStored::no) {
  Case c;
  c.file = "memory.h5";
  c.name = op.name;
  c.op = op.name;
  if (op.name == "gelu") c.spec["approximate"] = op.approximate;
  const Tensor empty{std::string(format_of(element).name), element, {4, static_cast<Index>(x.size()) / 4}, x};
  Tensor &dy = c.in["dy"] = empty, &y = c.out["y"] = empty, &dx = c.out["dx"] = empty;
  c.in["x"] = empty;
  Random random(8);
  for (std::size_t n = 0; n < x.size(); ++n) {
    const float at = static_cast<float>(x[n]);
    dy.values[n] = round_to(random.symmetric(), element);
    y.values[n] = round_to(formula.y(at), element);
    const double gradient =
        from_stored == FromStored::no
            ? static_cast<float>(dy.values[n]) * formula.slope(at)
            : sigmoid_dx(dy.values[n], y.values[n],
                         from_stored == FromStored::in_float32 ? DType::float32 : element);
    dx.values[n] = round_to(gradient, element);
  }
  return c;
}

/// Values only: the faults of the gradient have their own test.
bool is_caught(const Function& op, DType element, const std::function<float(float)>& y) {
  Case c = case_of(op, element, {"", y, y}, points(element, 6));
  c.out.erase("dx");
  const Verdict verdict = judged(c).verdict;
  CHECK(verdict != Verdict::inconclusive);
  return verdict == Verdict::fail;
}

}  // namespace

TEST_CASE("every honest formula of an activation passes, and the bounds are tight", "[sweep]") {
  for (const Function& op : ops()) {
    for (const DType element : elements) {
      double worst_y = 0, worst_dx = 0;
      for (const Formula& formula : op.honest) {
        for (const double width : {3.0, 8.0, 30.0, 120.0}) {
          const CaseFindings findings = judged(case_of(op, element, formula, points(element, width)));
          INFO(op.name << " " << op.approximate << " by " << formula.name << ", " << format_of(element).name
                       << ", |x| < " << width << ": " << summary(findings));
          CHECK(findings.verdict == Verdict::pass);
          worst_y = std::max(worst_y, findings.outputs[0].worst_ratio);
          worst_dx = std::max(worst_dx, findings.outputs[1].worst_ratio);
        }
      }
      INFO(op.name << " " << op.approximate << ", " << format_of(element).name);
      const bool has_16_bits = format_of(element).bits == 16;
      CHECK(worst_y > (has_16_bits ? 0.9 : 0.15));
      if (op.name != "sigmoid") CHECK(worst_dx > (has_16_bits ? 0.6 : 0.1));  // it has a test of its own
    }
  }
}

TEST_CASE("a sigmoid's gradient may be formed from the stored sigmoid") {
  const Function sigmoid = ops().back();
  for (const DType element : elements) {
    double worst_dx = 0;
    for (const FromStored from : {FromStored::in_float32, FromStored::in_element_type}) {
      for (const double width : {3.0, 30.0}) {
        const Case c = case_of(sigmoid, element, sigmoid.honest[0], points(element, width), from);
        const CaseFindings findings = judged(c);
        INFO(summary(findings));
        CHECK(findings.verdict == Verdict::pass);
        worst_dx = std::max(worst_dx, findings.outputs[1].worst_ratio);
      }
    }
    CHECK(worst_dx > (format_of(element).bits == 16 ? 0.6 : 0.1));
  }
}

TEST_CASE("half of a small x may be formed in the element type of x") {
  const auto y = [](float x) {
    const double half = round_to(0.5 * x, DType::float16);
    return static_cast<float>(half) * (1 + std::erf(x * 0.707106781186547f));
  };
  const Formula formula = {"", y, ops()[0].honest[0].slope};
  const CaseFindings findings =
      judged(case_of(ops()[0], DType::float16, formula, points(DType::float16, 1e-4)));
  INFO(summary(findings));
  CHECK(findings.verdict == Verdict::pass);
  CHECK(findings.outputs[0].worst_ratio > 0.6);
}

TEST_CASE("every other form of an activation is caught in every element type") {
  for (const Function& op : ops()) {
    for (const Function& other : ops()) {
      if (op.name == other.name && op.approximate == other.approximate) continue;
      for (const DType element : elements) {
        INFO(op.name << op.approximate << " " << other.name << other.approximate << format_of(element).name);
        const Case c = case_of(op, element, other.honest[0], points(element, 6));
        const CaseFindings findings = judged(c);
        for (const OutputFindings& o : findings.outputs) CHECK(o.verdict == Verdict::fail);
      }
    }
  }
}

TEST_CASE("faults of activations are caught") {
  const auto in = [](DType dtype, float x) { return static_cast<float>(round_to(x, dtype)); };
  const auto half = [&](float x) { return in(DType::float16, x); };
  const std::vector<Function> all = ops();
  const Function &erf = all[0], &tanh = all[1], &quick = all[2], &silu = all[3], &sigmoid = all[4];
  struct Fault {
    std::string name;
    const Function& op;
    std::function<float(float)> y;
  };
  const float root = 0.707106781186547f;
  const auto tanh_form = [](float x, float scale, float cubic) {
    return 0.5f * x * (1 + std::tanh(scale * (x + cubic * x * x * x)));
  };
  const Fault faults[] = {
      {"without 1/2", erf, [=](float x) { return x * (1 + std::erf(x * root)); }},
      {"erf of x", erf, [](float x) { return 0.5f * x * (1 + std::erf(x)); }},
      {"erf in float16", erf, [=](float x) { return 0.5f * x * (1 + half(std::erf(x * root))); }},
      {"1 + erf in float16", erf, [=](float x) { return 0.5f * x * half(1 + std::erf(x * root)); }},
      {"1 + erf in bfloat16", erf,
       [=](float x) { return 0.5f * x * in(DType::bfloat16, 1 + std::erf(x * root)); }},
      {"erf off by 1e-4", erf, [=](float x) { return 0.5f * x * (1 + std::erf(x * root) * 0.9999f); }},
      {"0.0447 for 0.044715", tanh, [=](float x) { return tanh_form(x, 0.79788456f, 0.0447f); }},
      {"0.8 for sqrt(2/pi)", tanh, [=](float x) { return tanh_form(x, 0.8f, 0.044715f); }},
      {"0.7979 for sqrt(2/pi)", tanh, [=](float x) { return tanh_form(x, 0.7979f, 0.044715f); }},
      {"tanh in float16", tanh, [=](float x) { return 0.5f * x * (1 + half(std::tanh(inner(x)))); }},
      {"tanh off by 2^-11", tanh, [](float x) { return 0.5f * x * (1 + std::tanh(inner(x)) * 0.99951f); }},
      {"1.7 for 1.702", quick, [](float x) { return x * sigmoid_by_exp(1.7f * x); }},
      {"exp off by 1e-3", silu, [](float x) { return x / (1 + std::exp(-x) * 1.001f); }},
      {"exp off by 1e-4", silu, [](float x) { return x / (1 + std::exp(-x) * 1.0001f); }},
      {"exp in float16", silu, [=](float x) { return x / (1 + half(std::exp(-x))); }},
      {"sigmoid in float16", silu, [=](float x) { return x * half(sigmoid_by_exp(x)); }},
      {"sigmoid by tanh in float16", sigmoid, [=](float x) { return 0.5f + 0.5f * half(std::tanh(x / 2)); }},
      {"exp off by 1e-3", sigmoid, [](float x) { return 1 / (1 + std::exp(-x) * 1.001f); }},
      {"zeros", sigmoid, [](float) { return 0.0f; }},
  };
  for (const Fault& fault : faults) {
    for (const DType element : elements) {
      const std::string type{format_of(element).name};
      INFO(fault.op.name << ": " << fault.name << ", " << type);
      CHECK(is_caught(fault.op, element, fault.y));
    }
  }
}

TEST_CASE("faults of the gradients of activations are caught") {
  for (const Function& op : ops()) {
    for (const DType element : elements) {
      const Formula& good = op.honest[0];
      for (const auto& [name, slope] : std::map<std::string, std::function<float(float)>>{
               {"the value", good.y},
               {"1", [](float) { return 1.0f; }},
               {"half of it", [&](float x) { return good.slope(x) / 2; }},
               {"the gate only", [&](float x) { return x == 0 ? 0.5f : good.y(x) / x; }}}) {
        const CaseFindings findings = judged(case_of(op, element, {"", good.y, slope}, points(element, 6)));
        INFO(op.name << op.approximate << ", slope is " << name << ", " << format_of(element).name);
        CHECK(findings.verdict == Verdict::fail);
        CHECK(findings.outputs[0].verdict == Verdict::pass);
      }
    }
  }
}

TEST_CASE("bounds are finite, hold the reference, and shrink with the unit roundoff") {
  for (const ref::Activation kind :
       {ref::Activation::gelu_erf, ref::Activation::gelu_tanh, ref::Activation::gelu_quick,
        ref::Activation::silu, ref::Activation::sigmoid}) {
    for (const DType dtype : {DType::float16, DType::float32, DType::float64}) {
      const bounds::Arithmetic a({dtype, dtype, {dtype, 0, 0}, {dtype, 0, 0}});
      for (double x : {0.0, 1e-300, 0.1, 1.0, 5.0, 9.0, 12.0, 40.0, 1e4, 1e10, 1e30, 1e150, 1e300}) {
        for (const double sign : {1.0, -1.0}) {
          x = std::copysign(x, sign);
          INFO(static_cast<int>(kind) << " at " << x << " in " << format_of(dtype).name);
          const bounds::Evaluated y = bounds::activation(kind, x, a, 0);
          const bounds::Evaluated d = bounds::activation_derivative(kind, x, a, 0, dtype);
          CHECK(y.worst < infinity);
          CHECK(d.worst < infinity);
          const double share = 2 * 0x1p-53 / a.u;  // of both evaluations
          CHECK(std::abs(y.value - ref::activation(kind, x)) <=
                share * y.worst + 0x1p-50 * std::abs(y.value) + 0x1p-1020);
          CHECK(std::abs(d.value - ref::activation_derivative(kind, x)) <=
                share * d.worst + 0x1p-50 * std::abs(d.value) + 0x1p-1020);
          // A value of 1 is not off by more than 20 roundings.
          if (std::abs(x) <= 1) CHECK(y.worst <= 20 * a.u + 2 * a.flush);
        }
      }
    }
  }
}

TEST_CASE("a contract too loose to tell the forms apart is inconclusive") {
  const Function erf = ops()[0];
  Case c = case_of(erf, DType::float16, erf.honest[0], points(DType::float16, 3));
  REQUIRE(judged(c).verdict == Verdict::pass);
  c.contract["compute_dtype"] = std::string("float16");
  const CaseFindings findings = judged(c);
  CHECK(findings.verdict == Verdict::inconclusive);
  CHECK(summary(findings).find("the tanh form of GELU would pass too") != std::string::npos);
}

TEST_CASE("subnormal results of subnormal numbers are no more scattered than a store makes them") {
  Random random(5);
  std::vector<double> x(1 << 14);
  for (double& value : x) value = round_to(1e-5 * random.symmetric(), DType::float16);
  for (const Function& op : ops()) {
    if (op.name == "sigmoid") continue;
    for (const Formula& formula : op.honest) {
      Case c = case_of(op, DType::float16, formula, x);
      c.in["x"].shape = c.in["dy"].shape = c.out["y"].shape = c.out["dx"].shape = {128, 128};
      const CaseFindings findings = judged(c);
      INFO(op.name << " by " << formula.name << ": " << summary(findings));
      CHECK(findings.verdict == Verdict::pass);
    }
  }
}

TEST_CASE("malformed activation cases are named") {
  const Function erf = ops()[0];
  const Case good = case_of(erf, DType::float16, erf.honest[0], points(DType::float16, 6));
  REQUIRE(message_of(good) == "no complaint");
  const auto error = [&](const std::function<void(Case&)>& change) {
    Case c = good;
    change(c);
    return message_of(c);
  };
  CHECK(error([](Case& c) { c.in["x"].values[751] = infinity; }) ==
        "memory.h5: /gelu/in/x holds inf at [1, 1]; finite values are expected");
  CHECK(error([](Case& c) { c.in["dy"].values[0] = std::nan(""); }) ==
        "memory.h5: /gelu/in/dy holds nan at [0, 0]; finite values are expected");
  CHECK(error([](Case& c) { c.out["y"].shape = {3000}; }) ==
        "memory.h5: /gelu/out/y has shape [3000], in/x has [4, 750]; they must be equal");
  CHECK(error([](Case& c) { c.in.erase("dy"); }) == "memory.h5: /gelu/out/dx is given, but in/dy is missing");
  CHECK(error([](Case& c) { c.spec["approximate"] = std::string("fast"); }) ==
        "memory.h5: /gelu/spec attribute approximate is \"fast\"; accepted: none, tanh, quick");
  CHECK(error([](Case& c) { c.spec["alpha"] = 1.0; }) ==
        "memory.h5: /gelu/spec attribute alpha is not known; accepted: approximate");
  CHECK(
      error([](Case& c) { c.contract["compute_dtype"] = std::string("bfloat16"); }) ==
      "memory.h5: /gelu/contract attribute compute_dtype is bfloat16, which does not hold all values of in/x "
      "(float16); a type that does is expected");
  CHECK(error([](Case& c) { c.op = "silu"; }) ==
        "memory.h5: /gelu/spec attribute approximate is not known; accepted: ");
}
