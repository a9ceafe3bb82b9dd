// Computes how far the errors of the parts of an output spread.
#pragma once

#include <span>
#include <vector>

#include "verify/axes/axes.hpp"
#include "verify/expected.hpp"
#include "verify/statistics/spread_by_region.hpp"

namespace attest {

/// By batch entry, head, row and key, as far as the output has several: at most 32 regions of an axis, blocks
/// of rows a power of two from 16 on. places: the flat index, in the tensor with these axes, of each element
/// of `expected`; empty if it is that tensor. Derivation: docs/statistics.md, "Regions".
std::vector<SpreadByRegion> spread_by_region(const Op& op, const std::vector<Axis>& axes,
                                             const Expected& expected, std::span<const Index> places = {});

}  // namespace attest
