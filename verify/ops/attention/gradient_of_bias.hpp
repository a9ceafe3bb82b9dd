// What a gradient of a bias or of a sink may be in place of itself, where its sum is formed wrongly.
#pragma once

#include <span>
#include <vector>

#include "verify/op.hpp"
#include "verify/ops/attention/problem.hpp"

namespace attest {

/// dbias without a head, a batch entry or a sequence, or with one twice; of another factor; of a dS that is
/// wrong in a way that other gradients are not. Empty where dbias is right or not dumped, or would take too
/// long.
std::vector<Decoy> wrong_dbias(const AttentionCase& attention, std::span<const SavedForBackward> saved,
                               std::span<const Expected> expected);

/// dsink without some rows or batch entries, with other weights, or of another factor.
std::vector<Decoy> wrong_dsink(const AttentionCase& attention, std::span<const SavedForBackward> saved,
                               std::span<const Expected> expected);

}  // namespace attest
