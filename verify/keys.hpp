// Typed reading of spec and contract keys, with errors that list what is accepted.
#pragma once

#include <initializer_list>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "core/invalid_case.hpp"
#include "verify/case.hpp"

namespace attest {

/// Reads one attribute group of a case. Call finish() last: it rejects the keys that nobody asked for.
/// Every member throws InvalidCase naming the key, what was found and what is accepted.
class KeyReader {
 public:
  /// group: "spec" or "contract".
  KeyReader(const Case& c, std::string group, const Attributes& attributes)
      : case_(c), group_(std::move(group)), attributes_(attributes) {}

  /// The case itself has it.
  bool has(std::string_view key) const { return attributes_.contains(std::string(key)); }

  /// A finite number; integers count as numbers. Without a fallback the key is required.
  double number(const std::string& key);
  double number(const std::string& key, double fallback);
  /// A number above 0 and below 1, or nothing.
  std::optional<double> relative_error(const std::string& key);
  /// A number that is not 0, or nothing.
  std::optional<double> factor(const std::string& key);
  Index integer(const std::string& key, Index fallback);
  bool boolean(const std::string& key, bool fallback);
  /// accepted: for the message where it is no text.
  std::string text(const std::string& key, const std::string& accepted = "");

  /// One of the named values.
  template <class T>
  T choice(const std::string& key, std::initializer_list<std::pair<std::string_view, T>> values) {
    std::string accepted;
    for (const auto& [name, value] : values) accepted += (accepted.empty() ? "" : ", ") + std::string(name);
    const std::string found = text(key, accepted);
    settled_[key] = found;
    for (const auto& [name, value] : values)
      if (found == name) return value;
    throw InvalidCase(object(key) + " is \"" + found + "\"; accepted: " + accepted);
  }
  template <class T>
  T choice(const std::string& key, std::initializer_list<std::pair<std::string_view, T>> values, T fallback) {
    if (find(key)) return choice(key, values);
    known_.insert(key);
    for (const auto& [name, value] : values) {
      if (value == fallback) settled_[key] = std::string(name);
    }
    return fallback;
  }

  void finish() const;

 protected:
  std::string object(const std::string& key) const;

  Attributes standing_in_;       // for attributes that the case does not have
  Attributes settled_;           // every choice() that was read
  std::set<std::string> known_;  // every key that was asked for

 private:
  /// Null if there is none.
  const Attribute* find(const std::string& key) const;
  const Attribute& required(const std::string& key);

  const Case& case_;
  std::string group_;
  const Attributes& attributes_;
};

}  // namespace attest
