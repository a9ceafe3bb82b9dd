// What all emulated dumps are made of: normal numbers and empty tensors.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "tests/support/random.hpp"
#include "verify/case.hpp"

namespace attest::emulate {

/// Mean 0, deviation 1: twelve uniform numbers, so that the bits are the same on every platform.
inline double normal(test::Random& random) {
  double sum = 0;
  for (int n = 0; n < 12; ++n) sum += random.symmetric();
  return sum / 2;
}

/// Zeros.
inline Tensor tensor_of(DType dtype, std::vector<Index> shape) {
  Tensor t{std::string(format_of(dtype).name), dtype, std::move(shape), {}};
  t.values.resize(t.size());
  return t;
}

}  // namespace attest::emulate
