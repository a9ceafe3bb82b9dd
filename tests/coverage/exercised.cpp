// What a record promises and what a case exercises of it.
#include "tests/coverage/exercised.hpp"

#include <algorithm>
#include <charconv>
#include <sstream>
#include <stdexcept>
#include <vector>

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
    for (const Port& port : op.inputs) items.insert("in/" + std::string(port.name) + direction);
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

Items exercised(const Op& op, const Case& c) {
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
  for (const std::string& direction : found) {
    for (const auto& [name, tensor] : c.in) items.insert("in/" + name + direction);
    const auto add = [&](const std::vector<SpecKey>& keys, const Attributes& attributes) {
      for (const SpecKey& key : keys) {
        const std::string item = item_of(key, attributes);
        if (!item.empty()) items.insert(item + direction);
      }
    };
    add(op.spec, c.spec);
    add(op.contract, c.contract);
  }
  return items;
}

}  // namespace attest::coverage
