// Reads the contract of a case: its own keys, and for the others those of its preset.
#include "verify/contract/reader.hpp"

#include <algorithm>

#include "verify/contract/presets.hpp"

namespace attest {

ContractReader::ContractReader(const Case& c) : KeyReader(c, "contract", c.contract), declared_(c.contract) {
  if (!has("preset")) return;
  preset_ = text("preset");
  for (const ContractPreset& preset : contract_presets()) {
    if (preset.name != *preset_) continue;
    for (const auto& [key, value] : preset.fields) standing_in_[std::string(key)] = value;
  }
}

void ContractReader::finish() {
  const auto fitting =
      presets_that_set([this](std::string_view key) { return known_.contains(std::string(key)); });
  if (preset_ && std::ranges::find(fitting, *preset_, &ContractPreset::name) == fitting.end())
    throw InvalidCase(object("preset") + " is \"" + *preset_ + "\"; accepted: " + names_of(fitting));
  if (!fitting.empty()) known_.insert("preset");
  KeyReader::finish();
}

std::string ContractReader::origin() const {
  if (declared_.empty()) return " (from the element types)";
  if (!preset_) return " (declared)";
  return std::string(declared_.size() > 1 ? " (declared over preset " : " (preset ") + *preset_ + ")";
}

}  // namespace attest
