// Ways to get a normalisation wrong that have names, for diagnoses.
#pragma once

#include "verify/ops/norm_stages.hpp"

namespace attest {

/// `compute` is what a right kernel rounds to. Some of them change gradients only.
std::vector<NormVariant> norm_variants(const NormSpec& spec, const NormInputs& in, DType compute);

}  // namespace attest
