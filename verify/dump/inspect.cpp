// Lists a case for `attest inspect`.
#include "verify/dump/inspect.hpp"

#include <algorithm>

namespace attest {
namespace {

constexpr Index label_width = 10;  // of "contract" and two blanks

struct Printer {
  std::string operator()(const std::string& value) const { return printable(value); }
  std::string operator()(double value) const { return exact_text(value); }
  std::string operator()(std::int64_t value) const { return std::to_string(value); }
  std::string operator()(bool value) const { return value ? "true" : "false"; }
};

/// A line per key, the group's name before the first.
std::string attribute_lines(const std::string& group, const Attributes& attributes, const TextStyle& style) {
  Index key_width = 0;
  for (const auto& [key, value] : attributes) key_width = std::max(key_width, display_width(printable(key)));
  std::string text;
  for (const auto& [key, value] : attributes) {
    const std::string label =
        padded(text.empty() ? group : "", label_width) + padded(printable(key), key_width);
    text +=
        wrapped(label + "  " + std::visit(Printer{}, value), style.width, 4, 4 + label_width + key_width + 2);
  }
  return text;
}

std::string shape_text(const std::vector<Index>& shape) {
  std::string text;
  for (const Index extent : shape) text += (text.empty() ? "" : ",") + std::to_string(extent);
  return "[" + text + "]";
}

std::string tensor_lines(const Case& c, const TextStyle& style) {
  Index name_width = 0, type_width = 0;
  for (const auto* group : {&c.in, &c.out})
    for (const auto& [name, tensor] : *group) {
      name_width = std::max(name_width, display_width(printable(name)));
      type_width = std::max(type_width, display_width(tensor.type_name));
    }
  std::string text;
  for (const auto* group : {&c.in, &c.out}) {
    std::string label = group == &c.in ? "in" : "out";
    for (const auto& [name, tensor] : *group) {
      text += wrapped(padded(label, label_width) + padded(printable(name), name_width) + "  " +
                          padded(tensor.type_name, type_width) + "  " + shape_text(tensor.shape),
                      style.width, 4, 4 + label_width + name_width + 2);
      label = "";
    }
  }
  return text;
}

}  // namespace

std::string text_of_case(const Case& c, const TextStyle& style) {
  return "  " + painted(printable(c.name), Color::bold, style) + "  " + printable(c.op) + '\n' +
         attribute_lines("spec", c.spec, style) + attribute_lines("contract", c.contract, style) +
         attribute_lines("recipe", c.recipe, style) + attribute_lines("about", c.about, style) +
         tensor_lines(c, style);
}

}  // namespace attest
