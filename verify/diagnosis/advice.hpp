// Contract keys that a diagnosis names, where the case could have them.
#pragma once

#include <span>

#include "verify/op.hpp"

namespace attest {

/// Takes the advice of a compute_dtype from the names of answers if that type cannot hold the inputs.
void drop_impossible_advice(const Case& c, std::span<Decoy> answers);

}  // namespace attest
