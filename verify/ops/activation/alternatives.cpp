// What would explain an activation that failed: other functions, incomplete derivatives, stages in narrower
// formats. All of them are gates: y = x gate(x), or, of the sigmoid, the gate alone.
#include <algorithm>
#include <cmath>
#include <iterator>
#include <numbers>
#include <set>

#include "verify/ops/activation/problem.hpp"
#include "verify/ops/stages.hpp"
#include "verify/text.hpp"

namespace attest {
namespace {

using ref::Activation;

enum class ActivationStage { argument, function, denominator, gate, product, term_of_dx, inner_gradient };
using enum ActivationStage;

double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}

/// A gate, step by step.
class Gate {
 public:
  Gate(Activation kind, bool by_tanh, std::function<double(ActivationStage, double)> change)
      : kind_(kind), by_tanh_(by_tanh), at_(std::move(change)) {}

  double y(double x) const {
    const double g = value(x);
    return kind_ == Activation::sigmoid ? g : at_(product, x * g);
  }
  /// As autograd forms it: dy times the gate, and what reaches x through the gate.
  double dx(double x, double dy) const {
    if (kind_ == Activation::sigmoid) return at_(term_of_dx, dy * slope(x));
    const double inner = at_(inner_gradient, at_(inner_gradient, dy * x) * slope(x));
    return at_(term_of_dx, dy * value(x)) + at_(term_of_dx, inner * slope_of_argument(x));
  }

 private:
  double scaled(double x) const {
    switch (kind_) {
      case Activation::gelu_erf:
        return x / std::numbers::sqrt2;
      case Activation::gelu_tanh:
        return ref::gelu_tanh_scale * (x + ref::gelu_tanh_cubic * x * x * x);
      case Activation::gelu_quick:
        return ref::gelu_quick_scale * x;
      case Activation::silu:
      case Activation::sigmoid:
        return x;
    }
    return x;
  }
  double slope_of_argument(double x) const {
    if (kind_ == Activation::gelu_erf) return 1 / std::numbers::sqrt2;
    if (kind_ == Activation::gelu_tanh) return ref::gelu_tanh_scale * (1 + 3 * ref::gelu_tanh_cubic * x * x);
    return kind_ == Activation::gelu_quick ? ref::gelu_quick_scale : 1;
  }
  /// erf, tanh or exp.
  double function_of(double x) const {
    const double v = at_(argument, scaled(x));
    if (kind_ == Activation::gelu_erf) return at_(function, std::erf(v));
    if (kind_ == Activation::gelu_tanh) return at_(function, std::tanh(v));
    return at_(function, by_tanh_ ? std::tanh(v / 2) : std::exp(-v));
  }
  double value(double x) const {
    const double f = function_of(x);
    const bool is_sum = by_tanh_ || kind_ == Activation::gelu_erf || kind_ == Activation::gelu_tanh;
    return at_(gate, is_sum ? (1 + f) / 2 : 1 / at_(denominator, 1 + f));
  }
  /// Of the gate, by its argument.
  double slope(double x) const {
    if (kind_ == Activation::gelu_erf) {
      const double v = at_(argument, scaled(x));
      return std::exp(-v * v) * std::numbers::inv_sqrtpi;
    }
    if (kind_ == Activation::gelu_tanh) {
      const double t = function_of(x);
      return (1 - t * t) / 2;
    }
    const double s = value(x);
    return s * (1 - s);
  }

  Activation kind_;
  bool by_tanh_;
  std::function<double(ActivationStage, double)> at_;
};

/// The a for which half of the elements lie on either side of x sigmoid(a x), or of sigmoid(a x).
double fitted_slope(bool is_sigmoid, const std::vector<double>& x, const std::vector<double>& y) {
  std::vector<double> all;
  for (std::size_t n = 0; n < x.size(); ++n) {
    const double g = is_sigmoid ? y[n] : y[n] / x[n];
    const bool tells_much = 0.5 < std::abs(x[n]) && std::abs(x[n]) < 3;
    if (tells_much && 0 < g && g < 1) all.push_back(std::log(g / (1 - g)) / x[n]);
  }
  if (all.empty()) return 0;
  const auto middle = all.begin() + static_cast<std::ptrdiff_t>(all.size() / 2);
  std::ranges::nth_element(all, middle);
  return *middle;
}

}  // namespace

