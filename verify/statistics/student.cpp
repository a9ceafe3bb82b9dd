// Quantiles of Student's t distribution.
#include "verify/statistics/student.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace attest {
namespace {

/// P(|T| > t), from the density integrated over the angle with tan(angle) = t / sqrt(freedom): the integral
/// of cos^(freedom - 1) from there to pi/2, by Simpson's rule in the logarithm of what it decays over.
double tail(double freedom, double t) {
  const double power = freedom - 1, start = std::atan(t / std::sqrt(freedom));
  const double norm =
      std::exp(std::lgamma((freedom + 1) / 2) - std::lgamma(freedom / 2)) / std::sqrt(std::numbers::pi);
  const Index steps = 400;
  // cos^power falls by a factor e over about 1 / (power tan start): 60 such lengths hold all that counts.
  const double slope = power * std::tan(start);
  const double end = std::min(std::numbers::pi / 2, start + (slope > 0 ? 60 / slope : 2));
  const double h = (end - start) / static_cast<double>(steps);
  double sum = 0;
  for (Index k = 0; k <= steps; ++k) {
    const double weight = k == 0 || k == steps ? 1 : k % 2 == 1 ? 4 : 2;
    sum += weight * std::pow(std::max(0.0, std::cos(start + h * static_cast<double>(k))), power);
  }
  return 2 * norm * sum * h / 3;
}

}  // namespace

double student_quantile(Index freedom, double probability) {
  const double n = static_cast<double>(freedom);
  double low = 0, high = 1;
  while (tail(n, high) > probability) high *= 2;
  for (int k = 0; k < 40; ++k) {
    const double middle = (low + high) / 2;
    (tail(n, middle) > probability ? low : high) = middle;
  }
  return high;
}

}  // namespace attest
