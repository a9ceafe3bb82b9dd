// Rotary embeddings as a faulty kernel computes them, for diagnoses: the cosines and sines that it takes, and
// what it does with them.
#pragma once

#include <functional>
#include <string>

#include "verify/op.hpp"
#include "verify/ops/rope/problem.hpp"
#include "verify/ops/rope/sample.hpp"

namespace attest {

/// cos and sin for both columns of a pair.
struct Coefficients {
  double cos_i, cos_j, sin_i, sin_j;
};

/// Of a gradient.
inline Coefficients turned_back(const Coefficients& c) {
  return {c.cos_i, c.cos_j, -c.sin_j, -c.sin_i};
}

/// Of pair k in row s of the sample.
using CoefficientsOf = std::function<Coefficients(Index s, Index k)>;

/// As a right kernel has them.
Coefficients right_coefficients(const bounds::RopeSource& source, const RopeSpec& spec, Index s, Index k);

/// What a kernel does with them.
struct RopeSteps {
  using Round = std::function<double(double)>;
  // Products with cos or sin, or with either column, are rounded.
  Round with_cos = nullptr, with_sin = nullptr, of_first = nullptr, of_second = nullptr;
  Index apart = 0;  // the columns of a pair, if not as the spec has them
  bool first_is_overwritten = false, second_is_overwritten = false;
};

/// An answer of the whole call.
Decoy computed(const std::string& name, const RopeSpec& spec, const RopeSample& sample,
               const RopeDirection& direction, const CoefficientsOf& coefficients,
               const RopeSteps& steps = {});

}  // namespace attest