std::vector<Decoy> ActivationProblem::alternatives(std::span<const Expected> expected) const {
  std::vector<Decoy> all = fitted_constants(expected);
  std::ranges::move(wrong_derivatives(expected), std::back_inserter(all));
  std::ranges::move(misplaced(expected), std::back_inserter(all));
  const bool is_sigmoid = kind_ == Activation::sigmoid;
  const auto add = [&](std::vector<Decoy> answers, bool is_of_whole_call) {
    for (Decoy& answer : answers) {
      answer.is_of_whole_call = is_of_whole_call;
      all.push_back(std::move(answer));
    }
  };
  const Function right = [this](double x) { return ref::activation(kind_, x); };
  const auto wrong_slope = [&](const std::string& name, const Function& slope) {
    add(sampled(name, right, slope), false);
  };
  if (is_sigmoid) {
    wrong_slope("y^2 for the derivative y (1 - y)", [](double x) { return sigmoid(x) * sigmoid(x); });
    wrong_slope("1 - y for the derivative y (1 - y)", [](double x) { return 1 - sigmoid(x); });
    add(sampled(
            "SiLU", [](double x) { return ref::activation(Activation::silu, x); },
            [](double x) { return ref::activation_derivative(Activation::silu, x); }),
        false);
  } else {
    wrong_slope("a derivative of the factor x alone", [&](double x) { return x == 0 ? 0.5 : right(x) / x; });
    add(sampled(
            "the gate alone, not times x", [&](double x) { return x == 0 ? 0.5 : right(x) / x; },
            [&](double x) {
              const double s = right(x) / x;
              return x == 0 ? 0 : (ref::activation_derivative(kind_, x) - s) / x;
            }),
        false);
  }
  wrong_slope("a derivative at y, not at x",
              [&](double x) { return ref::activation_derivative(kind_, right(x)); });
  add(sampled_gradients("dx without dy", right,
                        [&](double x, double) { return ref::activation_derivative(kind_, x); }),
      false);

  if (const auto y = std::ranges::find(expected, "y", &Expected::output); y != expected.end()) {
    const double fitted = fitted_slope(is_sigmoid, x_.values, y->dumped->values);
    std::set<std::string> slopes;
    for (int digits = 1; digits <= 4; ++digits) slopes.insert(number_text(fitted, digits));
    for (const std::string& slope : slopes) {
      const double a = number_of(slope);
      const bool is_right = a == (kind_ == Activation::gelu_quick ? ref::gelu_quick_scale : 1);
      if (is_right || !std::isfinite(a)) continue;
      const auto value = [a, is_sigmoid](double x) { return sigmoid(a * x) * (is_sigmoid ? 1 : x); };
      const auto derivative = [a, is_sigmoid](double x) {
        const double s = sigmoid(a * x), ds = a * s * (1 - s);
        return is_sigmoid ? ds : s + x * ds;
      };
      add(sampled((is_sigmoid ? "sigmoid(" : "x sigmoid(") + slope + " x)", value, derivative), true);
    }
  }

  const bool has_exp =
      kind_ == Activation::gelu_quick || kind_ == Activation::silu || kind_ == Activation::sigmoid;
  const std::string own = kind_ == Activation::gelu_erf ? "erf" : has_exp ? "exp" : "tanh";
  const std::string gate_name = kind_ == Activation::gelu_erf ? "Phi(x)"
                                : has_exp                     ? "the sigmoid"
                                                              : "1 + tanh";
  const std::string argument_name = "the argument of " + own;
  std::vector<std::pair<std::string_view, std::vector<ActivationStage>>> named = {{own, {function}}};
  if (!is_sigmoid) named.push_back({gate_name, {gate}});
  if (!has_exp || kind_ == Activation::gelu_quick) named.push_back({argument_name, {argument}});
  if (has_exp) {
    named.push_back({"1 + exp", {denominator}});
    named.push_back({"exp and 1 + exp", {function, denominator}});
  }
  const auto add_gate = [&](const Misstep<ActivationStage>& misstep, bool by_tanh) {
    const Gate kernel(kind_, by_tanh, misstep.change);
    add(sampled_gradients(
            misstep.name, [&](double x) { return kernel.y(x); },
            [&](double x, double dy) { return kernel.dx(x, dy); }),
        true);
  };
  for (const auto& misstep : narrow_missteps(named, compute_)) add_gate(misstep, false);
  for (auto misstep : narrow_throughout<ActivationStage>(compute_)) {
    // A sigmoid is one operation: its exp is not rounded.
    if (has_exp)
      misstep.change = [every = misstep.change](ActivationStage stage, double x) {
        return stage == function || stage == denominator ? x : every(stage, x);
      };
    add_gate(misstep, false);
  }
  if (has_exp) {  // or three
    for (const auto& misstep : narrow_throughout<ActivationStage>(compute_, "every operation, and exp,"))
      add_gate(misstep, false);
  }
  if (has_exp) {
    const std::vector<std::pair<std::string_view, std::vector<ActivationStage>>> by_tanh = {
        {"tanh, of which the sigmoid is made,", {function}}};
    for (const auto& misstep : narrow_missteps(by_tanh, compute_)) add_gate(misstep, true);
  }
  return all;
}

}  // namespace attest
