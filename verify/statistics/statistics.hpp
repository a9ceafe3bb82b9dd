// What no single element shows and a whole tensor does: errors that spread too far, or lean to one side.
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "verify/expected.hpp"

namespace attest {

/// A figure of one tensor. Of a kernel that keeps its contract, it exceeds the limit with a probability of
/// about 2e-8. Derivation: docs/statistics.md.
struct Statistic {
  std::string name;     // "spread", "gain", "unreplayed", "replayed spread", "misrounded"
  double value, limit;  // above the limit, something is wrong; gain: in absolute value
  bool exceeds() const { return std::abs(value) > limit; }
};

/// The two figures by blocks of the tensor, so that another run on the same inputs can be held against this
/// one block by block (verify/report/baseline.hpp). Means of error^2 / predicted variance, and gains.
struct ErrorProfile {
  struct Blocks {
    std::vector<double> rows, columns;
  };
  Blocks spread, gain;
  double systematic_gain = 0;  // what systematic errors, all in one direction, could do to the gain
};

/// spread: root mean square of error / predicted standard deviation.
/// gain: by which factor, less 1, the values are too large.
/// unreplayed, replayed spread, misrounded: see replay_statistics.
/// Empty where fewer than half of the elements have a predicted spread, or too few of them are independent.
/// `profile`, if given, is filled, too.
std::vector<Statistic> statistics(const Expected& expected, ErrorProfile* profile = nullptr);

/// sigma^2 is a model: real and emulated kernels that keep their contract stay below (docs/statistics.md).
inline constexpr double model_slack = 0.15;

}  // namespace attest
