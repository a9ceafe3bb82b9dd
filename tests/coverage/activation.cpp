// Features of gelu, silu and sigmoid.
#include <cmath>

#include "tests/coverage/feature.hpp"
#include "tests/coverage/tensors.hpp"
#include "tests/oracle/activation.hpp"

namespace attest::coverage {
namespace {

using ref::Activation;

Activation kind_of(const Case& c) {
  if (c.op == "silu") return Activation::silu;
  if (c.op == "sigmoid") return Activation::sigmoid;
  const std::string form = text_of(c, "approximate", "none");
  return form == "tanh"    ? Activation::gelu_tanh
         : form == "quick" ? Activation::gelu_quick
                           : Activation::gelu_erf;
}

/// How much an argument that is a few roundings off moves exp(-w), as a multiple of them: |w|, or x^2 / 2.
long double conditioning(Activation kind, long double x) {
  const long double size = std::abs(x);
  if (kind == Activation::gelu_erf) return x * x;
  return kind == Activation::gelu_tanh ? 2 * (size + size * size * size / 20) : 2 * size;
}

Answers answers(const Case& c) {
  const Activation kind = kind_of(c);
  const Tensor &x = c.in.at("x"), *dy = c.input("dy");
  Answers all;
  for (const auto& [name, tensor] : c.out) {
    Answer& answer = all.emplace(name, Answer(tensor)).first->second;
    for (Index at = 0; at < x.size(); ++at) {
      const long double f = oracle::activation(kind, x.values[at]), a = x.values[at];
      const long double slope = oracle::activation_derivative(kind, x.values[at]);
      // At most 20 roundings, half of them in an argument; below 0, the oracle of erf takes 1/2 less a
      // series.
      const long double unit = 20 * oracle_unit * (1 + conditioning(kind, a));
      const long double cut = kind == Activation::gelu_erf && a < 0 && a > -3 ? 20 * oracle_unit : 0;
      if (name == "y") {
        answer.value[at] = f;
        answer.error[at] = unit * std::abs(f) + cut * std::abs(a);
        continue;
      }
      // f' = gate + term: near a zero of f' both are of the size of the gate f / x.
      const long double gate = kind == Activation::sigmoid || a == 0 ? slope : f / a;
      const long double g = dy->values[at];
      answer.value[at] = g * slope;
      answer.error[at] = std::abs(g) * (unit * (std::abs(gate) + std::abs(slope - gate)) + cut);
    }
  }
  return all;
}

Feature feature(const std::string& name, const std::string& op, DType element, Shape shape, Attributes spec) {
  test::Random random(seed_of(op + name));
  Feature f{name, {}};
  f.c.op = op;
  f.c.spec = std::move(spec);
  f.c.in["x"] = normal(random, element, shape, 2.5);
  f.c.in["dy"] = normal(random, element, shape);
  f.c.in["x"].values.front() = 0;
  f.c.out["y"] = f.c.out["dx"] = blank(element, shape);
  return f;
}

std::vector<Feature> with_common(std::vector<Feature> features, const std::string& op, DType element) {
  Feature forward = feature("forward only, one axis", op, element, {77}, {});
  forward.c.in.erase("dy");
  forward.c.out.erase("dx");
  features.push_back(forward);
  Feature declared = feature("computed in float64", op, element, {9, 11}, {});
  declared.c.contract["compute_dtype"] = "float64";
  features.push_back(declared);
  Feature other = feature("computed in float64, by the key's other name", op, element, {9, 11}, {});
  other.c.contract["accumulate"] = "float64";
  features.push_back(other);
  Feature table = feature("a gate within 1e-5", op, element, {9, 11}, {});
  table.c.contract["gate_error"] = 1e-5;
  features.push_back(table);
  return features;
}

std::vector<Feature> gelu_features(DType element) {
  const Shape shape = {3, 5, 9};
  return with_common({feature("erf", "gelu", element, shape, {}),
                      feature("the tanh form", "gelu", element, shape, {{"approximate", "tanh"}}),
                      feature("the quick form", "gelu", element, shape, {{"approximate", "quick"}})},
                     "gelu", element);
}

std::vector<Feature> silu_features(DType element) {
  return with_common({feature("silu", "silu", element, {3, 5, 9}, {})}, "silu", element);
}

std::vector<Feature> sigmoid_features(DType element) {
  return with_common({feature("sigmoid", "sigmoid", element, {3, 5, 9}, {})}, "sigmoid", element);
}

constexpr std::string_view oracle_file = "tests/oracle/activation.cpp";

}  // namespace

const Suite gelu_suite = {"gelu", oracle_file, gelu_features, answers};
const Suite silu_suite = {"silu", oracle_file, silu_features, answers};
const Suite sigmoid_suite = {"sigmoid", oracle_file, sigmoid_features, answers};

}  // namespace attest::coverage
