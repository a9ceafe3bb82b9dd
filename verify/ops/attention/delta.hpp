// Whether a kernel formed delta = do . o before it stored o or after, or of weights, found out from its own
// dq.
#pragma once

#include <vector>

#include "core/contract.hpp"
#include "verify/expected.hpp"
#include "verify/ops/attention/problem.hpp"

namespace attest {

/// Sets delta_shift of `saved`, one for each sequence, in the rows where it is known. o: what is expected of
/// the dumped one, with its replay; dq: as dumped, or null. docs/statistics.md, "Replay".
void find_deltas(const AttentionCase& attention, const Contract& contract, const Expected& o,
                 const Tensor* dq, std::vector<SavedForBackward>& saved);

}  // namespace attest
