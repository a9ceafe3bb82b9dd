// The number in the middle.
#pragma once

#include <algorithm>
#include <cmath>
#include <iterator>
#include <vector>

namespace attest {

/// Of an even count the larger of the two in the middle; NaN of none.
inline double median(std::vector<double> x) {
  if (x.empty()) return std::nan("");
  const auto middle = x.begin() + std::ssize(x) / 2;
  std::ranges::nth_element(x, middle);
  return *middle;
}

}  // namespace attest
