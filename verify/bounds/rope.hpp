// Exact values and bounds of a rotary embedding. Equation numbers refer to docs/bounds_rope.md.
#pragma once

#include <string_view>
#include <vector>

#include "core/rope.hpp"
#include "verify/axes/layout.hpp"
#include "verify/bounds/arithmetic.hpp"
#include "verify/bounds/rope_angles.hpp"
#include "verify/expected.hpp"

namespace attest::bounds {

/// Where cosines and sines come from: a table that the kernel read, or positions and inverse frequencies.
/// Row b S + s belongs to row s of batch entry b.
struct RopeSource {
  // a table, exact as given: cos(row, column) has R columns, or R/2 for both columns of a pair
  View<const double, 2> cos, sin;
  std::vector<Index> table_rows;

  // or angles
  std::vector<PairFrequency> frequencies;
  AngleRule rule = AngleRule::exact;
  double attention_factor = 1;
  std::vector<double> positions;

  bool has_table() const { return static_cast<bool>(cos); }
};

/// What the arithmetic of a kernel promises.
struct RopeArithmetic {
  DType compute;               // of the products and their sum, in any order, fused or not
  DType operand;               // element type of x or dy
  DType cos_table, sin_table;  // of a table: the kernel may round it to `compute` first

  // declared, where cosines and sines are computed by approximations
  double angle_error = 0;   // relative, of the angle; used with AngleRule::exact
  double sincos_error = 0;  // absolute, of each before the attention factor
};

/// One tensor in memory: [B, H, S, D] in any layout; the input and its output share shape and layout.
struct RopeShape {
  std::string_view order;  // axis_order(layout)
  AxisSizes sizes;
};

/// Which of its candidates each pair's inverse frequency is, by index.
using CandidateChoice = std::vector<std::size_t>;

/// Fills `expected` from `input`. Under AngleRule::float32 a device's inverse frequencies may be any of the
/// candidates, each one and the same throughout the tensor: every pair is judged by the candidate that fits
/// expected.dumped best, the nearest to the exact one if several do. Returns that choice.
CandidateChoice expect_rope(const RopeSpec& spec, const RopeSource& source, const RopeArithmetic& arithmetic,
                            bool backward, const RopeShape& shape, const std::vector<double>& input,
                            Expected& expected);

}  // namespace attest::bounds
