// Which of many rows, columns or elements are looked at.
#pragma once

#include <algorithm>
#include <vector>

#include "core/view.hpp"

namespace attest {

/// At most `most` of n indices, evenly spread, the first and the last among them.
inline std::vector<Index> evenly_spread(Index n, Index most) {
  std::vector<Index> at;
  const Index count = std::min(n, most);
  for (Index k = 0; k < count; ++k) at.push_back(count == 1 ? 0 : k * (n - 1) / (count - 1));
  return at;
}

}  // namespace attest
