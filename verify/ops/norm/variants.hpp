// Ways to get a normalisation wrong that have names, for diagnoses.
#pragma once

#include "verify/ops/norm/stages.hpp"

namespace attest {

/// `compute` is what a right kernel rounds to. Some of them change gradients only.
std::vector<NormVariant> norm_variants(const NormSpec& spec, const NormInputs& in, DType compute);

/// Those that the forward pass alone shows: statistics of other rows, of shares of threads, or in one pass;
/// weight and bias of other columns.
std::vector<NormVariant> norm_forward_variants(const NormSpec& spec, const NormInputs& in, DType compute);

/// Those of them with weight and bias of other columns, which the backward pass shows, too, and the weight of
/// a neighbour in one component of each short vector.
std::vector<NormVariant> norm_column_variants(const NormSpec& spec, const NormInputs& in, DType compute);

/// Sums that are divided by `padded`, not by the width.
std::vector<NormVariant> over_padded_width(const NormSpec& spec, const NormInputs& in, Index padded);

}  // namespace attest
