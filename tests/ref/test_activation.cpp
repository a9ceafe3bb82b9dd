// ref's activations: against the oracle, finite differences, identities, and at the ends of the range.
#include "ref/activation.hpp"

#include <cmath>
#include <vector>

#include "tests/catch.hpp"
#include "tests/oracle/activation.hpp"

namespace {

using namespace attest;
using ref::Activation;

constexpr Activation kinds[] = {Activation::gelu_erf, Activation::gelu_tanh, Activation::gelu_quick,
                                Activation::silu, Activation::sigmoid};
constexpr double u = 0x1p-53;

/// -40 to 40 in steps of 1/64, the zeros, and numbers of every size.
std::vector<double> points() {
  std::vector<double> x;
  for (int k = -2560; k <= 2560; ++k) x.push_back(k / 64.0);
  for (int e = -1074; e < 6; ++e) x.insert(x.end(), {std::ldexp(1.0, e), -std::ldexp(1.0, e)});
  x.push_back(-0.0);
  return x;
}

/// An argument that is off by a few roundings moves exp(-w) by that share of |w|, exp(-x^2 / 2) by x^2.
double conditioning(Activation kind, double x) {
  const double size = std::abs(x);
  switch (kind) {
    case Activation::gelu_erf:
      return x * x;
    case Activation::gelu_tanh:
      return 2 * 0.8 * (size + 0.045 * size * size * size);
    default:
      return 1.8 * size;
  }
}

}  // namespace

TEST_CASE("activations have a small relative error wherever they are") {
  for (const Activation kind : kinds) {
    for (const double x : points()) {
      INFO("kind " << static_cast<int>(kind) << " at " << x);
      const long double want = oracle::activation(kind, x);
      // At most 10 roundings, half of them in an argument. exp(-x) overflows where the result is no normal
      // number.
      const long double error =
          10 * u * (1 + conditioning(kind, x)) * std::abs(want) + 0x1p-1022L * (1 + std::abs(x));
      CHECK(std::abs(ref::activation(kind, x) - want) <= error);
    }
  }
}

TEST_CASE("derivatives are off by roundings of their terms") {
  for (const Activation kind : kinds) {
    for (const double x : points()) {
      INFO("kind " << static_cast<int>(kind) << " at " << x);
      const long double want = oracle::activation_derivative(kind, x);
      // f' = gate + term: near a zero of f' both are of the size of the gate.
      const long double gate = kind == Activation::sigmoid || x == 0
                                   ? std::abs(want)
                                   : std::abs(oracle::activation(kind, x) / static_cast<long double>(x));
      const long double terms = gate + std::abs(want - gate);
      CHECK(std::abs(ref::activation_derivative(kind, x) - want) <=
            20 * u * (1 + conditioning(kind, x)) * terms + 0x1p-1022L * (1 + std::abs(x * x * x)));
    }
  }
}

TEST_CASE("derivatives are limits of differences") {
  const double h = 0x1p-15;
  for (const Activation kind : kinds) {
    for (double x = -8; x <= 8; x += 0.125) {
      const double difference = (ref::activation(kind, x + h) - ref::activation(kind, x - h)) / (2 * h);
      // No third derivative exceeds 6; values are below 9 and off by 10 roundings.
      const double error = h * h + 10 * u * 9 * (1 + conditioning(kind, x)) / h;
      CHECK(std::abs(difference - ref::activation_derivative(kind, x)) <= error);
    }
  }
}

TEST_CASE("what a gate keeps of x and of -x adds up to x") {
  for (double x = 0; x < 20; x += 0.171875) {
    for (const Activation kind : kinds) {
      const double f = ref::activation(kind, x), g = ref::activation(kind, -x);
      const double want = kind == Activation::sigmoid ? 1 : x;
      const double both = kind == Activation::sigmoid ? f + g : f - g;
      CHECK(std::abs(both - want) <= 20 * u * (1 + conditioning(kind, x)) * std::abs(want));
    }
  }
}

TEST_CASE("activations have their known values") {
  const auto near = [](double got, double want) { return std::abs(got - want) <= 4 * u * std::abs(want); };
  CHECK(near(ref::activation(Activation::gelu_erf, 1), 0.84134474606854294859));
  CHECK(std::abs(ref::activation(Activation::gelu_erf, -10) / -7.6198530241605260660e-23 - 1) <= 100 * 4 * u);
  CHECK(near(ref::activation(Activation::silu, 1), 0.73105857863000487925));
  CHECK(near(ref::activation(Activation::sigmoid, 1), 0.73105857863000487925));
  CHECK(near(ref::activation_derivative(Activation::gelu_erf, 1), 1.0833154705876862984));
  CHECK(ref::activation(Activation::sigmoid, 0) == 0.5);
  CHECK(ref::activation_derivative(Activation::sigmoid, 0) == 0.25);
  for (const Activation kind : kinds) {
    if (kind == Activation::sigmoid) continue;
    CHECK(ref::activation(kind, 0) == 0);
    CHECK(std::signbit(ref::activation(kind, -0.0)));
    CHECK(ref::activation_derivative(kind, 0) == 0.5);
  }
}

TEST_CASE("activations are finite for every finite argument") {
  for (const Activation kind : kinds) {
    for (const double x : {1e5, 1e20, 1e100, 1e154, 1e200, 0x1.fffffffffffffp1023}) {
      const bool is_sigmoid = kind == Activation::sigmoid;
      CHECK(ref::activation(kind, x) == (is_sigmoid ? 1 : x));
      CHECK(ref::activation(kind, -x) == 0);
      CHECK(ref::activation_derivative(kind, x) == (is_sigmoid ? 0 : 1));
      CHECK(ref::activation_derivative(kind, -x) == 0);
    }
  }
}
