// Describes operations for `attest ops`; docs/ops.py makes docs/ops from it.
#include "verify/describe.hpp"

#include <algorithm>
#include <sstream>

#include "core/dtype.hpp"
#include "verify/contract/presets.hpp"
#include "verify/text.hpp"

namespace attest {
namespace {

constexpr Index page_width = 80;

/// What extents of that name are in every op. Others are explained beside the ports that have them.
constexpr struct {
  std::string_view symbol, meaning;
} symbols[] = {
    {"B", "batch entries"},
    {"H", "heads"},
    {"Hq", "query heads"},
    {"Hkv", "key/value heads"},
    {"S", "rows"},
    {"Sq", "queries"},
    {"Sk", "keys"},
    {"Sp", "keys of the past"},
    {"D", "width of a head"},
    {"E", "width of v"},
    {"M", "width of a token"},
    {"N", "length of a row"},
};

std::string paragraph(const std::string& text, Index hanging = 0) {
  // A line that began with + or - would be an item of a list.
  constexpr char glue = '\1';
  std::string glued = text;
  for (std::size_t i = 1; i + 2 < glued.size(); ++i) {
    if (glued[i] == ' ' && (glued[i + 1] == '+' || glued[i + 1] == '-') && glued[i + 2] == ' ')
      glued[i] = glue;
  }
  std::string lines = wrapped(glued, page_width, 0, hanging);
  std::ranges::replace(lines, glue, ' ');
  return lines;
}

std::string bullet(const std::string& text) {
  return paragraph("- " + text, 2);
}

std::vector<std::string> words(std::string_view text) {
  std::istringstream stream{std::string(text)};
  std::vector<std::string> result;
  for (std::string word; stream >> word;) result.push_back(word);
  return result;
}

std::string literal(std::string_view text) {
  return "`" + std::string(text) + "`";
}

std::string with_blanks(std::string symbol) {
  const std::size_t plus = symbol.find('+');
  return plus == std::string::npos ? symbol : symbol.replace(plus, 1, " + ");
}

/// "~ B Hq (R)" as "broadcasts to [B, Hq] or [B, Hq, R]".
std::string shape_of(std::string_view extents) {
  std::string text, shape, optional;
  const auto close = [&] {
    text += "[" + shape + "]";
    if (!optional.empty()) text += " or [" + shape + ", " + optional + "]";
    shape = optional = "";
  };
  for (const std::string& word : words(extents)) {
    if (word == "~") {
      text += "broadcasts to ";
    } else if (word == "or") {
      close();
      text += " or ";
    } else if (word.front() == '(') {
      optional = word.substr(1, word.size() - 2);
    } else {
      shape += (shape.empty() ? "" : ", ") + with_blanks(word);
    }
  }
  close();
  return text;
}

std::string port_lines(const std::vector<Port>& ports, const std::string& group) {
  std::string text;
  for (const Port& port : ports) {
    const std::string type = port.type == PortType::integer   ? "integers, "
                             : port.type == PortType::boolean ? "booleans, "
                                                              : "";
    text += bullet(literal(group + "/" + std::string(port.name)) + " (" + type + shape_of(port.extents) +
                   (port.required ? "; required): " : "): ") + std::string(port.meaning));
  }
  return text;
}

/// "`none`, `tanh`", or "number" as it is.
std::string values_of(const SpecKey& key) {
  const bool is_choice = key.values.find(',') != std::string_view::npos;
  std::string text;
  std::istringstream values{std::string(key.values)};
  for (std::string value; std::getline(values >> std::ws, value, ',');)
    text += (text.empty() ? "" : ", ") + (is_choice ? literal(value) : value);
  return text;
}

std::string key_lines(const std::vector<SpecKey>& keys) {
  std::string text;
  for (const SpecKey& key : keys) {
    const std::string fallback = key.fallback == ""    ? "; required"
                                 : key.fallback == "-" ? ""
                                                       : "; default " + std::string(key.fallback);
    text += bullet(literal(key.name) + " (" + values_of(key) + fallback + "): " + std::string(key.meaning));
  }
  return text;
}

std::string text_of(const Attribute& value) {
  const auto* text = std::get_if<std::string>(&value);
  return text ? *text : exact_text(std::get<double>(value));
}

/// A section for what the key `preset` stands for; "" for an op that has none.
std::string preset_lines(const Op& op) {
  const auto key = [&](std::string_view name) {
    return std::ranges::find(op.contract, name, &SpecKey::name);
  };
  std::string text;
  for (const ContractPreset& preset :
       presets_that_set([&](std::string_view name) { return key(name) != op.contract.end(); })) {
    std::string fields;
    for (const auto& [name, value] : preset.fields)
      if (key(name) != op.contract.end())
        fields += (fields.empty() ? "" : ", ") + literal(name) + " = " + literal(text_of(value));
    text += bullet(literal(preset.name) + " (" + fields + "): " + std::string(preset.meaning) + " (" +
                   std::string(preset.source) + ")");
  }
  if (text.empty()) return "";
  return "\n## Presets\n\n" +
         paragraph(
             "What `preset` stands for, and where that is known from. A key that the case has itself wins.") +
         "\n" + text;
}

/// The symbols that occur in the extents, with their meaning.
std::string extents_text(const Op& op) {
  std::vector<std::string> used;
  for (const auto* ports : {&op.inputs, &op.outputs})
    for (const Port& port : *ports)
      for (const std::string& word : words(port.extents)) {
        std::istringstream parts(word);  // of "Sp+Sk" or "B+1"
        for (std::string part; std::getline(parts, part, '+');)
          used.push_back(part.substr(std::min(part.find_first_not_of("0123456789"), part.size())));
      }
  std::string text;
  for (const auto& [symbol, meaning] : symbols) {
    if (std::ranges::find(used, symbol) == used.end()) continue;
    text += (text.empty() ? "Extents: " : ", ") + std::string(symbol) + " " + std::string(meaning);
  }
  return text.empty() ? "" : "\n" + paragraph(text + ".");
}

std::string element_types() {
  using enum DType;
  std::string text;
  for (const DType dtype : {float64, float32, float16, bfloat16, float8_e4m3fn, float8_e5m2})
    text += (text.empty() ? "" : ", ") + literal(format_of(dtype).name);
  return text;
}

}  // namespace

std::string page_of(const Op& op) {
  std::string text = "# " + std::string(op.name) + "\n\n" + paragraph(std::string(op.summary)) +
                     extents_text(op) + "\n## Reads\n\n" + port_lines(op.inputs, "in") +
                     "\n## Writes\n\nAny of these, at least one:\n\n" + port_lines(op.outputs, "out") +
                     "\n## Spec\n\n";
  text += op.spec.empty() ? "No keys.\n" : key_lines(op.spec);
  text +=
      "\n## Contract\n\n" +
      paragraph("Which precisions the kernel promises. An element type is one of " + element_types() + ".") +
      "\n" + key_lines(contract_keys_of(op)) + preset_lines(op);
  return text;
}

std::string list_of_ops(Index width) {
  Index name_width = 0;
  for (const Op& op : all_ops()) name_width = std::max(name_width, display_width(op.name));
  std::string text;
  for (const Op& op : all_ops()) {
    text += wrapped(padded(std::string(op.name), name_width) + "  " + std::string(op.summary), width, 0,
                    name_width + 2);
  }
  return text;
}

}  // namespace attest
