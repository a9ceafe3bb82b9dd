// Activations with other constants, which are fitted to what was dumped: in the argument of erf or tanh, or
// as a factor of all.
#include <algorithm>
#include <cmath>
#include <numbers>
#include <set>

#include "verify/compare.hpp"
#include "verify/ops/activation/problem.hpp"
#include "verify/statistics/median.hpp"
#include "verify/text.hpp"

namespace attest {
namespace {

using ref::Activation;

/// A constant that a program holds has no more digits than this, or is as good as the right one.
constexpr int most_digits = 6;

double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}

/// x with erf(x) = f, for |f| < 1, from a start nearby.
double inverse_erf(double f, double x) {
  constexpr int steps = 6;  // of Newton
  for (int n = 0; n < steps; ++n) x -= (std::erf(x) - f) * std::exp(x * x) / (2 * std::numbers::inv_sqrtpi);
  return x;
}

/// A number as a program may have it: to fewer and fewer digits.
std::set<std::string> readings(double fitted, double right) {
  std::set<std::string> all;
  for (int digits = 1; std::isfinite(fitted) && digits <= most_digits; ++digits) {
    const std::string text = number_text(fitted, digits);
    const double value = number_of(text);
    if (std::isfinite(value) && value != right && value != 0) all.insert(text);
  }
  return all;
}

}  // namespace

std::vector<Decoy> ActivationProblem::fitted_constants(std::span<const Expected> expected) const {
  std::vector<Decoy> all;
  const auto add = [&](const std::string& name, const Function& value, const Function& slope) {
    for (Decoy& answer : sampled(name, value, slope)) {
      answer.is_of_whole_call = true;
      all.push_back(std::move(answer));
    }
  };
  for (const Expected& e : expected) {
    std::vector<double> factors;
    for (Index at = 0; at < x_.size(); ++at)
      if (!within_bound(e, at, e.dumped->values[at])) factors.push_back(e.dumped->values[at] / e.value[at]);
    for (const std::string& factor : readings(median(factors), 1)) {
      // Stores that cut off look like a factor as near to 1.
      constexpr double roundings = 4;
      if (std::abs(number_of(factor) - 1) <= roundings * unit_roundoff(e.dtype)) continue;
      std::vector<Decoy> answers = sampled(
          e.output + " times " + factor, [this](double x) { return ref::activation(kind_, x); },
          [this](double x) { return ref::activation_derivative(kind_, x); });
      for (Decoy& answer : answers) {
        if (answer.output != e.output) continue;
        for (double& value : answer.value) value *= number_of(factor);
        answer.is_of_whole_call = true;
        all.push_back(std::move(answer));
      }
    }
  }

  const auto y = std::ranges::find(expected, "y", &Expected::output);
  const bool by_erf = kind_ == Activation::gelu_erf;
  if (y == expected.end() || !has_wrong_elements(*y) || (!by_erf && kind_ != Activation::gelu_tanh))
    return all;
  // The argument of erf or tanh where it tells much.
  std::vector<double> x, argument;
  for (Index at = 0; at < x_.size(); ++at) {
    const double of = x_.values[at], f = 2 * y->dumped->values[at] / of - 1;
    if (!(0.5 < std::abs(of) && std::abs(of) < 3 && std::abs(f) < 1)) continue;
    x.push_back(of);
    argument.push_back(by_erf ? inverse_erf(f, of / std::numbers::sqrt2) : std::atanh(f));
  }
  const auto fitted = [&](auto constant) {
    std::vector<double> of_each(x.size());
    for (std::size_t n = 0; n < x.size(); ++n) of_each[n] = constant(x[n], argument[n]);
    return median(of_each);
  };
  if (by_erf) {
    const double right = 1 / std::numbers::sqrt2;
    for (const std::string& text : readings(fitted([](double of, double v) { return v / of; }), right)) {
      const double a = number_of(text);
      add(
          "erf(" + text + " x), not erf(x / sqrt(2))", [a](double of) { return of * std::erfc(-a * of) / 2; },
          [a](double of) {
            return std::erfc(-a * of) / 2 + of * a * std::exp(-a * a * of * of) * std::numbers::inv_sqrtpi;
          });
    }
    return all;
  }
  const auto add_tanh = [&](const std::string& name, double a, double c) {
    const auto gate = [a, c](double of) { return sigmoid(2 * a * of * (1 + c * of * of)); };
    add(
        name, [gate](double of) { return of * gate(of); },
        [gate, a, c](double of) {
          const double s = gate(of);
          return s + 2 * of * a * (1 + 3 * c * of * of) * s * (1 - s);
        });
  };
  const double a = ref::gelu_tanh_scale, c = ref::gelu_tanh_cubic;
  const auto scale = [](double cubic) {
    return [cubic](double of, double v) { return v / (of * (1 + cubic * of * of)); };
  };
  const auto cubic = [&](double of, double v) { return (v / (a * of) - 1) / (of * of); };
  for (const std::string& text : readings(fitted(scale(c)), a))
    add_tanh(text + " in the place of sqrt(2/pi)", number_of(text), c);
  constexpr double least_cubic = 0x1p-10;  // less is none, which has a name
  if (std::abs(fitted(cubic)) > least_cubic * c)
    for (const std::string& text : readings(fitted(cubic), c))
      add_tanh(text + " in the place of 0.044715", a, number_of(text));
  add_tanh("tanh without the term in x^3", a, 0);
  for (const std::string& text : readings(fitted(scale(0)), a))
    add_tanh("tanh(" + text + " x), without the term in x^3", number_of(text), 0);
  return all;
}

}  // namespace attest
