// What is said of activations that fail: each planted fault has its name, and not another's.
#include <algorithm>
#include <cmath>
#include <string>

#include "ref/activation.hpp"
#include "tests/catch.hpp"
#include "tests/emulate/judged.hpp"
#include "tests/verify/activation_dump.hpp"

namespace {

using namespace attest;
using namespace attest::emulate;
using ref::Activation;

constexpr DType elements[] = {DType::float16, DType::bfloat16, DType::float32};

double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}

Function value(Activation kind) {
  return [kind](double x) { return ref::activation(kind, x); };
}
Function slope(Activation kind) {
  return [kind](double x) { return ref::activation_derivative(kind, x); };
}

}  // namespace

TEST_CASE("incomplete derivatives of activations have names") {
  const auto silu = Activation::silu, erf = Activation::gelu_erf, s = Activation::sigmoid;
  for (const DType element : elements) {
    INFO(format_of(element).name);
    const auto of_silu = [&](const Function& g) {
      return first_cause(dump("silu", "", element, value(silu), g));
    };
    CHECK(of_silu(sigmoid) == "a derivative of the factor x alone");
    CHECK(of_silu([&](double x) { return slope(silu)(value(silu)(x)); }) == "a derivative at y, not at x");
    CHECK(first_cause(dump("gelu", "none", element, value(erf), [](double x) {
            return std::erfc(-x / std::sqrt(2)) / 2;
          })) == "a derivative of the factor x alone");
    CHECK(first_cause(dump("sigmoid", "", element, value(s), [](double x) {
            return sigmoid(x) * sigmoid(x);
          })) == "y^2 for the derivative y (1 - y)");
    Case c = dump("silu", "", element, value(silu), slope(silu));
    for (Index n = 0; n < 2000; ++n)
      c.out.at("dx").values[n] = round_to(slope(silu)(c.in.at("x").values[n]), element);
    CHECK(first_cause(c) == "dx without dy");
  }
}

TEST_CASE("another factor in the sigmoid is named by its value") {
  for (const DType element : elements) {
    for (const auto& [op, approximate] : {std::pair{"gelu", "quick"}, std::pair{"silu", ""}}) {
      const auto with = [&](double a) {
        return first_cause(dump(
            op, approximate, element, [a](double x) { return x * sigmoid(a * x); },
            [a](double x) {
              const double s = sigmoid(a * x);
              return s * (1 + a * x * (1 - s));
            }));
      };
      INFO(format_of(element).name << " " << op);
      CHECK(with(1.7) == "x sigmoid(1.7 x)");
      CHECK(with(1.5) == "x sigmoid(1.5 x)");
    }
  }
}

TEST_CASE("stages of an activation in narrower formats are named") {
  for (const DType element : elements) {
    for (const DType narrow : {DType::float16, DType::bfloat16}) {
      const std::string in_narrow = " in " + std::string(format_of(narrow).name);
      const auto gated = [&](const std::string& op, const std::string& approximate, Activation kind) {
        return first_cause(dump(
            op, approximate, element,
            [&](double x) { return x * (x == 0 ? 0 : round_to(ref::activation(kind, x) / x, narrow)); },
            slope(kind)));
      };
      INFO(format_of(element).name << in_narrow);
      CHECK(gated("gelu", "none", Activation::gelu_erf) == "Phi(x)" + in_narrow);
      CHECK(gated("gelu", "tanh", Activation::gelu_tanh) == "1 + tanh" + in_narrow);
      CHECK(gated("silu", "", Activation::silu) == "the sigmoid" + in_narrow);
    }
    if (element == DType::float32) continue;
    const auto rounded = [element](double x) { return round_to(x, element); };
    Case c = dump(
        "gelu", "quick", element, [&](double x) { return x * rounded(sigmoid(rounded(1.702 * x))); },
        slope(Activation::gelu_quick));
    c.out.erase("dx");
    CHECK(first_cause(c) ==
          "every operation in " + std::string(format_of(element).name) + ": contract key compute_dtype");
    // As XLA compiles it for a CPU.
    c = dump(
        "silu", "", element, [&](double x) { return x * rounded(1 / rounded(1 + rounded(std::exp(-x)))); },
        slope(Activation::silu));
    c.out.erase("dx");
    CHECK(first_cause(c) == "every operation, and exp, in " + std::string(format_of(element).name) +
                                ": contract key compute_dtype");
  }
}

TEST_CASE("few wrong elements of an activation do not look like its arithmetic") {
  for (const DType element : elements) {
    Case c = dump("silu", "", element, value(Activation::silu), slope(Activation::silu));
    for (const Index at : {70, 207, 503})
      c.out.at("y").values[at] *= 1 + (element == DType::float32 ? 4096 : 64) * unit_roundoff(element);
    INFO(format_of(element).name);
    CHECK(first_cause(c) == "none");
  }
}

