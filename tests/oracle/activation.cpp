// The oracle's activations: the normal distribution by series and continued fraction, sigmoids by exp(x) / (1
// + exp(x)), derivatives by implicit differentiation of the logistic equation.
#include "tests/oracle/activation.hpp"

#include <cmath>

namespace attest::oracle {
namespace {

using ref::Activation;
using Real = long double;

constexpr Real pi = 3.14159265358979323846264338327950288L;

Real density(Real x) {
  return std::exp(-x * x / 2) / std::sqrt(2 * pi);
}

/// Upper tail for x > 0: density / (x + 1 / (x + 2 / (x + 3 / ...))) from x = 3 on, and below it 1/2 less the
/// series density sum x^(2n+1) / (1 3 5 ... (2n+1)), which costs at most 3 digits there.
Real upper_tail(Real x) {
  if (x < 3) {
    Real term = x, sum = x;
    for (int n = 1; n < 200; ++n) {
      term *= x * x / static_cast<Real>(2 * n + 1);
      sum += term;
    }
    return 0.5L - density(x) * sum;
  }
  Real fraction = x;
  for (int n = 400; n > 0; --n) fraction = x + static_cast<Real>(n) / fraction;
  return density(x) / fraction;
}

Real distribution(Real x) {
  return x < 0 ? upper_tail(-x) : 1 - upper_tail(x);
}

Real logistic(Real w) {
  if (w > 0) return 1 - logistic(-w);
  const Real e = std::exp(w);
  return e / (1 + e);
}

/// d/dx of x logistic(w(x)), w' = slope: logistic' = logistic - logistic^2.
Real gated_slope(Real x, Real w, Real slope) {
  const Real y = logistic(w);
  if (y == 0 || y == 1) return y;
  return y + x * slope * y * logistic(-w);
}

Real tanh_argument(Real x) {
  return 2 * std::sqrt(2 / pi) * (x + static_cast<Real>(0.044715) * std::pow(x, Real{3}));
}

}  // namespace

long double activation(Activation kind, double value) {
  const Real x = value;
  switch (kind) {
    case Activation::gelu_erf:
      return x * distribution(x);
    case Activation::gelu_tanh:
      return x * logistic(tanh_argument(x));
    case Activation::gelu_quick:
      return x * logistic(static_cast<Real>(1.702) * x);
    case Activation::silu:
      return x * logistic(x);
    case Activation::sigmoid:
      return logistic(x);
  }
  return 0;
}

long double activation_derivative(Activation kind, double value) {
  const Real x = value;
  switch (kind) {
    case Activation::gelu_erf:
      return distribution(x) + x * density(x);
    case Activation::gelu_tanh:
      return gated_slope(x, tanh_argument(x),
                         2 * std::sqrt(2 / pi) * (1 + 3 * static_cast<Real>(0.044715) * x * x));
    case Activation::gelu_quick:
      return gated_slope(x, static_cast<Real>(1.702) * x, static_cast<Real>(1.702));
    case Activation::silu:
      return gated_slope(x, x, 1);
    case Activation::sigmoid:
      return logistic(x) * logistic(-x);
  }
  return 0;
}

}  // namespace attest::oracle
