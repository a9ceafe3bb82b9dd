// GELU in its three forms, SiLU and the sigmoid: values and derivatives.
#pragma once

namespace attest::ref {

/// With the normal distribution Phi(x) = (1 + erf(x / sqrt 2)) / 2 and sigmoid(x) = 1 / (1 + exp(-x)):
///   gelu_erf    x Phi(x)                                             (Hendrycks and Gimpel 2016)
///   gelu_tanh   x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2      (the same paper)
///   gelu_quick  x sigmoid(1.702 x)                                   (the same paper; CLIP)
///   silu        x sigmoid(x)                                         (swish with beta = 1)
///   sigmoid     sigmoid(x)
enum class Activation { gelu_erf, gelu_tanh, gelu_quick, silu, sigmoid };

/// f(x), finite for every finite x, with a small relative error even where 1 + erf and 1 + tanh cancel.
double activation(Activation kind, double x);

/// f'(x), finite for every finite x. Near the zeros of f' its error is small beside its terms, not beside it.
double activation_derivative(Activation kind, double x);

/// sqrt(2/pi), and the factor of x^3 in gelu_tanh, and that of x in gelu_quick.
inline constexpr double gelu_tanh_scale = 0.79788456080286535588;
inline constexpr double gelu_tanh_cubic = 0.044715;
inline constexpr double gelu_quick_scale = 1.702;

}  // namespace attest::ref
