// Exact values and bounds of GELU, SiLU and the sigmoid. Derivation: docs/bounds_activation.md.
#pragma once

#include "ref/activation.hpp"
#include "verify/bounds/arithmetic.hpp"

namespace attest::bounds {

/// A value, and a rigorous bound of the error of any kernel that keeps the contract, before the store.
struct Evaluated {
  double value, worst;
};

/// Kernels may use any formula of docs/bounds_activation.md, those that cancel included: x (1 + erf) / 2 and
/// x (1 + tanh) / 2 lose all relative accuracy where they are near 0. exp and tanh are within 2 ulp, erf and
/// erfc within 4, of arithmetic.u; results of exp below arithmetic.flush may become 0. gate_error: what the
/// factor of x, or the sigmoid itself, may be off by beside. x must be finite.
/// The value is off by 2^-53 / u of `worst` at most.
Evaluated activation(ref::Activation kind, double x, const Arithmetic& arithmetic, double gate_error);

/// f'(x). A sigmoid's derivative may be formed from a stored sigmoid, rounded to `stored`, and 1 - y and
/// dy (1 - y) may be rounded so too, as PyTorch's kernel does.
Evaluated activation_derivative(ref::Activation kind, double x, const Arithmetic& arithmetic,
                                double gate_error, DType stored);

}  // namespace attest::bounds
