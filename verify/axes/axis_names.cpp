// What axes are called in pictures and tables.
#include "verify/axes/axis_names.hpp"

#include <algorithm>

#include "verify/op.hpp"

namespace attest {
namespace {

/// Rows are told apart where an op has queries and keys.
bool has_keys(const Op& op) {
  return std::ranges::any_of(op.inputs,
                             [](const Port& port) { return port.extents.find("Sk") != port.extents.npos; });
}

}  // namespace

std::string axis_name(const Op& op, const std::vector<Axis>& axes, std::size_t axis) {
  switch (axes[axis].kind) {
    case AxisKind::column:
      return "column";
    case AxisKind::copy:
      return "copy";
    case AxisKind::key:
      return "key row";
    case AxisKind::row:
      return has_keys(op) ? "query row" : "row";
    case AxisKind::head:
      return "head";
    case AxisKind::batch:
      return "batch entry";
    case AxisKind::unknown:
      return "index of axis " + std::to_string(axis);
  }
  return {};
}

std::string plural(const std::string& name) {
  if (name == "batch entry") return "batch entries";
  if (name == "copy") return "copies";
  return name.starts_with("index") ? "indices" + name.substr(5) : name + "s";
}

}  // namespace attest
