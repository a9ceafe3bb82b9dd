// A set of elements of a tensor, in words: "all in rows 64..127 of head 3".
#pragma once

#include <string>
#include <vector>

#include "verify/axes/axes.hpp"
#include "verify/axes/runs.hpp"

namespace attest {

/// "row", "batch entries"
std::string words_for(AxisKind kind, bool is_one);

/// Remembers the indices that its elements have along each axis, not the elements themselves.
class Region {
 public:
  explicit Region(std::vector<Axis> axes);

  /// The element at `flat` of the row-major tensor; each at most once.
  void add(Index flat);

  /// Of at least one element: "everywhere", "all in row 7 of heads 0..3", "spread over the whole tensor".
  std::string text() const;

 private:
  std::vector<Axis> axes_;
  std::vector<std::vector<bool>> touched_;  // per axis and index
  Index count_ = 0;
};

}  // namespace attest
