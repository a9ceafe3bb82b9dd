// What an op says of one output: the exact values and how far a correct kernel may be from them.
#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "core/dtype.hpp"
#include "verify/case.hpp"

namespace attest {

/// The bounds of one element. systematic: the part of the error before the store that need not average out
/// over elements.
struct ElementBound {
  double value, value_error, rigorous, probable, sigma, systematic;
};

/// What the roundings of stored operands do to an output, if the kernel stores them in this way.
struct Replay {
  std::string way;            // "P relative to the maximum of tiles of 128 keys"
  int variant;                // which of the ways of its output
  std::vector<double> shift;  // per element of the output; NaN where it was not computed
};

/// The share of the stored operands' roundings that are not as a replay has them. Equations (6) and (11) of
/// docs/statistics.md.
struct NotReplayed {
  double estimate = 1, uncertainty = 0;
  double neighbours = 1.0 / 6;  // how many of all errors before the stores may take to a neighbouring number
  double upper() const { return std::clamp(estimate + uncertainty, 0.0, 1.0); }
};

/// Every vector has one entry per element of the output, in the order of the dumped tensor, or none.
struct Expected {
  std::string output;    // "o", "lse", ...
  const Tensor* dumped;  // what the kernel wrote; outlives this
  DType dtype;           // its element type
  std::vector<double> value;
  std::vector<double> value_error;  // certified: |value - exact| <= value_error
  std::vector<double>
      rigorous;  // no kernel that keeps the contract is further off, rounding of the store included
  std::vector<double>
      probable;               // <= rigorous; one is further off anywhere in the tensor with probability 1e-9
  std::vector<double> sigma;  // predicted standard deviation, rounding of the store included
  std::vector<float> joint;  // share of sigma that all elements can have at once, where sigma is the worst of
                             // each alone; empty: 1
  std::vector<double> systematic;  // bound of what does not average out, rounding of the store not included

  std::vector<double> double_error;  // value_error of values in double; empty if those of `value` are

  // Of outputs that are sums of operands which a device rounds and stores (P, dS): ways to store them, which
  // of these explains the dump best, if one explains anything, and what is left of the two lines above,
  // without the output's own store, if these roundings are known. All empty for other outputs.
  std::vector<Replay> replays;
  std::optional<std::size_t> best_replay;
  NotReplayed not_replayed;      // by the best
  bool has_all_replays = false;  // a kernel that keeps the contract stores in one of these ways
  bool must_replay = false;      // and this kernel does, as another output shows
  std::vector<double> rest_sigma, rest_systematic;

  Expected(std::string name, const Tensor& tensor)
      : output(std::move(name)),
        dumped(&tensor),
        dtype(tensor.dtype.value()),
        value(tensor.size()),
        value_error(tensor.size()),
        rigorous(tensor.size()),
        probable(tensor.size()),
        sigma(tensor.size()),
        systematic(tensor.size()) {}

  void set(Index i, const ElementBound& b) {
    value[i] = b.value;
    value_error[i] = b.value_error;
    rigorous[i] = b.rigorous;
    probable[i] = b.probable;
    sigma[i] = b.sigma;
    systematic[i] = b.systematic;
    if (!joint.empty()) joint[i] = 1;
  }

  /// Makes room for what is left when stored operands are known.
  void expect_rest() {
    rest_sigma.assign(value.size(), 0);
    rest_systematic.assign(value.size(), 0);
  }

  /// For statistics of many elements.
  double sigma_of_many(Index i) const { return joint.empty() ? sigma[i] : joint[i] * sigma[i]; }

  /// The one that explains the dump best; null if none does.
  const Replay* replay() const { return best_replay ? &replays[*best_replay] : nullptr; }

  /// What value and the same computed in double, as ref does, may differ by.
  double disagreement(Index i) const {
    return value_error[i] + (double_error.empty() ? value_error : double_error)[i];
  }

  double bound(Index i) const { return probable[i] + value_error[i]; }
};

}  // namespace attest
