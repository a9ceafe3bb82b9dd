// A second set of activations, from series and continued fractions in long double.
#pragma once

#include "ref/activation.hpp"

namespace attest::oracle {

long double activation(ref::Activation kind, double x);
long double activation_derivative(ref::Activation kind, double x);

}  // namespace attest::oracle
