// Exact values and bounds of GELU, SiLU and the sigmoid.
#include "verify/bounds/activation.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace attest::bounds {
namespace {

using ref::Activation;

/// Phi(x) = (1 + erf(x / sqrt 2)) / 2, sigmoid(w), ... with a bound of the error: that of its formula and
/// the one that the contract declares.
struct Gate {
  double value, worst;
  double rest;  // 1 - value, without cancellation
};

/// x factor; 0 where the factor is, however large x may be.
double times(double x, double factor) {
  return factor == 0 ? 0 : x * factor;
}

/// Equation (A1): through 1 + erf, or through erfc.
Gate normal_gate(double x, double u, double declared) {
  const double a = std::abs(x) / std::numbers::sqrt2;
  const double tail = std::erfc(a) / 2;  // of the side that x is on
  const double value = x < 0 ? tail : 1 - tail, rest = x < 0 ? 1 - tail : tail;
  // a erf'(a), at the end of the range that the rounding of a leaves.
  const double slope = times(std::exp(4 * u * a * a), 2 * std::numbers::inv_sqrtpi * a * std::exp(-a * a));
  const bool is_saturated = tail < u * u;  // erf is exactly 1 or -1
  const double erf_error = is_saturated ? 2 * tail : 8 * u * std::max(1 - 2 * tail, 2 * value);
  return {value, erf_error / 2 + (x < 0 ? 9 : 1) * u * value + u * slope + declared, rest};
}

/// Equation (A3): 1 / (1 + exp(-w)), w off by `argument` relative to itself.
Gate sigmoid_gate(double w, double argument, double u, double declared) {
  const double e = std::exp(-std::abs(w)), small = e / (1 + e), large = 1 / (1 + e);
  const double value = w < 0 ? small : large, rest = w < 0 ? large : small;
  const double exp_error = std::expm1(4 * u + (2 * u + argument) * std::abs(w));
  // Beyond, 1 + exp(-w) is exactly 1, and so is its reciprocal.
  if (w > 0 && e < u / 4) return {value, rest + declared, rest};
  // exp(w) / (1 + exp(w)) may take two different roads to exp(w).
  const double sensitivity = w < 0 ? 1 + value : rest;
  return {value, times(sensitivity * exp_error + 5 * u, value) + declared, rest};
}

/// Equation (A2): through 1 + tanh v, or through sigmoid(2v).
struct TanhGate {
  Gate gate;
  double tanh, tanh_worst, sigmoid_worst;
  bool is_saturated;  // tanh is exactly 1 or -1, but for a declared error
};
TanhGate tanh_gate(double v, double u, double declared) {
  Gate gate = sigmoid_gate(2 * v, 7 * u, u, declared);
  const double t = gate.value - gate.rest, slope = 4 * gate.value * gate.rest;  // 1 - tanh^2
  const double distance = 2 * std::min(gate.value, gate.rest);                  // 1 - |tanh|
  const bool is_saturated = distance < u * u;
  const double tanh_worst =
      2 * declared +
      (is_saturated ? distance : 4 * u * std::abs(t) + times(std::expm1(14 * u * std::abs(v)) / 2, slope));
  const double sigmoid_worst = gate.worst;
  gate.worst = std::max(gate.worst, tanh_worst / 2 + u * gate.value);
  return {gate, t, tanh_worst, sigmoid_worst, is_saturated};
}

double gelu_inner(double x) {
  return ref::gelu_tanh_scale * x * (1 + ref::gelu_tanh_cubic * x * x);
}

/// x gate(x), with the rounding of the product and of constant factors. Equation (A4).
Evaluated gated(double x, const Gate& gate, const Arithmetic& a) {
  const double value = x * gate.value;
  return {value, std::abs(x) * gate.worst + 2 * a.u * std::abs(value) + a.flush * std::max(1.0, std::abs(x))};
}

/// d/dx x sigmoid(cx) with w = cx: sigmoid(w) (1 + w (1 - sigmoid(w))). Equation (A6).
Evaluated gated_sigmoid_derivative(double w, const Gate& g, const Arithmetic& a) {
  const double u = a.u, size = std::abs(w);
  const double slope = times(size, g.value * g.rest);  // |w| sigmoid'(w)
  const double value = g.value + times(w, g.value * g.rest);
  const double rest_worst = g.worst + u * g.rest;  // of 1 - sigmoid
  const double worst = g.worst + times(size, g.worst * g.rest + g.value * rest_worst + g.worst * rest_worst) +
                       4 * u * (g.value + slope) + a.flush * std::max(1.0, size);
  return {value, worst};
}

Evaluated first_order(Activation kind, double x, const Arithmetic& a, double gate_error) {
  switch (kind) {
    case Activation::gelu_erf:
      return gated(x, normal_gate(x, a.u, gate_error), a);
    case Activation::gelu_tanh:
      return gated(x, tanh_gate(gelu_inner(x), a.u, gate_error).gate, a);
    case Activation::gelu_quick:
      return gated(x, sigmoid_gate(ref::gelu_quick_scale * x, 2 * a.u, a.u, gate_error), a);
    case Activation::silu:
      return gated(x, sigmoid_gate(x, 0, a.u, gate_error), a);
    case Activation::sigmoid: {
      const Gate gate = sigmoid_gate(x, 0, a.u, gate_error);
      return {gate.value, gate.worst + a.flush};
    }
  }
  return {};
}

Evaluated first_order_derivative(Activation kind, double x, const Arithmetic& a, double gate_error,
                                 DType stored) {
  const double u = a.u, size = std::abs(x);
  switch (kind) {
    case Activation::gelu_erf: {  // Phi + x phi. Equation (A5)
      const Gate gate = normal_gate(x, u, gate_error);
      const double density = std::exp(-x * x / 2) * std::numbers::inv_sqrtpi / std::numbers::sqrt2;
      const double term = times(size, density), value = gate.value + std::copysign(term, x);
      const double half_erf = std::abs(gate.value - gate.rest) / 2;  // which x phi may be added to first
      return {value, gate.worst + times(std::expm1(2 * u * x * x + 4 * u) + 5 * u, size * density) +
                         u * (gate.value + half_erf + 2 * term) + a.flush * std::max(1.0, size)};
    }
    case Activation::gelu_tanh: {  // (1 + t) / 2 + x (1 - t^2) v' / 2. Equation (A7)
      const TanhGate t = tanh_gate(gelu_inner(x), u, gate_error);
      const double slope = ref::gelu_tanh_scale * (1 + 3 * ref::gelu_tanh_cubic * x * x);
      const double rest = 4 * t.gate.value * t.gate.rest;  // 1 - t^2
      const double rest_worst = t.is_saturated && gate_error == 0 ? rest
                                                                  : 2 * std::abs(t.tanh) * t.tanh_worst +
                                                                        t.tanh_worst * t.tanh_worst + 2 * u;
      const double direct = 4 * (t.sigmoid_worst * (1 + t.sigmoid_worst) + u * rest);
      const double term = times(size / 2 * slope, rest);
      const double worst = t.gate.worst + times(size / 2 * slope, std::max(rest_worst, direct)) +
                           10 * u * term + u * (t.gate.value + term) + a.flush * std::max(1.0, size);
      return {t.gate.value + std::copysign(term, x), worst};
    }
    case Activation::gelu_quick: {
      const double w = ref::gelu_quick_scale * x;
      return gated_sigmoid_derivative(w, sigmoid_gate(w, 2 * u, u, gate_error), a);
    }
    case Activation::silu:
      return gated_sigmoid_derivative(x, sigmoid_gate(x, 0, u, gate_error), a);
    case Activation::sigmoid: {  // y (1 - y). Equation (A8)
      const Gate g = sigmoid_gate(x, 0, u, gate_error);
      const bool is_rounded = format_of(stored).precision < format_of(a.contract.softmax_dtype).precision;
      const double y = g.worst + a.flush + (is_rounded ? 0.5 * ulp(g.value + g.worst, stored) : 0);
      const double value = g.value * g.rest, rounded = is_rounded ? unit_roundoff(stored) : 0;
      const double worst =
          std::abs(g.rest - g.value) * y + y * y + u * g.rest * g.value + 3 * u * value + a.flush;
      return {value, worst + std::expm1(2 * std::log1p(rounded)) * (value + worst)};
    }
  }
  return {};
}

/// Products of errors: there are fewer than 16 roundings in a formula.
Evaluated with_higher_orders(const Evaluated& e, double u) {
  return {e.value, e.worst * (1 + 16 * u)};
}

}  // namespace

Evaluated activation(Activation kind, double x, const Arithmetic& a, double gate_error) {
  return with_higher_orders(first_order(kind, x, a, gate_error), a.u);
}

Evaluated activation_derivative(Activation kind, double x, const Arithmetic& a, double gate_error,
                                DType stored) {
  return with_higher_orders(first_order_derivative(kind, x, a, gate_error, stored), a.u);
}

}  // namespace attest::bounds
