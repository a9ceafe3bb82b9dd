// Linear layers: exact values, and how far a device may be off whose inputs may be off already. Equation
// numbers refer to docs/bounds_multihead.md.
#pragma once

#include <functional>
#include <vector>

#include "core/view.hpp"
#include "verify/bounds/contraction.hpp"

namespace attest::bounds {

/// y = w x + b, for many x.
class Linear {
 public:
  /// weight[N, M], bias[N] or empty.
  Linear(View<const double, 2> weight, View<const double, 1> bias, const Accumulator& accumulator);

  Index inputs() const { return inputs_; }
  Index outputs() const { return outputs_; }
  /// As Arithmetic::reference_share.
  double reference_share() const;

  /// Calls fill(row, x) for x[M], then take(row, n, y) for every output n of that row before it is stored.
  /// Rows are spread over threads; each of them belongs to one. Equation (1).
  void apply(Index rows, const std::function<void(Index row, Factor* x)>& fill,
             const std::function<void(Index row, Index n, const Estimate& y)>& take) const;

 private:
  Index inputs_, outputs_, terms_;  // terms: inputs, and 1 times the bias
  Accumulator accumulator_;
  std::vector<double> packed_;  // [N / lanes, terms, lanes]
};

/// What the device has after it stored y in `dtype`. Equation (2).
Factor stored(const Estimate& y, DType dtype);

/// For every n of w[N, D]: how much more w_n.x varies over the rows of x[S, D] than it would if the columns
/// of x varied independently, about 0 or about their means, whichever is more; at least 1. Equation (6).
std::vector<double> coherence(View<const double, 2> x, View<const double, 2> w);

}  // namespace attest::bounds
