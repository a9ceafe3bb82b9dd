// Sums over the keys of attention rows, for every column of V: what the bounds of o are made of.
#pragma once

#include <span>
#include <vector>

#include "verify/bounds/vector_kernels.hpp"
#include "verify/bounds/weights.hpp"

namespace attest::bounds {

/// One attention row and its sums.
struct ValueSums {
  Index query;
  Weights w;
  bool with_coherent;  // is that sum needed?
  std::vector<ValueBlock> blocks;
  std::vector<double> stagnation;  // by column: what a narrow accumulator loses of small terms, all alike;
                                   // empty where it is as wide as float32
};

/// Computes the sums of rows whose weights are known; those without keys are left out. Several rows at a time
/// read V less often.
void compute_value_sums(std::span<ValueSums* const> rows, const Head& head, const Arithmetic& arithmetic);

}  // namespace attest::bounds
