// Some rows and heads of a rotary embedding, for diagnoses: a small tensor of its own.
#pragma once

#include <string>
#include <vector>

#include "verify/bounds/rope.hpp"
#include "verify/ops/rope/case.hpp"

namespace attest {

struct RopeSample {
  /// Evenly spread rows and heads of `input` and of what was dumped for it.
  RopeSample(const RopeCase& rope, const std::vector<double>& input, const Tensor& dumped);
  /// These rows.
  RopeSample(const RopeCase& rope, const std::vector<double>& input, const Tensor& dumped,
             std::vector<Index> rows);

  bounds::RopeSource source;
  bounds::RopeShape shape;    // [1, H, S, D]
  std::vector<double> input;  // [H, S, D]
  Tensor dumped;              // the same elements of the output
  std::vector<Index> at;      // where they stand in the whole tensor
  std::vector<Index> row;     // and its rows, [S]
};

/// By how much each pair of columns turns from one position to the next, in (-pi, pi]: fitted, without any
/// knowledge of inverse frequencies; 0 if no two rows have consecutive positions.
std::vector<double> fitted_frequencies(const RopeSpec& spec, const RopeCase& rope,
                                       const std::vector<double>& input, const Tensor& dumped, bool backward);

/// The base that would make every pair of columns turn by as much from row to row as it does in the dump,
/// fitted without any knowledge of the base that was asked for; 0 if no two rows have consecutive positions.
double fitted_theta(const RopeSpec& spec, const RopeCase& rope, const std::vector<double>& input,
                    const Tensor& dumped, bool backward);

}  // namespace attest
