// Exact values and bounds of the gradients of a normalisation. Equation numbers: docs/bounds_norm.md.
#pragma once

#include <vector>

#include "verify/bounds/norm.hpp"

namespace attest::bounds {

/// dx of row i. Equations (18) to (21).
void norm_backward_row(const NormRows& rows, const NormRow& row, const NormInputs& in,
                       View<const double, 2> dy, Index i, SumNoise& noise, const NormOutput<2>& dx);

/// dweight and dbias; `all` holds the rows in order. Equations (22) and (23).
void norm_backward_columns(const NormRows& rows, const std::vector<NormRow>& all, const NormInputs& in,
                           View<const double, 2> dy, const NormOutputs& out);

}  // namespace attest::bounds
