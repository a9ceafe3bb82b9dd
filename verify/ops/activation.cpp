// The records of `gelu`, `silu` and `sigmoid`: one function of every element.
#include <algorithm>
#include <cmath>

#include "core/invalid_case.hpp"
#include "verify/axes/extents.hpp"
#include "verify/bounds/activation.hpp"
#include "verify/contract/keys.hpp"
#include "verify/inputs/make_inputs.hpp"
#include "verify/keys.hpp"
#include "verify/ops/activation/problem.hpp"
#include "verify/ops/ops.hpp"
#include "verify/ops/sample.hpp"
#include "verify/recheck.hpp"
#include "verify/text.hpp"

namespace attest {
namespace {

using ref::Activation;

constexpr Index sampled_elements = 4096;  // of a case, for recheck and decoys

Activation read_kind(const Case& c) {
  KeyReader keys(c, "spec", c.spec);
  Activation kind = c.op == "silu" ? Activation::silu : Activation::sigmoid;
  if (c.op == "gelu") {
    kind = keys.choice<Activation>(
        "approximate",
        {{"none", Activation::gelu_erf}, {"tanh", Activation::gelu_tanh}, {"quick", Activation::gelu_quick}},
        Activation::gelu_erf);
  }
  keys.finish();
  return kind;
}

/// Every rounding in the compute format.
bounds::Arithmetic arithmetic_of(DType dtype) {
  return bounds::Arithmetic({dtype, dtype, {dtype, 0, 0}, {dtype, 0, 0}});
}

}  // namespace

ActivationProblem::ActivationProblem(const Case& c)
    : Problem(c),
      case_(c),
      x_(c.in.at("x")),
      compute_(read_compute_dtype_among(c, contract_keys_, wide_type(*x_.dtype))),
      gate_error_(contract_keys_.relative_error("gate_error").value_or(0)),
      kind_(read_kind(c)) {
  contract_keys_.finish();
  const Format &computed = format_of(compute_), &given = format_of(*x_.dtype);
  if (computed.precision < given.precision || computed.emax < given.emax || computed.emin > given.emin) {
    throw InvalidCase(c.object("contract") + " attribute compute_dtype is " + std::string(computed.name) +
                      ", which does not hold all values of in/x (" + x_.type_name +
                      "); a type that does is expected");
  }
  const auto check = [&](const std::string& path, const Tensor* tensor, bool has_values) {
    if (!tensor) return;
    if (tensor->shape != x_.shape) {
      throw InvalidCase(c.object(path) + " has shape " + shape_text(tensor->shape) + ", in/x has " +
                        shape_text(x_.shape) + "; they must be equal");
    }
    for (Index at = 0; has_values && at < tensor->size(); ++at) {
      if (std::isfinite(tensor->values[at])) continue;
      throw InvalidCase(c.object(path) + " holds " + exact_text(tensor->values[at]) + " at " +
                        index_text(*tensor, at) + "; finite values are expected");
    }
  };
  check("in/x", &x_, true);
  check("in/dy", c.input("dy"), true);
  check("out/y", c.output("y"), false);
  check("out/dx", c.output("dx"), false);
  if (c.out.contains("dx") && !c.in.contains("dy"))
    throw InvalidCase(c.object("out/dx") + " is given, but in/dy is missing");
}

// Equations (A9) and (A10). A few roundings of one element, all of them possibly towards one side: the
// probable bound is the rigorous one, and sigma that of an error spread evenly within it.
void ActivationProblem::fill_values(Expected& e) const {
  const bounds::Arithmetic arithmetic = arithmetic_of(compute_);
  const double lambda = bounds::confidence_multiplier(x_.size());
  const double share = 1.05 * 0x1p-53 / arithmetic.u;
  const Tensor* dy = case_.input("dy");
  const Tensor* y = case_.output("y");
  const DType stored = y ? *y->dtype : e.dtype;
  const bool is_gradient = e.output == "dx";
  // dy (1 - y) of a sigmoid may be stored where it is subnormal.
  const double smallest = kind_ == Activation::sigmoid ? ulp(0, stored) / 2 : 0;
  // x / 2 may be formed in the element type of x, where it may be subnormal.
  const bool is_halved = kind_ == Activation::gelu_erf || kind_ == Activation::gelu_tanh;
  const double exact_half = is_halved ? std::ldexp(1.0, format_of(*x_.dtype).emin + 1) : 0;
#pragma omp parallel for schedule(static)
  for (Index at = 0; at < x_.size(); ++at) {
    const double size = std::abs(x_.values[at]);
    bounds::Evaluated f =
        is_gradient ? bounds::activation_derivative(kind_, x_.values[at], arithmetic, gate_error_, stored)
                    : bounds::activation(kind_, x_.values[at], arithmetic, gate_error_);
    if (is_gradient) {
      const double g = dy->values[at];
      f = {g * f.value,
           std::abs(g) * (f.worst + 2 * arithmetic.u * std::abs(f.value)) + arithmetic.flush + smallest};
    } else if (size < exact_half) {
      f.worst += ulp(0, *x_.dtype) / 2 * (1 + size);
    }
    ElementBound b =
        bounds::element_bound(f.value, f.worst, f.worst, f.worst / std::sqrt(3.0), lambda, share, e.dtype);
    b.value_error += 0x1p-50 * std::abs(f.value);
    e.set(at, b);
  }
}

std::string ActivationProblem::contract() const {
  const std::string gate = gate_error_ > 0 ? ", the gate within " + number_text(gate_error_, 3) : "";
  return "computed in " + std::string(format_of(compute_).name) + gate + contract_keys_.origin();
}

std::vector<Expected> ActivationProblem::expect(const ProgressFunction& progress) {
  std::vector<Expected> all;
  for (const std::string name : {"y", "dx"}) {
    if (const Tensor* tensor = case_.output(name)) all.emplace_back(name, *tensor);
  }
  for (Expected& e : all) fill_values(e);
  progress(1);
  return all;
}

std::vector<Decoy> ActivationProblem::sampled(const std::string& name, const Function& value,
                                              const Function& slope) const {
  return sampled_gradients(name, value, [&slope](double x, double dy) { return dy * slope(x); });
}

std::vector<Decoy> ActivationProblem::sampled_gradients(const std::string& name, const Function& value,
                                                        const Gradient& gradient) const {
  std::vector<Decoy> all;
  const Tensor* dy = case_.input("dy");
  const std::vector<Index> at = evenly_spread(x_.size(), sampled_elements);
  for (const auto& [output, tensor] : case_.out) {
    Decoy& decoy = all.emplace_back(Decoy{name, output, at, {}});
    for (const Index n : at) {
      const double x = x_.values[n];
      decoy.value.push_back(output == "y" ? value(x) : gradient(x, dy->values[n]));
    }
  }
  return all;
}

void ActivationProblem::recheck(std::span<const Expected> expected) const {
  const std::vector<Decoy> answers = sampled(
      "ref", [this](double x) { return ref::activation(kind_, x); },
      [this](double x) { return ref::activation_derivative(kind_, x); });
  hold_against_ref(expected, answers);
}

// What a user could confuse with the op: its other forms, and what is cut from straight lines.
std::vector<Decoy> ActivationProblem::decoys(std::span<const Expected>) const {
  std::vector<Decoy> all;
  const auto add = [&](const std::string& name, auto value, auto slope) {
    for (Decoy& decoy : sampled(name, value, slope)) all.push_back(std::move(decoy));
  };
  const bool is_sigmoid = kind_ == Activation::sigmoid;
  for (const auto& [name, kind] :
       {std::pair{"the erf form of GELU", Activation::gelu_erf},
        std::pair{"the tanh form of GELU", Activation::gelu_tanh},
        std::pair{"the quick form of GELU", Activation::gelu_quick}, std::pair{"SiLU", Activation::silu}}) {
    if (kind == kind_ || is_sigmoid) continue;
    add(
        name, [k = kind](double x) { return ref::activation(k, x); },
        [k = kind](double x) { return ref::activation_derivative(k, x); });
  }
  const auto hard_sigmoid = [](double x) { return std::clamp(x / 6 + 0.5, 0.0, 1.0); };
  const auto hard_slope = [](double x) { return std::abs(x) < 3 ? 1.0 / 6 : 0.0; };
  if (is_sigmoid) {
    add("the hard sigmoid", hard_sigmoid, hard_slope);
    add(
        "tanh", [](double x) { return std::tanh(x); },
        [](double x) { return 1 - std::tanh(x) * std::tanh(x); });
  } else {
    add(
        "ReLU", [](double x) { return std::max(x, 0.0); }, [](double x) { return x > 0 ? 1.0 : 0.0; });
    add(
        "the hard swish", [&](double x) { return x * hard_sigmoid(x); },
        [&](double x) { return hard_sigmoid(x) + x * hard_slope(x); });
  }
  return all;
}

namespace {

Op activation_op(std::string_view name, std::string_view summary, std::vector<SpecKey> spec) {
  using enum PortType;
  std::vector<SpecKey> contract = compute_contract_keys();
  contract.push_back(
      {"gate_error", "number", "0",
       "absolute error of Phi(x), the sigmoid or (1 + tanh) / 2, where the device has a table, "
       "a polynomial or its own tanh for it: with tanh.approx.f32 2^-17 on an H200, of which NVIDIA promises "
       "2^-12"});
  return {
      name,
      summary,
      {{"x", "...", floating, true, "input, of any shape"},
       {"dy", "...", floating, false, "gradient of y: asks for dx"}},
      {{"y", "...", floating, false, "f(x)"}, {"dx", "...", floating, false, "dy f'(x)"}},
      std::move(spec),
      std::move(contract),
      [](const Case& c) -> std::unique_ptr<Problem> { return std::make_unique<ActivationProblem>(c); },
      activation_inputs(name),
  };
}

}  // namespace

Op gelu_op() {
  return activation_op("gelu", "x times the normal distribution function of x, or an approximation of it.",
                       {{"approximate", "none, tanh, quick", "none", "erf, tanh, or x sigmoid(1.702 x)"}});
}

Op silu_op() {
  return activation_op("silu", "x sigmoid(x), also called swish.", {});
}

Op sigmoid_op() {
  return activation_op("sigmoid", "1 / (1 + exp(-x)).", {});
}

}  // namespace attest
