// The sums that gradients of a failed attention dump are, for explanations of their errors.
#pragma once

#include <span>
#include <vector>

#include "verify/ops/attention_problem.hpp"
#include "verify/ops/weighted_sums.hpp"

namespace attest {

/// A sample of the rows of dq that hold a wrong element, or of all where few do: terms are keys, weighted
/// with scale dS. Empty with softcap, whose slope is not modelled.
std::vector<WeightedSum> wrong_query_sums(const AttentionCase& attention,
                                          std::span<const SavedForBackward> saved, const Contract& contract,
                                          const Expected& dq);

/// The same for keys of dk (weights scale dS) or dv (weights P), of one head of one sequence. Terms are query
/// rows, those of the heads of a group one after another. Empty where it would take too long.
std::vector<WeightedSum> wrong_key_sums(const AttentionCase& attention,
                                        std::span<const SavedForBackward> saved, const Contract& contract,
                                        const Expected& gradient);

}  // namespace attest
