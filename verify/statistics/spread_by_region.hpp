// How far the errors of the parts of an output spread: of each head, of each block of rows.
#pragma once

#include <string>
#include <vector>

#include "core/view.hpp"

namespace attest {

/// Of the indices from first to last along an axis: the spread of statistics() and a limit that a kernel
/// which keeps its contract exceeds in any region of the output with a probability of about 2e-8. Infinite
/// where too few errors are independent.
struct RegionSpread {
  Index first, last;
  double spread, limit;
  bool exceeds() const { return spread > limit; }
};

struct SpreadByRegion {
  std::string name, names;  // of the axis: "head", "heads"
  std::vector<RegionSpread> regions;
};

}  // namespace attest
