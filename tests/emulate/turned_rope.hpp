// Rotary embeddings by cosines and sines of a test's choice.
#pragma once

#include <string>
#include <tuple>
#include <vector>

#include "core/rope.hpp"
#include "tests/emulate/rope.hpp"

namespace attest::emulate {

inline double in_float(double x) {
  return round_to(x, DType::float32);
}

/// The dump with its outputs turned by the cosine and sine that coefficients(b S + s, k) gives.
template <class Coefficients>
Case turned(const RopeSetup& setup, Case c, const Coefficients& coefficients) {
  const RopeSpec spec{setup.style, setup.rotary_dim};
  for (const auto& [output, input, sign] : {std::tuple{"y", "x", 1.0}, std::tuple{"dx", "dy", -1.0}}) {
    const std::vector<double>& x = c.in.at(input).values;
    std::vector<double>& y = c.out.at(output).values;
    for (Index row = 0; row < setup.batch * setup.heads * setup.rows; ++row) {
      const Index b = row / setup.rows / setup.heads;
      for (Index k = 0; k < spec.pairs(); ++k) {
        const auto [cos, sin] = coefficients(b * setup.rows + row % setup.rows, k);
        const Index i = row * setup.width + spec.first(k), j = row * setup.width + spec.second(k);
        y[i] = round_to(x[i] * cos - sign * x[j] * sin, setup.element);
        y[j] = round_to(x[j] * cos + sign * x[i] * sin, setup.element);
      }
    }
  }
  return c;
}

}  // namespace attest::emulate
