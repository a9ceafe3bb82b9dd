// Runs of indices.
#include "verify/axes/runs.hpp"

namespace attest {

std::vector<IndexRun> runs_of(const std::vector<bool>& flags) {
  std::vector<IndexRun> runs;
  for (Index i = 0; i < std::ssize(flags); ++i) {
    if (!flags[i]) continue;
    if (runs.empty() || runs.back().last + 1 != i) runs.push_back({i, i});
    runs.back().last = i;
  }
  return runs;
}

}  // namespace attest
