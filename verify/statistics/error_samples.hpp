// The errors of the elements that statistics look at.
#pragma once

#include <vector>

#include "verify/expected.hpp"
#include "verify/statistics/scatter.hpp"

namespace attest {

/// One element that takes part. beside_stores: the systematic part without the rounding of stored operands,
/// if that is known.
struct ErrorSample {
  Index at;
  double value, error, variance, systematic, beside_stores;
  /// What error^2 is to be.
  double predicted() const { return variance + systematic * systematic; }
};

/// Every how many-th of so many rows has no more than `most` elements in all. It shares no divisor with their
/// number, so that all heads and all rows of a tile have their share, in any layout.
Index row_step(Index elements, Index rows, Index most);

/// Those with a predicted spread that are finite and cannot overflow, of rows at an equal distance with
/// `most` elements or so; `places` has where each is. A row that repeats another tells nothing new and is
/// left out. Empty where fewer than half take part.
std::vector<ErrorSample> error_samples(const Expected& expected, std::vector<ErrorPlace>& places,
                                       Index most = Index{1} << 16);

}  // namespace attest
