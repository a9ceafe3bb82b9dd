// Requests for inputs as people write them.
#include "verify/inputs/request.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <sstream>

#include "core/invalid_case.hpp"
#include "verify/op.hpp"
#include "verify/text.hpp"

namespace attest {
namespace {

template <class Range, class Name>
std::string listed(const Range& range, Name name) {
  std::string text;
  for (const auto& x : range) text += (text.empty() ? "" : ", ") + std::string(name(x));
  return text;
}

std::vector<std::string> parts_of(const std::vector<std::string>& texts) {
  std::vector<std::string> parts;
  for (const std::string& text : texts) {
    std::istringstream stream(text);
    for (std::string part; std::getline(stream, part, ',');) parts.push_back(part);
  }
  return parts;
}

std::pair<std::string, std::string> assignment(const std::string& option, const std::string& text) {
  const std::size_t at = text.find('=');
  if (at == std::string::npos || at == 0 || at + 1 == text.size())
    throw InvalidCase(option + " " + text + ": NAME=VALUE is expected");
  return {text.substr(0, at), text.substr(at + 1)};
}

template <class T>
bool parse_number(const std::string& text, T& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size();
}

void parse_extent(const Op& op, const std::string& part, InputRequest& request) {
  const auto [symbol, value] = assignment("shape", part);
  const auto name = [](const InputExtent& e) { return e.symbol; };
  if (std::ranges::find(op.generated.extents, symbol, name) == op.generated.extents.end()) {
    throw InvalidCase("shape " + part + ": " + std::string(op.name) + " has no extent " + symbol +
                      "; there are: " + listed(op.generated.extents, name));
  }
  Index extent = 0;
  const Index least = symbol == "Sp" ? 0 : 1, most = Index{1} << 28;
  if (!parse_number(value, extent) || extent < least || extent > most) {
    throw InvalidCase("shape " + part + ": a whole number from " + std::to_string(least) + " to " +
                      std::to_string(most) + " is expected");
  }
  request.shape[symbol] = extent;
}

Attribute parse_value(const SpecKey& key, const std::string& object, const std::string& text) {
  const auto reject = [&](const std::string& expected) -> Attribute {
    throw InvalidCase(object + ": " + expected + " is expected");
  };
  if (key.values == "number") {
    double number = 0;
    if (!parse_number(text, number) || !std::isfinite(number)) return reject("a number");
    return number;
  }
  if (key.values == "integer") {
    std::int64_t number = 0;
    if (!parse_number(text, number)) return reject("a whole number");
    return number;
  }
  if (key.values == "element type") {
    if (!dtype_named(text)) return reject(listed(all_formats(), [](const Format& f) { return f.name; }));
    return text;
  }
  const std::vector<std::string> values = parts_of({std::string(key.values)});
  const auto trimmed = [](const std::string& value) { return value.substr(value.find_first_not_of(' ')); };
  if (std::ranges::find(values, text, trimmed) == values.end()) return reject(std::string(key.values));
  if (key.values == "true, false") return text == "true";
  return text;
}

void parse_setting(const Op& op, const std::string& part, InputRequest& request) {
  const auto [path, value] = assignment("--set", part);
  const std::string prefix = "contract/";
  const bool is_contract = path.starts_with(prefix);
  const std::string name = is_contract ? path.substr(prefix.size()) : path;
  const std::vector<SpecKey> keys = is_contract ? contract_keys_of(op) : op.spec;
  const auto name_of_key = [](const SpecKey& key) { return key.name; };
  const auto key = std::ranges::find(keys, name, name_of_key);
  if (key == keys.end()) {
    throw InvalidCase("--set " + part + ": " + std::string(op.name) + " has no " +
                      (is_contract ? "contract" : "spec") + " key " + name +
                      "; there are: " + listed(keys, name_of_key));
  }
  (is_contract ? request.contract : request.spec)[name] = parse_value(*key, "--set " + part, value);
}

}  // namespace

InputRequest parse_request(const Op& op, const RequestText& text) {
  const OpInputs& inputs = op.generated;
  const std::string name(op.name);
  const auto name_of_recipe = [](const InputRecipe& r) { return r.name; };
  if (inputs.recipes.empty()) throw InvalidCase(name + " has no recipes for inputs");
  InputRequest request;
  request.recipe = text.recipe;
  if (std::ranges::find(inputs.recipes, text.recipe, name_of_recipe) == inputs.recipes.end()) {
    throw InvalidCase(name + " has no recipe " + text.recipe +
                      "; there are: " + listed(inputs.recipes, name_of_recipe));
  }
  for (const std::string& part : parts_of(text.shape)) parse_extent(op, part, request);
  for (const std::string& part : text.set) parse_setting(op, part, request);
  for (const std::string& part : parts_of(text.with)) {
    if (std::ranges::find(inputs.optional, part) == inputs.optional.end()) {
      throw InvalidCase("with " + part + ": " + name + " has no optional input of that name; there are: " +
                        listed(inputs.optional, [](std::string_view x) { return x; }));
    }
    request.with.insert(part);
  }
  const std::optional<DType> dtype = dtype_named(text.dtype);
  if (!dtype) {
    throw InvalidCase("dtype " + text.dtype + " is no element type; there are: " +
                      listed(all_formats(), [](const Format& f) { return f.name; }));
  }
  request.dtype = *dtype;
  request.seed = text.seed;
  return request;
}

std::string text_of_recipes(const Op& op, Index width) {
  const OpInputs& inputs = op.generated;
  std::string text = std::string(op.name) + "\n";
  Index longest = 0;
  for (const InputRecipe& recipe : inputs.recipes) longest = std::max(longest, display_width(recipe.name));
  for (const InputRecipe& recipe : inputs.recipes) {
    text += wrapped(padded(std::string(recipe.name), longest) + "  " + std::string(recipe.purpose), width, 2,
                    longest + 4);
  }
  const std::string extents = listed(inputs.extents, [](const InputExtent& e) {
    return std::string(e.symbol) + "=" + std::string(e.fallback) + " (" + std::string(e.meaning) + ")";
  });
  text += wrapped("--shape: " + extents, width, 2, 4);
  text += wrapped("--with: " + listed(inputs.optional, [](std::string_view x) { return x; }), width, 2, 4);
  return text;
}

}  // namespace attest
