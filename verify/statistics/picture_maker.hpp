// Draws the picture of an output while its elements come by.
#pragma once

#include <vector>

#include "verify/axes/axes.hpp"
#include "verify/expected.hpp"
#include "verify/statistics/picture.hpp"

namespace attest {

/// Takes the elements of an output in any order; needs memory for the maps and one flag for each index of
/// their axes.
class PictureMaker {
 public:
  PictureMaker(const Op& op, const std::vector<Axis>& axes);

  /// Element `at` of `expected` is the one at `flat` of the row-major tensor.
  void add(const Expected& expected, Index at, Index flat);

  Picture take();

 private:
  /// The axes of the tensor that one side of a map counts, outermost first.
  using Side = std::vector<std::size_t>;

  void add_map(const Op& op, const Side& down, const Side& across, const Side& over);
  Index index_of(const Side& side) const;

  struct Sides {
    Side down, across;
    std::vector<bool> down_wrong, across_wrong;  // indices that have an element beyond its bound
  };

  std::vector<Axis> axes_;
  std::vector<Index> index_;  // of the element at hand, along each axis
  std::vector<Sides> sides_;  // of each map
  Picture picture_;
};

/// The largest power of two from 16 to 256 at whose multiples, or the end, everything wrong begins and ends,
/// if it fills what it touches by three quarters and leaves some untouched; 0 if there is none.
Index suggested_tile(const std::vector<bool>& wrong);

}  // namespace attest
