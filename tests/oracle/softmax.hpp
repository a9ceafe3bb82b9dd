// A second softmax, slow and independent of ref: pairs of long double scores, no maximum, no row sum.
#pragma once

#include <vector>

#include "core/view.hpp"

namespace attest::oracle {

struct Softmax {
  std::vector<long double> y;
  long double lse;
};
/// x[N]: finite or -inf, |x| < 5000. A row without a finite score gives y = 0, lse = -inf.
Softmax softmax(View<const double, 1> x);

/// The gradient of sum(y * dy).
std::vector<long double> softmax_gradient(View<const double, 1> x, View<const double, 1> dy);

}  // namespace attest::oracle
