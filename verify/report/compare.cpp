// What a comparison of two dumps found, as text and as JSON (docs/compare.md).
#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "verify/axes/extents.hpp"
#include "verify/dump/compare_dumps.hpp"

namespace attest {
namespace {

using Json = nlohmann::ordered_json;

constexpr int report_format = 1;  // counts up when a key changes its meaning or goes away
constexpr Index detail_indent = 6;

std::string name_of_comparison(Verdict verdict) {
  if (verdict == Verdict::pass) return "equal";
  if (verdict == Verdict::fail) return "different";
  return std::string(name_of(verdict));
}

Color color_of(Verdict verdict) {
  return verdict == Verdict::pass           ? Color::green
         : verdict == Verdict::inconclusive ? Color::yellow
                                            : Color::red;
}

std::string painted_name(Verdict verdict, const TextStyle& style) {
  return painted(name_of_comparison(verdict), color_of(verdict), style);
}

Verdict gravest(std::span<const CaseDifference> cases) {
  if (cases.empty()) return Verdict::inconclusive;
  return std::ranges::max(cases, {}, &CaseDifference::verdict).verdict;
}

std::string detail(const std::string& text, const TextStyle& style) {
  return wrapped(printable(text), style.width, detail_indent, detail_indent + 2);
}

/// "  different  text_encoder  o 12 differ  lse equal"
std::string case_line(const CaseDifference& c, Index verdict_width, Index name_width,
                      const TextStyle& style) {
  const std::string verdict = name_of_comparison(c.verdict);
  std::string line =
      "  " + painted_name(c.verdict, style) + padded("", verdict_width - display_width(verdict));
  const std::string name = shortened(printable(c.name), name_width);
  line += "  " + (c.outputs.empty() ? name : padded(name, name_width));
  const Index first_column = 2 + verdict_width + 2 + name_width;
  Index column = first_column;
  for (const TensorDifference& o : c.outputs) {
    const std::string cell =
        o.name + (o.different == 0 ? " equal" : " " + std::to_string(o.different) + " differ");
    if (style.width > 0 && column > first_column && column + 2 + display_width(cell) > style.width) {
      line += '\n' + padded("", first_column);
      column = first_column;
    }
    line += "  " + (o.different == 0 ? cell : painted(cell, color_of(o.verdict()), style));
    column += 2 + display_width(cell);
  }
  return line + '\n';
}

std::string output_details(const TensorDifference& o, const TextStyle& style) {
  const Index hanging = detail_indent + display_width(o.name) + 2;
  if (o.at.empty()) return wrapped(o.name + ": " + o.where, style.width, detail_indent, hanging);
  return wrapped(o.name + ": " + counts_text(o), style.width, detail_indent, hanging) +
         wrapped(o.where, style.width, hanging, hanging) +
         wrapped(first_text(o), style.width, hanging, hanging);
}

Json json_of(double value) {
  if (std::isfinite(value)) return value;
  return exact_text(value);
}

Json json_of(const TensorDifference& o) {
  const bool has_place = !o.at.empty();
  return {{"name", o.name},
          {"dtype", o.type_name},
          {"shape", o.shape},
          {"verdict", name_of_comparison(o.verdict())},
          {"elements", o.elements},
          {"different", o.different},
          {"zero_signs", o.zero_signs},
          {"at", o.at},
          {"a", has_place ? json_of(o.a) : Json()},
          {"b", has_place ? json_of(o.b) : Json()},
          {"ulps", json_of(o.ulps)},
          {"where", o.where}};
}

Json json_of(const CaseDifference& c) {
  Json outputs = Json::array();
  for (const TensorDifference& o : c.outputs) outputs.push_back(json_of(o));
  Json object = {{"name", c.name},
                 {"verdict", name_of_comparison(c.verdict)},
                 {"outputs", std::move(outputs)},
                 {"reasons", c.reasons},
                 {"notes", c.notes}};
  if (!c.error.empty()) object["error"] = c.error;
  return object;
}

}  // namespace

std::string counts_text(const TensorDifference& d) {
  std::string text = std::to_string(d.different) + " of " + std::to_string(d.elements) + " elements " +
                     (d.different == 1 ? "differs" : "differ");
  if (d.zero_signs == d.different) return text + " only in the sign of zero";
  if (d.zero_signs > 0) text += ", " + std::to_string(d.zero_signs) + " only in the sign of zero";
  return text + (std::isfinite(d.ulps) ? ", by up to " + exact_text(d.ulps) + " ulp"
                                       : ", NaN against a number among them");
}

std::string first_text(const TensorDifference& d) {
  const int digits = d.type_name == "float64" ? 17 : 9;  // that tell two values of the type apart
  return "first at " + shape_text(d.at) + ": " + number_text(d.a, digits) + " and " +
         number_text(d.b, digits);
}

std::string text_of_comparison(const std::string& file_a, const std::string& file_b,
                               std::span<const CaseDifference> cases, const TextStyle& style) {
  const std::string files = printable(file_a) + " and " + printable(file_b);
  std::string text =
      painted(style.width > 0 ? shortened(files, style.width) : files, Color::bold, style) + '\n';
  Index verdict_width = 0, name_width = 0;
  for (const CaseDifference& c : cases) {
    verdict_width = std::max(verdict_width, display_width(name_of_comparison(c.verdict)));
    name_width = std::max(name_width, display_width(printable(c.name)));
  }
  if (style.width > 0) name_width = std::min(name_width, std::max<Index>(16, style.width / 2));
  for (const CaseDifference& c : cases) {
    text += case_line(c, verdict_width, name_width, style);
    for (const TensorDifference& o : c.outputs)
      if (o.different > 0) text += output_details(o, style);
    for (const std::string& reason : c.reasons) text += detail("reason: " + reason, style);
    for (const std::string& note : c.notes) text += detail("note: " + note, style);
  }
  text += '\n' + std::to_string(cases.size()) + (cases.size() == 1 ? " case: " : " cases: ");
  bool is_first = true;
  for (const Verdict v :
       {Verdict::pass, Verdict::inconclusive, Verdict::fail, Verdict::invalid, Verdict::internal}) {
    const Index count = std::ranges::count(cases, v, &CaseDifference::verdict);
    if (count == 0) continue;
    text += (is_first ? "" : ", ") +
            painted(std::to_string(count) + " " + name_of_comparison(v), color_of(v), style);
    is_first = false;
  }
  return text + '\n';
}

std::string json_of_comparison(const std::string& file_a, const std::string& file_b,
                               std::span<const CaseDifference> cases, std::string_view version) {
  Json list = Json::array();
  for (const CaseDifference& c : cases) list.push_back(json_of(c));
  const Json report = {{"attest", version},
                       {"format", report_format},
                       {"files", {file_a, file_b}},
                       {"compare", std::move(list)},
                       {"verdict", name_of_comparison(gravest(cases))}};
  // Names in a file may be any bytes; those that are not UTF-8 become U+FFFD.
  return report.dump(2, ' ', false, Json::error_handler_t::replace) + '\n';
}

}  // namespace attest
