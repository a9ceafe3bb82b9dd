// Writes generated inputs as a dump without outputs.
#pragma once

#include <span>
#include <string>

#include "verify/inputs/generated.hpp"

namespace attest {

/// The values of the inputs, or the recipe that makes them.
enum class InputForm { stored, described };

/// A new file with one group a case, in the format of docs/dump_format.md, whole or not at all. Memory does
/// not grow with the tensors. Throws WriteError, and InvalidCase where a value is too large for its type.
void write_cases(const std::string& path, bool may_replace, std::span<const GeneratedCase> cases,
                 InputForm form);

}  // namespace attest
