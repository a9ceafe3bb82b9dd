// The oracle's softmax: y_j = 1 / sum_k exp(x_k - x_j), so that every weight is found from pairs alone.
#include "tests/oracle/softmax.hpp"

#include <cmath>
#include <limits>

namespace attest::oracle {
namespace {

constexpr long double infinity = std::numeric_limits<long double>::infinity();
static_assert(std::numeric_limits<long double>::max_exponent >= 16384, "exp(10000) must not overflow");

}  // namespace

Softmax softmax(View<const double, 1> x) {
  Softmax out{std::vector<long double>(x.extent(0), 0), -infinity};
  for (Index j = 0; j < x.extent(0); ++j) {
    const long double xj = x(j);
    if (xj == -infinity) continue;
    long double others = 0;
    for (Index k = 0; k < x.extent(0); ++k) {
      if (k != j) others += std::exp(static_cast<long double>(x(k)) - xj);
    }
    out.y[j] = 1 / (1 + others);
    out.lse = xj + std::log1p(others);  // the same for every j
  }
  return out;
}

std::vector<long double> softmax_gradient(View<const double, 1> x, View<const double, 1> dy) {
  const std::vector<long double> y = softmax(x).y;
  std::vector<long double> dx(y.size(), 0);
  for (Index j = 0; j < x.extent(0); ++j) {
    for (Index k = 0; k < x.extent(0); ++k) {
      dx[j] += y[j] * y[k] * (static_cast<long double>(dy(j)) - static_cast<long double>(dy(k)));
    }
  }
  return dx;
}

}  // namespace attest::oracle
