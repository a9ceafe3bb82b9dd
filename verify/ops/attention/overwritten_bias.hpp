// A gradient of a broadcast bias of which each share overwrites the one before.
#pragma once

#include <span>
#include <vector>

#include "verify/op.hpp"
#include "verify/ops/attention/problem.hpp"

namespace attest {

/// dbias of the last row, head or batch entry that shares an element, as answers. Empty where dbias is not
/// dumped, or would take too long.
std::vector<Decoy> overwritten_dbias(const AttentionCase& attention, std::span<const SavedForBackward> saved,
                                     std::span<const Expected> expected);

}  // namespace attest
