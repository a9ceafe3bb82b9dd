// Where the errors of an output are, as maps of a fixed size that a report can draw.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "verify/axes/runs.hpp"

namespace attest {

/// One side of a map: `extent` indices, `per_cell` of them (a power of two) in each of at most 64 cells.
struct MapAxis {
  std::string name, names;  // "query row", "query rows"; empty if there is but one index
  Index extent = 1, per_cell = 1;
  std::string unit, units;      // of the indices themselves: "head" where `name` is "batch entry"
  std::string each;             // what a group of indices, of which `name` counts one, holds: "8 heads"
  Index group = 1;              // size of such a group
  std::vector<IndexRun> wrong;  // elements beyond their bounds; of more than four runs, from first to last
  Index tile = 0;               // at multiples of which all of `wrong` begin and end; 0: none is suggested

  Index cells() const { return (extent + per_cell - 1) / per_cell; }
};

/// The largest |error| / bound of each cell, above 1 where an element is beyond its bound: infinity where a
/// special value is wrong, NaN where nothing was judged.
struct ErrorMap {
  MapAxis down, across;
  std::string over;          // what the maximum is over, beside what a cell holds: "4 heads"
  std::vector<float> ratio;  // row-major, down.cells() x across.cells()
};

/// Errors in units of what is predicted, positive if they point away from zero: how many elements are in each
/// step of `width`, the first and the last with all that is further out.
struct ErrorHistogram {
  static constexpr double width = 0.25;
  static constexpr Index steps = 32;
  std::array<Index, steps> count{};
  Index total = 0;  // elements with a prediction
};

struct Picture {
  std::vector<ErrorMap> maps;  // rows x columns and rows x heads, as far as there are any
  ErrorHistogram histogram;
};

}  // namespace attest
