// What the axes of a case's tensors count: batch entries, heads, rows, ...
#pragma once

#include <string>
#include <vector>

#include "verify/case.hpp"

namespace attest {

struct Op;

/// From the finest to the coarsest, as a place is told: "column 3 of row 7 of head 0 of batch entry 1".
enum class AxisKind { column, copy, key, row, head, batch, unknown };

struct Axis {
  AxisKind kind;
  Index extent;
};

/// The axes of tensor `name` of the case's inputs or outputs, outermost first, from the ports of the op and
/// spec key `layout`. The product of the extents is the tensor's size; their number is its rank, except that
/// a merged axis of heads and columns (layouts bsm and sbm) counts as two. Axes are unknown where the shape
/// is not what the op describes. Throws InvalidCase if there is no such layout.
std::vector<Axis> input_axes(const Op& op, const Case& c, const std::string& name);
std::vector<Axis> output_axes(const Op& op, const Case& c, const std::string& name);

}  // namespace attest
