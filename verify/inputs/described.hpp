// Inputs that a file describes instead of holding them: the request that makes them, as attributes.
#pragma once

#include "verify/case.hpp"
#include "verify/inputs/generated.hpp"

namespace attest {

/// The group `recipe` of a case with the inputs that this request makes (docs/dump_format.md#recipe).
Attributes recipe_of(const InputRequest& request);

/// The inputs of a case that has a recipe. Throws InvalidCase, naming the recipe, where it does not say what
/// the inputs are, or does not fit the operation or its spec.
std::map<std::string, GeneratedTensor> described_inputs(const Case& c);

}  // namespace attest
