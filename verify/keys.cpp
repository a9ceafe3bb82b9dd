// Typed reading of spec and contract keys.
#include "verify/keys.hpp"
#include "verify/text.hpp"

#include <cmath>
#include <limits>

namespace attest {
namespace {

std::string shown(const Attribute& a) {
  if (const auto* text = std::get_if<std::string>(&a)) return "the text \"" + *text + "\"";
  if (const auto* number = std::get_if<double>(&a)) return exact_text(*number);
  if (const auto* integer = std::get_if<std::int64_t>(&a)) return std::to_string(*integer);
  return std::get<bool>(a) ? "true" : "false";
}

}  // namespace

std::string KeyReader::object(const std::string& key) const {
  return case_.object(group_) + " attribute " + key;
}

const Attribute* KeyReader::find(const std::string& key) const {
  for (const Attributes* attributes : {&attributes_, &standing_in_}) {
    if (const auto it = attributes->find(key); it != attributes->end()) return &it->second;
  }
  return nullptr;
}

const Attribute& KeyReader::required(const std::string& key) {
  known_.insert(key);
  const Attribute* found = find(key);
  if (found) return *found;
  std::string others;
  for (const auto& [name, value] : attributes_) others += (others.empty() ? "; there are: " : ", ") + name;
  throw InvalidCase(object(key) + " is missing" + others);
}

double KeyReader::number(const std::string& key) {
  const Attribute& a = required(key);
  double value = std::numeric_limits<double>::quiet_NaN();
  if (const auto* integer = std::get_if<std::int64_t>(&a)) value = static_cast<double>(*integer);
  if (const auto* number = std::get_if<double>(&a)) value = *number;
  if (!std::isfinite(value))
    throw InvalidCase(object(key) + " is " + shown(a) + "; a finite number is expected");
  return value;
}

double KeyReader::number(const std::string& key, double fallback) {
  known_.insert(key);
  return find(key) ? number(key) : fallback;
}

std::optional<double> KeyReader::relative_error(const std::string& key) {
  known_.insert(key);
  if (!find(key)) return {};
  const double value = number(key);
  if (value > 0 && value < 1) return value;
  throw InvalidCase(object(key) + " is " + shown(required(key)) +
                    "; a number above 0 and below 1 is expected");
}

std::optional<double> KeyReader::factor(const std::string& key) {
  known_.insert(key);
  if (!find(key)) return {};
  const double value = number(key);
  if (value != 0) return value;
  throw InvalidCase(object(key) + " is 0; a number that is not 0 is expected");
}

Index KeyReader::integer(const std::string& key, Index fallback) {
  known_.insert(key);
  if (!has(key)) return fallback;
  const double value = number(key);
  if (value != std::floor(value) || std::abs(value) > 0x1p53) {
    throw InvalidCase(object(key) + " is " + shown(required(key)) +
                      "; a whole number of no more than 2^53 is expected");
  }
  return static_cast<Index>(value);
}

bool KeyReader::boolean(const std::string& key, bool fallback) {
  known_.insert(key);
  if (!has(key)) return fallback;
  const Attribute& a = required(key);
  if (const auto* flag = std::get_if<bool>(&a)) return *flag;
  if (const auto* integer = std::get_if<std::int64_t>(&a); integer && (*integer == 0 || *integer == 1)) {
    return *integer == 1;
  }
  throw InvalidCase(object(key) + " is " + shown(a) + "; true or false is expected");
}

std::string KeyReader::text(const std::string& key, const std::string& accepted) {
  const Attribute& a = required(key);
  if (const auto* text = std::get_if<std::string>(&a)) return *text;
  throw InvalidCase(object(key) + " is " + shown(a) + "; a text is expected" +
                    (accepted.empty() ? "" : ": " + accepted));
}

void KeyReader::finish() const {
  for (const auto& [key, value] : attributes_) {
    if (known_.contains(key)) continue;
    std::string accepted;
    for (const std::string& name : known_) accepted += (accepted.empty() ? "" : ", ") + name;
    throw InvalidCase(object(key) + " is not known; accepted: " + accepted);
  }
}

}  // namespace attest
