// Right numbers of attention in wrong places, for answers that a failed dump is held against.
#pragma once

#include <span>
#include <vector>

#include "verify/op.hpp"
#include "verify/ops/attention/case.hpp"

namespace attest {

/// o, dq, dk or dv of a sequence as [heads, rows or keys, width]; of lse, copies count as its width.
View<const double, 3> view_of_rows(const AttentionCase& attention, const Expected& e, const Sequence& s);

/// Outputs with their heads, columns or axes in another order, of the other sign, of another row, or
/// exchanged with each other.
std::vector<Decoy> rearranged_outputs(const AttentionCase& attention, std::span<const Expected> expected);

}  // namespace attest
