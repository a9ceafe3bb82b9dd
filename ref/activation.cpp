// GELU in its three forms, SiLU and the sigmoid.
#include "ref/activation.hpp"

#include <cmath>
#include <numbers>

namespace attest::ref {
namespace {

/// exp(-x) overflows only where the result is 0 in double.
double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}

/// sigmoid(x) (1 - sigmoid(x)), which is even: no 1 - sigmoid that could cancel.
double sigmoid_derivative(double x) {
  const double e = std::exp(-std::abs(x));
  return e / ((1 + e) * (1 + e));
}

/// (1 + erf(x / sqrt 2)) / 2 without the cancellation for negative x.
double normal_distribution(double x) {
  return std::erfc(-x / std::numbers::sqrt2) / 2;
}

double normal_density(double x) {
  return std::exp(-x * x / 2) * std::numbers::inv_sqrtpi / std::numbers::sqrt2;
}

/// The argument of tanh. (1 + tanh v) / 2 = sigmoid(2v), which does not cancel for negative v.
double gelu_inner(double x) {
  return gelu_tanh_scale * (x + gelu_tanh_cubic * x * x * x);
}

/// x times a factor that is 0 where x is so large that x squared would overflow.
double times(double x, double factor) {
  return factor == 0 ? 0 : x * factor;
}

}  // namespace

double activation(Activation kind, double x) {
  switch (kind) {
    case Activation::gelu_erf:
      return x * normal_distribution(x);
    case Activation::gelu_tanh:
      return x * sigmoid(2 * gelu_inner(x));
    case Activation::gelu_quick:
      return x * sigmoid(gelu_quick_scale * x);
    case Activation::silu:
      return x * sigmoid(x);
    case Activation::sigmoid:
      return sigmoid(x);
  }
  return 0;
}

double activation_derivative(Activation kind, double x) {
  switch (kind) {
    case Activation::gelu_erf:
      return normal_distribution(x) + times(x, normal_density(x));
    case Activation::gelu_tanh: {
      const double v = gelu_inner(x);
      const double slope = gelu_tanh_scale * (1 + 3 * gelu_tanh_cubic * x * x);
      return sigmoid(2 * v) + times(2 * x * slope, sigmoid_derivative(2 * v));
    }
    case Activation::gelu_quick: {
      const double w = gelu_quick_scale * x;
      return sigmoid(w) + times(w, sigmoid_derivative(w));
    }
    case Activation::silu:
      return sigmoid(x) + times(x, sigmoid_derivative(x));
    case Activation::sigmoid:
      return sigmoid_derivative(x);
  }
  return 0;
}

}  // namespace attest::ref
