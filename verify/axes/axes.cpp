// Reads the extents of ports ("B Hq Sq D", "~ B Hq Sq Sk", "Hq or B Hq", "B Hq Sq (R)", "... N") against
// shapes.
#include "verify/axes/axes.hpp"

#include <algorithm>
#include <sstream>
#include <string_view>
#include <utility>

#include "verify/axes/layout.hpp"
#include "verify/keys.hpp"
#include "verify/op.hpp"

namespace attest {
namespace {

using Words = std::vector<std::string>;

Words words(std::string_view text) {
  std::istringstream stream{std::string(text)};
  Words result;
  for (std::string word; stream >> word;) result.push_back(word);
  return result;
}

AxisKind kind_of(const std::string& symbol) {
  const char last = symbol.back();
  switch (symbol.front()) {
    case 'B':
      return symbol == "B" ? AxisKind::batch : AxisKind::unknown;  // not "B+1"
    case 'H':
      return AxisKind::head;
    case 'S':
    case 'T':
      return last == 'k' || last == 'p' ? AxisKind::key : AxisKind::row;
    case 'D':
    case 'E':
    case 'M':
    case 'N':
    case 'W':
      return AxisKind::column;
    case 'R':
      return symbol == "R" ? AxisKind::copy : AxisKind::unknown;  // not "R/2"
    case '(':
      return AxisKind::copy;  // "(1)"
    default:
      return AxisKind::unknown;
  }
}

/// The layout reorders the axes of [batch, head, sequence, width] tensors; not those of scores.
bool follows_layout(const Words& symbols) {
  return symbols.size() == 4 && symbols[0] == "B" && kind_of(symbols[1]) == AxisKind::head &&
         kind_of(symbols[3]) == AxisKind::column;
}

bool is_per_row(const Words& symbols) {
  return symbols.size() >= 3 && symbols[0] == "B" && kind_of(symbols[1]) == AxisKind::head &&
         kind_of(symbols[2]) == AxisKind::row && (symbols.size() == 3 || symbols[3] == "(R)");
}

std::vector<Axis> unknown_axes(const Tensor& tensor) {
  std::vector<Axis> axes;
  for (const Index extent : tensor.shape) axes.push_back({AxisKind::unknown, extent});
  return axes;
}

std::vector<Axis> axes_of(const Words& symbols, const Tensor& tensor) {
  std::vector<Axis> axes = unknown_axes(tensor);
  if (symbols.size() != axes.size()) return axes;
  for (std::size_t i = 0; i < axes.size(); ++i) axes[i].kind = kind_of(symbols[i]);
  return axes;
}

std::vector<Axis> laid_out_axes(const Words& symbols, const Case& c, const Tensor& tensor, Layout layout) {
  Words order = words(extents_pattern(layout, symbols[0], symbols[1], symbols[2], symbols[3]));
  if (!merges_heads(layout) || order.size() != tensor.shape.size()) return axes_of(order, tensor);
  order.back() = symbols[3];
  std::vector<Axis> axes = axes_of(order, tensor);
  const auto key = c.spec.find(symbols[1] == "Hkv" ? "heads_kv" : symbols[1] == "H" ? "heads" : "heads_q");
  const auto* heads = key == c.spec.end() ? nullptr : std::get_if<std::int64_t>(&key->second);
  if (heads && *heads > 0 && axes.back().extent % *heads == 0) {
    axes.back().extent /= *heads;
    axes.insert(axes.end() - 1, {AxisKind::head, *heads});
  }
  return axes;
}

/// Such as lse. Two orders are allowed (row_axis_order); the extents of the op's first input tell them apart.
std::vector<Axis> per_row_axes(const Op& op, const Case& c, const Tensor& tensor, Layout layout) {
  const std::vector<Axis> like = input_axes(op, c, std::string(op.inputs.front().name));
  for (const std::string_view order : {row_axis_order(layout), axis_order(layout)}) {
    Words symbols;
    for (const char axis : order) symbols.emplace_back(axis == 'b' ? "B" : axis == 'h' ? "H" : "S");
    if (tensor.shape.size() == order.size() + 1) symbols.emplace_back("R");
    std::vector<Axis> axes = axes_of(symbols, tensor);
    const bool fits = std::ranges::all_of(axes, [&](const Axis& axis) {
      const auto same = std::ranges::find(like, axis.kind, &Axis::kind);
      return axis.kind == AxisKind::copy || (same != like.end() && same->extent == axis.extent);
    });
    if (fits) return axes;
  }
  return unknown_axes(tensor);
}

/// The symbols of `rank` axes: "..." stands for any number of them, of which the outermost counts as the
/// batch and the innermost of several as rows.
Words expanded(Words symbols, std::size_t rank) {
  const auto dots = std::ranges::find(symbols, "...");
  if (dots == symbols.end() || symbols.size() > rank + 1) return symbols;
  Words leading(rank + 1 - symbols.size(), "?");
  if (!leading.empty()) leading.back() = "S";
  if (!leading.empty()) leading.front() = "B";
  symbols.insert(symbols.erase(dots), leading.begin(), leading.end());
  return symbols;
}

/// Of the last axes of something larger, from which a tensor of lower rank is broadcast.
std::vector<Axis> broadcast_axes(const Op& op, const Case& c, Words symbols, const Tensor& tensor) {
  const auto whole = c.in.find(std::string(op.inputs.front().name));
  if (whole != c.in.end()) symbols = expanded(symbols, whole->second.shape.size());
  while (symbols.size() > tensor.shape.size()) symbols.erase(symbols.begin());
  return axes_of(symbols, tensor);
}

/// Rows along another axis than the last, as softmax allows.
bool has_inner_rows(const Case& c) {
  return KeyReader(c, "spec", c.spec).integer("axis", -1) != -1;
}

/// Ports such as "Sq B M" are length first; layout `blm` puts the batch there.
bool is_length_first(const Op& op) {
  const auto key = std::ranges::find(op.spec, "layout", &SpecKey::name);
  return key != op.spec.end() && key->values.find("lbm") != key->values.npos;
}

std::vector<Axis> axes_of(const Op& op, const Case& c, const std::vector<Port>& ports,
                          const std::string& name, const Tensor& tensor) {
  const auto port = std::ranges::find(ports, name, &Port::name);
  if (port == ports.end() || has_inner_rows(c)) return unknown_axes(tensor);
  KeyReader spec(c, "spec", c.spec);
  const bool length_first = is_length_first(op);
  const bool batch_first = length_first && spec.has("layout") && spec.text("layout") == "blm";
  const Layout layout = length_first ? Layout::bhsd : read_layout(spec);
  for (std::string_view rest = port->extents; !rest.empty();) {
    const std::string_view separator = " or ";
    const std::size_t end = std::min(rest.find(separator), rest.size());
    Words symbols = words(rest.substr(0, end));
    rest.remove_prefix(std::min(end + separator.size(), rest.size()));
    if (batch_first && symbols.size() == 3 && symbols[1] == "B") std::swap(symbols[0], symbols[1]);
    if (follows_layout(symbols)) return laid_out_axes(symbols, c, tensor, layout);
    if (is_per_row(symbols)) return per_row_axes(op, c, tensor, layout);
    if (symbols.front() == "~") return broadcast_axes(op, c, {symbols.begin() + 1, symbols.end()}, tensor);
    if (symbols.back() == "(1)" && tensor.shape.back() != 1) symbols.pop_back();
    symbols = expanded(symbols, tensor.shape.size());
    if (symbols.size() == tensor.shape.size()) return axes_of(symbols, tensor);
  }
  return unknown_axes(tensor);
}

}  // namespace

std::vector<Axis> input_axes(const Op& op, const Case& c, const std::string& name) {
  return axes_of(op, c, op.inputs, name, c.in.at(name));
}

std::vector<Axis> output_axes(const Op& op, const Case& c, const std::string& name) {
  return axes_of(op, c, op.outputs, name, c.out.at(name));
}

}  // namespace attest
