// Outputs that were stored in a narrower format on the way: every number of theirs tells.
#include "verify/diagnosis/narrow_stores.hpp"

#include <algorithm>
#include <cmath>

#include "verify/compare.hpp"
#include "verify/diagnosis/grid.hpp"

namespace attest {
namespace {

/// Fewer numbers may be such numbers by chance.
constexpr Index fewest = 32;

/// Finite ones that are not 0 and that not every number of the type would be on the grid beside; none if one
/// of them is not on it, or further off than one rounding to it.
Index numbers_on(const Grid& grid, const Expected& e) {
  const Format& format = format_of(e.dtype);
  const Grid own{"", format.precision, format.emin};
  Index count = 0;
  for (Index at = 0; at < e.dumped->size(); ++at) {
    const double x = e.dumped->values[at], error = std::abs(x - e.value[at]);
    if (x == 0 || !std::isfinite(x)) continue;
    if (grid.round(x) != x || !(error <= e.bound(at) + grid.spacing(x))) return 0;
    count += own.spacing(x) < grid.spacing(x);
  }
  return count;
}

}  // namespace

std::vector<DiagnosisEntry> narrow_stores(std::span<const Expected> expected) {
  std::vector<DiagnosisEntry> all;
  for (const Expected& e : expected) {
    if (e.output == "m" || !has_wrong_elements(e)) continue;  // m is one of the scores, and no better
    const Format& own = format_of(e.dtype);
    std::string coarsest;
    Index count = 0;
    for (const Grid& grid : narrow_grids) {  // each coarser than the one before
      if (grid.precision >= own.precision) continue;
      const Index numbers = numbers_on(grid, e);
      if (numbers < fewest) continue;
      coarsest = grid.name;
      count = numbers;
    }
    if (coarsest.empty()) continue;
    all.push_back(
        {e.output + " stored in " + coarsest + " on the way", 1,
         "all " + std::to_string(count) + " numbers of " + e.output + " that need not be in it are"});
  }
  return all;
}

}  // namespace attest
