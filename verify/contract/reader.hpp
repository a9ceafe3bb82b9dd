// Reads the contract of a case: its own keys, and for the others those of its preset.
#pragma once

#include <optional>
#include <string>

#include "verify/keys.hpp"

namespace attest {

/// Call finish() last: it rejects a preset of no name, or one that sets none of the keys that were read.
class ContractReader : public KeyReader {
 public:
  explicit ContractReader(const Case& c);

  void finish();

  /// What every key that was read is in the end: a text.
  const Attributes& settled() const { return settled_; }

  /// Where these come from, for reports: " (from the element types)", " (declared)", " (preset cudnn)" or
  /// " (declared over preset cudnn)".
  std::string origin() const;

 private:
  const Attributes& declared_;
  std::optional<std::string> preset_;
};

}  // namespace attest
