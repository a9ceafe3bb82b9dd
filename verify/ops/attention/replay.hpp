// How a kernel rounded the weights that it stored, found out from its own output.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/contract.hpp"
#include "verify/expected.hpp"
#include "verify/ops/attention/case.hpp"

namespace attest {

/// One way to store the weights of a row: each as the nearest number of a format to
/// unit e^(score - reference).
struct WeightStore {
  enum class Reference {
    lse,            // normalised
    row_maximum,    // of the whole row
    first_to_last,  // the running maximum of tiles of keys, in this order
    last_to_first,
    own_maximum,  // of the key's tile
  } reference;
  Index tile;   // keys; 0: not in tiles
  double unit;  // above 1 where a format is too coarse for small weights
  DType dtype;

  /// "P relative to the maximum of tiles of 64 keys, first to last"
  std::string text() const;

  /// The weights of a row as stored, in units of e^(score - lse). s, p: exact scores, -inf where masked, and
  /// weights of all keys.
  std::vector<double> stored(std::span<const double> s, std::span<const double> p, double lse) const;

  /// The same in two steps, for some keys of a row: e^(lse - reference) of each tile, then the weights of
  /// keys first, first + 1, ...
  std::vector<double> factors(std::span<const double> s, double lse) const;
  void store(std::span<const double> p, std::span<const double> factors, Index first,
             std::span<double> weight) const;
};

/// The way that explains a dumped o best, if any does. Adds to o.replays what these roundings come to, in a
/// sample of rows; elements of other rows are NaN. docs/statistics.md, "Replay".
std::optional<WeightStore> replay_weights(const AttentionCase& attention, const Contract& contract,
                                          Expected& o);

/// Which of several replays of all elements explains the dump best, if one explains anything.
void choose_replay(Expected& expected);

}  // namespace attest
