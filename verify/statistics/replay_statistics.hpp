// What remains of a tensor's errors once the roundings of stored operands are known.
#pragma once

#include <vector>

#include "verify/statistics/statistics.hpp"

namespace attest {

/// Of the replay that explains the dump best; at most one of the first two:
/// unreplayed: share of the values that differ from the exact sum of the operands as stored, rounded.
/// replayed spread: of outputs whose elements show more than that: root mean square of what is left of the
/// errors / its predicted standard deviation.
/// misrounded: of gradients, share of the stored operands that are not the nearest to the exact ones.
/// Where there must be a replay and none explains the dump, misrounded is that of the least wrong one.
/// Empty where there is no replay, or where it does not say enough. Derivation: docs/statistics.md, "Replay".
std::vector<Statistic> replay_statistics(const Expected& expected);

/// Makes replays[n] the best one, and finds which share of the roundings it does not tell. What is dumped and
/// expected must not change any more.
void take_replay(Expected& expected, std::size_t n);

/// A replay that tells less than the rest of this is of no use to explanations of errors.
inline constexpr double most_not_replayed = 0.25;

/// Share of the elements that are what expected.replay() gives, rounded; 0 without one.
double share_predicted(const Expected& expected);

/// Of the error of an element beside the roundings that are told. Equation (7).
double variance_beside_replay(const Expected& expected, Index at, double share_not_replayed);

}  // namespace attest
