// What a record promises and what a case exercises of it.
#include "tests/coverage/exercised.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <sstream>
#include <stdexcept>
#include <vector>

#include "core/invalid_case.hpp"
#include "verify/text.hpp"

namespace attest::coverage {
namespace {

/// The accepted values of a key that is a choice; none for numbers and element types.
std::vector<std::string> choices(const SpecKey& key) {
  const std::string values(key.values);
  if (values == "number" || values == "integer" || values == "element type") return {};
  if (values == "boolean") return {"true", "false"};
  std::vector<std::string> all;
  for (std::size_t first = 0; first <= values.size();) {
    const std::size_t end = std::min(values.find(", ", first), values.size());
    all.push_back(values.substr(first, end - first));
    first = end + 2;
  }
  if (all.size() < 2) {
    throw std::logic_error("key " + std::string(key.name) + " has values \"" + values +
                           "\", which are neither a list nor a known type");
  }
  return all;
}

std::string shown(const Attribute& a) {
  if (const auto* text = std::get_if<std::string>(&a)) return *text;
  if (const auto* number = std::get_if<double>(&a)) return exact_text(*number);
  if (const auto* integer = std::get_if<std::int64_t>(&a)) return std::to_string(*integer);
  return std::get<bool>(a) ? "true" : "false";
}

bool is_fallback(const SpecKey& key, const std::string& value) {
  double number = 0;
  const char* end = key.fallback.data() + key.fallback.size();
  const std::from_chars_result read = std::from_chars(key.fallback.data(), end, number);
  const bool is_number = read.ec == std::errc() && read.ptr == end;
  return value == key.fallback || (is_number && value == exact_text(number));
}

/// The item that a key of this case is; empty if its value is the fallback of a number or an element type.
std::string item_of(const SpecKey& key, const Attributes& attributes) {
  const std::string name(key.name);
  const auto it = attributes.find(name);
  const bool is_choice = !choices(key).empty();
  if (it == attributes.end()) {
    if (!is_choice || key.fallback.empty()) return "";
    return key.fallback == "-" ? name + " absent" : name + " = " + std::string(key.fallback);
  }
  const std::string value = shown(it->second);
  if (is_choice) return name + " = " + value;
  return is_fallback(key, value) ? "" : name;
}

/// The numbers of axes of a port, if its extents offer several: "Hq or B Hq", "B Hq Sq (R)". Ports of any
/// rank have none.
std::set<std::size_t> ranks(const Port& port) {
  if (port.extents.find_first_of("~.") != port.extents.npos) return {};
  std::set<std::size_t> all;
  std::istringstream words{std::string(port.extents)};
  std::size_t rank = 0;
  for (std::string word; words >> word;) {
    if (word == "or" || word.front() == '(') all.insert(rank);
    rank = word == "or" ? 0 : rank + 1;
  }
  all.insert(rank);
  return all.size() > 1 ? all : std::set<std::size_t>();
}

/// What a forward pass may write and a backward pass read: statistics.
bool is_of_gradients_alone(const Op& op, const Port& input) {
  return std::ranges::find(op.outputs, input.name, &Port::name) != op.outputs.end();
}

bool is_valid(const Op& op, const Case& c) {
  try {
    op.read(c);
  } catch (const InvalidCase&) {
    return false;
  }
  return true;
}

/// By more than either is off, and than double precision could hide from the verifier.
bool differ(const Answers& a, const Answers& b) {
  for (const auto& [name, answer] : a) {
    for (std::size_t at = 0; at < answer.value.size(); ++at) {
      const long double x = answer.value[at], y = b.at(name).value[at];
      if (x == y || (std::isnan(x) && std::isnan(y))) continue;
      if (!std::isfinite(x) || !std::isfinite(y)) return true;
      const long double noise = answer.error[at] + b.at(name).error[at] + 0x1p-40L * std::abs(x);
      if (std::abs(x - y) > noise) return true;
    }
  }
  return false;
}

/// The spec with another value of the key: all of them for a choice, one otherwise.
std::vector<Attributes> changed(const SpecKey& key, const Attributes& spec) {
  const std::string name(key.name);
  std::vector<Attributes> all;
  const auto add = [&](const Attribute& value) { (all.emplace_back(spec))[name] = value; };
  const std::vector<std::string> values = choices(key);
  for (const std::string& value : values) {
    if (item_of(key, spec) == name + " = " + value) continue;
    const bool is_flag = value == "true" || value == "false";
    add(is_flag ? Attribute(value == "true") : Attribute(value));
  }
  if (!values.empty()) return all;
  if (!key.fallback.empty()) {
    all.push_back(spec);
    all.back().erase(name);
  }
  if (const auto* integer = std::get_if<std::int64_t>(&spec.at(name))) add(*integer + 1);
  if (const auto* number = std::get_if<double>(&spec.at(name))) add(*number * 2);
  return all;
}

/// Does the answer depend on the key?
bool is_felt(const Suite& suite, const Op& op, const Case& c, const SpecKey& key) {
  const bool is_choice = !choices(key).empty();
  const Answers right = suite.answers(c);
  for (const Attributes& spec : changed(key, c.spec)) {
    Case other = c;
    other.spec = spec;
    if (!is_valid(op, other)) continue;
    const bool differs = differ(right, suite.answers(other));
    if (!is_choice || !differs) return differs;
  }
  return true;
}

std::string rank_item(const std::string& path, std::size_t rank) {
  return path + " with " + std::to_string(rank) + " axes";
}

std::vector<std::string> directions(const Op& op) {
  const bool has_gradients = std::any_of(op.outputs.begin(), op.outputs.end(),
                                         [&](const Port& p) { return is_gradient(op, std::string(p.name)); });
  return has_gradients ? std::vector<std::string>{", forward", ", backward"} : std::vector<std::string>{""};
}

}  // namespace

bool is_gradient(const Op& op, const std::string& output) {
  return std::any_of(op.inputs.begin(), op.inputs.end(),
                     [&](const Port& port) { return output == "d" + std::string(port.name); });
}

Items promised(const Op& op) {
  Items items;
  const auto add_ranks = [&](const std::string& path, const Port& port) {
    for (const std::size_t rank : ranks(port)) items.insert(rank_item(path, rank));
  };
  for (const Port& port : op.outputs) {
    const std::string path = "out/" + std::string(port.name);
    items.insert(path);
    add_ranks(path, port);
  }
  for (const Port& port : op.inputs) {
    const std::string path = "in/" + std::string(port.name);
    if (!port.required) items.insert(path + " absent");
    add_ranks(path, port);
  }
  for (const std::string& direction : directions(op)) {
    for (const Port& port : op.inputs) {
      if (direction != ", forward" || !is_of_gradients_alone(op, port))
        items.insert("in/" + std::string(port.name) + direction);
    }
    for (const std::vector<SpecKey>* keys : {&op.spec, &op.contract}) {
      for (const SpecKey& key : *keys) {
        const std::string name(key.name);
        const std::vector<std::string> values = choices(key);
        if (values.empty()) items.insert(name + direction);
        for (const std::string& value : values) items.insert(name + " = " + value + direction);
        if (!values.empty() && key.fallback == "-") items.insert(name + " absent" + direction);
      }
    }
  }
  return items;
}

Items exercised(const Suite& suite, const Op& op, const Case& c) {
  Items items;
  std::set<std::string> found;
  const std::vector<std::string> all = directions(op);
  for (const auto& [name, tensor] : c.out) {
    items.insert("out/" + name);
    items.insert(rank_item("out/" + name, tensor.shape.size()));
    found.insert(is_gradient(op, name) ? all.back() : all.front());
  }
  for (const Port& port : op.inputs) {
    if (!c.in.contains(std::string(port.name))) items.insert("in/" + std::string(port.name) + " absent");
  }
  for (const auto& [name, tensor] : c.in) items.insert(rank_item("in/" + name, tensor.shape.size()));
  Items keys;
  for (const SpecKey& key : op.spec) {
    const std::string item = item_of(key, c.spec);
    const bool is_absent = item.ends_with(" absent");
    if (!item.empty() && (is_absent || is_felt(suite, op, c, key))) keys.insert(item);
  }
  for (const SpecKey& key : op.contract) keys.insert(item_of(key, c.contract));
  for (const std::string& direction : found) {
    for (const auto& [name, tensor] : c.in) items.insert("in/" + name + direction);
    for (const std::string& key : keys) items.insert(key + direction);
  }
  return items;
}

}  // namespace attest::coverage
