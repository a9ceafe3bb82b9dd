// Matrices as kernels keep them that quantise their operands, for diagnoses.
#pragma once

#include <string>
#include <vector>

#include "core/view.hpp"

namespace attest {

/// What is left of a matrix, and how it was kept: "in float8_e4m3fn", "in int8 by rows".
struct Quantised {
  std::string how;
  std::vector<double> values;  // [R, N]
};

/// In the formats of 8 bits: the floating ones as they are, and all of them divided by the largest magnitude
/// of a row, or of the matrix, and times the largest number of the format.
std::vector<Quantised> quantised(View<const double, 2> matrix);

}  // namespace attest
