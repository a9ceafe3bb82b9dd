// The zoos of faults of activations: gelu in its three forms, silu and sigmoid, and their gradients.
#include "tests/emulate/activation.hpp"
#include "tests/faults/kernel_zoo.hpp"

namespace attest::faults {
namespace {

using emulate::Curve;
using emulate::Misplaced;
using emulate::Slope;
using K = emulate::ActivationKernel;
using ActivationZoo = KernelZoo<K>;
using Pass = emulate::ActivationPass;

ActivationZoo zoo_of(const std::string& op) {
  return ActivationZoo(op, [](const Case& inputs, DType, const K& kernel) {
    return emulate::activation_dump(inputs, kernel);
  });
}

Context context_of(const std::string& name, const std::string& set = "", const std::string& with = "") {
  return {name, "", "", set, with, {}};  // no shape: one recipe has its own
}

/// Faults of one pass, which are the same in values and in gradients.
class PassFaults {
 public:
  PassFaults(ActivationZoo& zoo, Pass K::*pass) : zoo_(zoo), pass_(pass) {}

  void add(const std::string& name, void (*change)(Pass& pass)) const {
    zoo_.add(name, [change, pass = pass_](K& kernel, DType) { change(kernel.*pass); });
  }
  /// `function`: erf, tanh or exp; `gate`: what x is multiplied by, or "".
  void evaluation(const std::string& function, const std::string& gate) const {
    add(function + " off by 1e-2", [](Pass& p) { p.function_error = 1e-2; });
    add(function + " off by 1e-3", [](Pass& p) { p.function_error = 1e-3; });
    add(function + " off by 1e-4", [](Pass& p) { p.function_error = 1e-4; });
    add(function + " off by 1e-5", [](Pass& p) { p.function_error = 1e-5; });
    add(function + " in float16", [](Pass& p) { p.function = DType::float16; });
    add(function + " in bfloat16", [](Pass& p) { p.function = DType::bfloat16; });
    if (!gate.empty()) {
      add(gate + " in float16", [](Pass& p) { p.gate = DType::float16; });
      add(gate + " in bfloat16", [](Pass& p) { p.gate = DType::bfloat16; });
    }
    add("every operation in float16", [](Pass& p) { p.every = DType::float16; });
    add("every operation in bfloat16", [](Pass& p) { p.every = DType::bfloat16; });
    // Farther out 1 + tanh and 1 + erf are 0 in float32, and an honest kernel gives 0.
    add("cut off at 3", [](Pass& p) { p.cut_off = 3; });
    if (function == "tanh") add("cut off at 4", [](Pass& p) { p.cut_off = 4; });
    if (function != "tanh") add("cut off at 5", [](Pass& p) { p.cut_off = 5; });
    if (function == "exp") add("cut off at 9", [](Pass& p) { p.cut_off = 9; });
  }
  /// The argument of the function.
  void argument() const {
    add("the argument times 1.01", [](Pass& p) { p.argument_factor = 1.01; });
    add("the argument times 1.0001", [](Pass& p) { p.argument_factor = 1.0001; });
    add("the argument in float16", [](Pass& p) { p.argument = DType::float16; });
    add("the argument in bfloat16", [](Pass& p) { p.argument = DType::bfloat16; });
  }
  /// Loads, stores and places.
  void memory(const std::string& result) const {
    add("x in bfloat16", [](Pass& p) { p.x = DType::bfloat16; });
    add("x in float8_e4m3fn", [](Pass& p) { p.x = DType::float8_e4m3fn; });
    add(result + " rounded through bfloat16", [](Pass& p) { p.stored = DType::bfloat16; });
    add(result + " rounded through float16", [](Pass& p) { p.stored = DType::float16; });
    add(result + " in float8_e4m3fn", [](Pass& p) { p.stored = DType::float8_e4m3fn; });
    add(result + " cut off", [](Pass& p) { p.is_cut_off = true; });
    add("subnormal results are 0", [](Pass& p) { p.flushes_results = true; });
    add("last elements not written", [](Pass& p) { p.misplaced = Misplaced::last_not_written; });
    add("elements exchanged in pairs", [](Pass& p) { p.misplaced = Misplaced::pairs_exchanged; });
    add("a block twice", [](Pass& p) { p.misplaced = Misplaced::block_repeated; });
  }

