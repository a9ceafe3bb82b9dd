// Runs of indices: "0, 3, 64..127".
#pragma once

#include <vector>

#include "core/view.hpp"

namespace attest {

/// Indices from first to last.
struct IndexRun {
  Index first, last;
};

/// The runs of true, in order.
std::vector<IndexRun> runs_of(const std::vector<bool>& flags);

inline constexpr std::size_t most_runs = 4;  // that are told, or drawn, one by one

}  // namespace attest