TEST_CASE("constants of an activation that are too short are named by their digits") {
  const auto tanh_form = [](double a, double c) {
    return [a, c](double x) { return x / (1 + std::exp(-2 * a * (x + c * x * x * x))); };
  };
  const auto of_y = [](const std::string& approximate, const Function& f) {
    Case c = dump("gelu", approximate, DType::float32, f, slope(Activation::gelu_tanh));
    c.out.erase("dx");
    return first_cause(c);
  };
  CHECK(of_y("tanh", tanh_form(0.7978845608, 0.0447)) == "0.0447 in the place of 0.044715");
  CHECK(of_y("tanh", tanh_form(0.798, 0.044715)) == "0.798 in the place of sqrt(2/pi)");
  CHECK(of_y("none", [](double x) { return x * std::erfc(-0.7071 * x) / 2; }) ==
        "erf(0.7071 x), not erf(x / sqrt(2))");
  CHECK(of_y("none", [](double x) { return 0.99 * value(Activation::gelu_erf)(x); }) == "y times 0.99");
}

TEST_CASE("derivatives with a factor wrong or missing are named") {
  for (const DType element : elements) {
    const auto of_silu = [&](const Function& g) {
      return first_cause(dump("silu", "", element, value(Activation::silu), g));
    };
    INFO(format_of(element).name);
    CHECK(of_silu([](double x) { return sigmoid(x) + x * (1 - sigmoid(x)); }) ==
          "the second term of the derivative without the sigmoid");
    CHECK(of_silu([](double x) { return sigmoid(x) + 0.7 * x * sigmoid(x) * (1 - sigmoid(x)); }) ==
          "the second term of the derivative times 0.7");
    CHECK(first_cause(dump("gelu", "quick", element, value(Activation::gelu_quick), [](double x) {
            const double s = sigmoid(1.702 * x);
            return s + x * s * (1 - s);
          })) == "the second term of the derivative without the factor 1.702");
    CHECK(first_cause(dump("gelu", "tanh", element, value(Activation::gelu_tanh), [](double x) {
            const double a = ref::gelu_tanh_scale, c = ref::gelu_tanh_cubic;
            const double t = std::tanh(a * (x + c * x * x * x));
            return (1 + t) / 2 + x / 2 * (1 - t * t) * a * (1 + c * x * x);
          })) == "x^2 in place of 3 x^2 in the derivative");
  }
}

TEST_CASE("elements of an activation that are those of other places are named") {
  for (const DType element : elements) {
    Case c = dump("silu", "", element, value(Activation::silu), slope(Activation::silu));
    for (const char* name : {"y", "dx"})
      for (Index at = 1024; at < 2000; ++at) c.out.at(name).values[at] = c.out.at(name).values[at - 1024];
    INFO(format_of(element).name);
    CHECK(first_cause(c) == "elements at their index modulo 1024");
  }
}

TEST_CASE("an activation by an approximation is told from one that errs by chance") {
  const auto with = [](auto error) {
    test::Random random(3);
    Case c = dump(
        "gelu", "none", DType::float32,
        [&](double x) { return x * (std::erfc(-x / std::sqrt(2)) / 2 + error(x, random)); },
        slope(Activation::gelu_erf));
    c.out.erase("dx");
    return first_cause(c);
  };
  CHECK(with([](double x, test::Random&) {
          return 1e-5 * std::sin(5 * x);
        }).starts_with("erf by an approximation that is off by up to"));
  CHECK(with([](double, test::Random& random) { return 1e-5 * random.symmetric(); }) == "none");
}

TEST_CASE("gradients of an activation by the dy of other elements are named") {
  for (const DType element : elements) {
    const auto cause = [&](Index first, auto from) {
      Case c = dump("sigmoid", "", element, value(Activation::sigmoid), slope(Activation::sigmoid));
      for (auto* tensors : {&c.in, &c.out})
        for (auto& [name, tensor] : *tensors) tensor.shape = {20, 100};
      for (Index at = first; at < 2000; ++at)
        c.out.at("dx").values[at] = round_to(
            c.in.at("dy").values[from(at)] * slope(Activation::sigmoid)(c.in.at("x").values[at]), element);
      return first_cause(c);
    };
    INFO(format_of(element).name);
    CHECK(cause(640, [](Index at) { return at - 48; }) == "elements 48 before, of dy alone");
    CHECK(cause(0, [](Index at) { return at % 4 < 2 ? at : at ^ 1; }) ==
          "neighbouring elements exchanged, of dy alone, in columns 2..3 of every 4");
    CHECK(cause(0, [](Index at) { return at ^ 3; }) == "groups of 4 elements reversed, of dy alone");
  }
}

