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

/// Those with a predicted spread that are finite and cannot overflow, of every `step`-th row (0: of so many
/// as have 2^16 elements); `places` has where each is. A row that repeats another tells nothing new and is
/// left out. Empty where fewer than half take part.
std::vector<ErrorSample> error_samples(const Expected& expected, std::vector<ErrorPlace>& places,
                                       Index step = 0);

}  // namespace attest
