// Contracts of hardware and libraries by name: a table.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "verify/case.hpp"

namespace attest {

/// What the contract key `preset` stands for. fields: other contract keys and their values, for what the case
/// does not set itself; a key that an operation does not have is no concern of it. Values are texts and
/// numbers. source: where this is known from.
struct ContractPreset {
  std::string_view name;
  std::vector<std::pair<std::string_view, Attribute>> fields;
  std::string_view meaning, source;
};

/// All of them, in the order of the documentation.
std::span<const ContractPreset> contract_presets();

/// Those that set a key of an operation.
std::vector<ContractPreset> presets_that_set(const std::function<bool(std::string_view key)>& is_key);

/// "cudnn, cpu_float32"
std::string names_of(const std::vector<ContractPreset>& presets);

}  // namespace attest