 private:
  ActivationZoo& zoo_;
  Pass K::*pass_;
};

void curve(ActivationZoo& zoo, const std::string& name, Curve curve) {
  zoo.add(name + " in its place", [curve](K& k, DType) { k.forward.curve = curve; });
}
void derivative_of(ActivationZoo& zoo, const std::string& name, Curve curve) {
  zoo.add("derivative of " + name, [curve](K& k, DType) { k.backward.curve = curve; });
}
void slope(ActivationZoo& zoo, const std::string& name, Slope slope) {
  zoo.add(name, [slope](K& k, DType) { k.slope = slope; });
}

/// Of derivatives of any activation.
void wrong_gradients(ActivationZoo& zoo) {
  slope(zoo, "derivative at y", Slope::at_y);
  slope(zoo, "the value for the derivative", Slope::value);
  slope(zoo, "dy passed on", Slope::one);
  zoo.add("dx without dy", [](K& k, DType) { k.lacks_dy = true; });
  zoo.add("x and dy exchanged", [](K& k, DType) { k.exchanges_x_and_dy = true; });
  zoo.add("dy in bfloat16", [](K& k, DType) { k.dy = DType::bfloat16; });
}
/// Of derivatives of x gate(x).
void wrong_terms(ActivationZoo& zoo) {
  slope(zoo, "derivative of the factor x alone", Slope::factor_alone);
  slope(zoo, "derivative of the gate alone", Slope::gate_alone);
}

struct GeluForm {
  std::string name, function, gate;
  Curve curve;
};
const GeluForm gelu_forms[] = {{"erf", "erf", "Phi(x)", Curve::gelu_erf},
                               {"tanh", "tanh", "1 + tanh", Curve::gelu_tanh},
                               {"quick", "exp", "the sigmoid", Curve::gelu_quick}};

std::string setting_of(const GeluForm& form) {
  return form.name == "erf" ? "" : "approximate=" + form.name;
}

void gelu_values(ActivationZoo& zoo, const GeluForm& form) {
  const PassFaults faults(zoo, &K::forward);
  zoo.context(context_of(form.name == "erf" ? "plain" : form.name, setting_of(form)));
  for (const GeluForm& other : gelu_forms)
    if (other.curve != form.curve) curve(zoo, "the " + other.name + " form", other.curve);
  curve(zoo, "SiLU", Curve::silu);
  curve(zoo, "ReLU", Curve::relu);
  faults.add("the gate alone", [](Pass& p) { p.lacks_x = true; });
  faults.evaluation(form.function, form.gate);
  faults.argument();
  faults.add("constants in float16", [](Pass& p) { p.constants = DType::float16; });
  faults.add("constants in bfloat16", [](Pass& p) { p.constants = DType::bfloat16; });
  if (form.curve == Curve::gelu_tanh) {
    faults.add("0.0447 for 0.044715", [](Pass& p) { p.cubic = 0.0447; });
    faults.add("no cubic term", [](Pass& p) { p.cubic = 0; });
    faults.add("tanh of an infinite exp", [](Pass& p) { p.has_naive_tanh = true; });
  }
  if (form.curve == Curve::gelu_quick)
    faults.add("exp of +x, infinite far out", [](Pass& p) { p.overflows = true; });
  if (form.curve != Curve::gelu_erf) return;
  faults.add("no factor 1/2", [](Pass& p) { p.gate_factor = 2; });
  faults.memory("y");
  faults.add("subnormal inputs are 0", [](Pass& p) { p.flushes_inputs = true; });
}

void gelu_gradients(ActivationZoo& zoo, const GeluForm& form) {
  const PassFaults faults(zoo, &K::backward);
  zoo.context(context_of(form.name == "erf" ? "backward" : "backward_" + form.name, setting_of(form), "dy"));
  for (const GeluForm& other : gelu_forms)
    if (other.curve != form.curve) derivative_of(zoo, "the " + other.name + " form", other.curve);
  derivative_of(zoo, "ReLU", Curve::relu);
  wrong_terms(zoo);
  slope(zoo, "no derivative of the argument", Slope::no_inner);
  faults.evaluation(form.function, form.curve == Curve::gelu_erf ? "Phi(x)" : form.gate);
  if (form.curve == Curve::gelu_tanh)
    faults.add("tanh of an infinite exp", [](Pass& p) { p.has_naive_tanh = true; });
  if (form.curve != Curve::gelu_erf) {
    faults.add("0 times infinity far out", [](Pass& p) { p.overflows = true; });
    return;
  }
  wrong_gradients(zoo);
  faults.memory("dx");
}

}  // namespace

Zoo gelu_zoo() {
  ActivationZoo zoo = zoo_of("gelu");
  for (const GeluForm& form : gelu_forms) gelu_values(zoo, form);
  for (const GeluForm& form : gelu_forms) gelu_gradients(zoo, form);
  return zoo.zoo();
}

Zoo silu_zoo() {
  ActivationZoo zoo = zoo_of("silu");
  zoo.context(context_of("plain"));
  const PassFaults forward(zoo, &K::forward), backward(zoo, &K::backward);
  curve(zoo, "GELU", Curve::gelu_erf);
  curve(zoo, "quick GELU", Curve::gelu_quick);
  curve(zoo, "ReLU", Curve::relu);
  curve(zoo, "hard swish", Curve::hard_swish);
  curve(zoo, "the sigmoid", Curve::sigmoid);
  forward.evaluation("exp", "the sigmoid");
  forward.argument();
  forward.add("exp of +x, infinite far out", [](Pass& p) { p.overflows = true; });
  forward.memory("y");
  forward.add("subnormal inputs are 0", [](Pass& p) { p.flushes_inputs = true; });
  zoo.context(context_of("backward", "", "dy"));
  derivative_of(zoo, "GELU", Curve::gelu_erf);
  derivative_of(zoo, "ReLU", Curve::relu);
  derivative_of(zoo, "hard swish", Curve::hard_swish);
  derivative_of(zoo, "the sigmoid", Curve::sigmoid);
  wrong_terms(zoo);
  wrong_gradients(zoo);
  backward.evaluation("exp", "the sigmoid");
  backward.add("exp of +x, infinite far out", [](Pass& p) { p.overflows = true; });
  backward.memory("dx");
  return zoo.zoo();
}

Zoo sigmoid_zoo() {
  ActivationZoo zoo = zoo_of("sigmoid");
  zoo.context(context_of("plain"));
  const PassFaults forward(zoo, &K::forward), backward(zoo, &K::backward);
  curve(zoo, "SiLU", Curve::silu);
  curve(zoo, "tanh", Curve::tanh);
  curve(zoo, "hard sigmoid", Curve::hard_sigmoid);
  forward.evaluation("exp", "");
  forward.argument();
  forward.add("exp of +x, infinite far out", [](Pass& p) { p.overflows = true; });
  forward.memory("y");
  zoo.context(context_of("backward", "", "dy"));
  derivative_of(zoo, "tanh", Curve::tanh);
  derivative_of(zoo, "hard sigmoid", Curve::hard_sigmoid);
  slope(zoo, "y^2 for y (1 - y)", Slope::square_of_y);
  slope(zoo, "1 - y for y (1 - y)", Slope::rest_of_y);
  wrong_gradients(zoo);
  backward.evaluation("exp", "");
  backward.add("exp of +x, infinite far out", [](Pass& p) { p.overflows = true; });
  backward.memory("dx");
  return zoo.zoo();
}

}  // namespace attest::faults