TEST_CASE("elements of an activation that are taken twice or copied are named") {
  for (const DType element : elements) {
    Case right = dump("gelu", "tanh", element, value(Activation::gelu_tanh), slope(Activation::gelu_tanh));
    right.out.erase("dx");
    right.in.erase("dy");
    // Of large numbers y is x.
    for (Index at = 1990; at < 2000; ++at) {
      right.in.at("x").values[at] = -0.5;
      right.out.at("y").values[at] = round_to(value(Activation::gelu_tanh)(-0.5), element);
    }
    const auto cause = [&](Index first, const Function& f) {
      Case c = right;
      for (Index at = first; at < 2000; ++at)
        c.out.at("y").values[at] = round_to(f(c.in.at("x").values[at]), element);
      return first_cause(c);
    };
    const Function once = value(Activation::gelu_tanh), copy = [](double x) { return x; };
    INFO(format_of(element).name);
    CHECK(cause(1950, [&](double x) { return once(round_to(once(x), element)); }) ==
          "the activation taken twice");
    CHECK(cause(1993, copy) == "y is x, copied as it is, in the last 7 elements");
    CHECK(cause(1999, copy) == "y is x, copied as it is, in the last element");
    CHECK(cause(0, copy) == "y is x, copied as it is");
  }
}

TEST_CASE("arguments and denominators of an activation in 16 bits are named") {
  for (const DType narrow : {DType::float16, DType::bfloat16}) {
    const std::string in_narrow = " in " + std::string(format_of(narrow).name);
    const auto rounded = [narrow](double x) { return round_to(x, narrow); };
    const auto cause = [](const std::string& op, const Function& f, const Function& g) {
      Case c = dump(op, op == "gelu" ? "none" : "", DType::float32, f, g);
      c.out.erase("dx");
      return first_cause(c);
    };
    INFO(in_narrow);
    CHECK(cause(
              "gelu", [&](double x) { return x * std::erfc(-rounded(x / std::sqrt(2))) / 2; },
              slope(Activation::gelu_erf)) == "the argument of erf" + in_narrow);
    CHECK(cause(
              "sigmoid", [&](double x) { return 1 / rounded(1 + rounded(std::exp(-x))); },
              slope(Activation::sigmoid)) == "exp and 1 + exp" + in_narrow);
    CHECK(cause(
              "silu", [&](double x) { return x / rounded(1 + std::exp(-x)); }, slope(Activation::silu)) ==
          "1 + exp" + in_narrow);
  }
}

TEST_CASE("another function is not an approximation, and no advice that cannot be followed is given") {
  const auto mish = [](double x) { return x * std::tanh(std::log1p(std::exp(x))); };
  for (const DType element : elements) {
    Case c = dump("silu", "", element, mish, sigmoid);
    c.out.erase("dx");
    INFO(format_of(element).name);
    CHECK(first_cause(c) == "y, which is another function of x");
  }
  Case c = dump("gelu", "tanh", DType::float32, value(Activation::gelu_tanh), slope(Activation::gelu_tanh));
  c.out.erase("dx");
  Tensor &x = c.in.at("x"), &y = c.out.at("y");
  for (Index n = 0; n < std::ssize(x.values); ++n) {
    x.values[n] = round_to(x.values[n] * 0x1p-20, DType::float32);
    y.values[n] = round_to(value(Activation::gelu_tanh)(x.values[n]), DType::float16);
  }
  const CaseFindings findings = judged(c);
  REQUIRE(!findings.diagnosis.empty());
  // float16 does not hold x: nobody could declare it.
  for (const DiagnosisEntry& entry : findings.diagnosis) {
    CHECK(entry.cause.find("compute_dtype") == std::string::npos);
    CHECK(entry.cause.find("approximation") == std::string::npos);
  }
  CHECK(std::ranges::any_of(findings.diagnosis, [](const DiagnosisEntry& entry) {
    return entry.cause == "y stored in float16 on the way";
  }));
}

TEST_CASE("stores that cut off have no other name") {
  for (const DType element : {DType::float16, DType::bfloat16}) {
    Case c = dump("silu", "", element, value(Activation::silu), slope(Activation::silu));
    for (Index n = 0; n < std::ssize(c.in.at("x").values); ++n)
      c.out.at("y").values[n] =
          round_to(value(Activation::silu)(c.in.at("x").values[n]), element, Rounding::toward_zero);
    INFO(format_of(element).name);
    CHECK(first_cause(c) == "y cut off instead of rounded");
  }
}

TEST_CASE("a derivative without its first term has a name") {
  for (const DType element : elements) {
    INFO(format_of(element).name);
    CHECK(first_cause(dump("silu", "", element, value(Activation::silu), [](double x) {
            return x * sigmoid(x) * (1 - sigmoid(x));
          })) == "a derivative without its first term");
  }
}
