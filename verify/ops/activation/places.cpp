// Activations that are another function of x, whatever function, and elements that are copied.
#include <algorithm>
#include <cmath>
#include <iterator>
#include <numeric>

#include "verify/compare.hpp"
#include "verify/diagnosis/diagnose.hpp"
#include "verify/ops/activation/problem.hpp"
#include "verify/ops/weighted_sums.hpp"
#include "verify/text.hpp"

namespace attest {
namespace {

using ref::Activation;

/// With so many elements chance takes the share below up or down by 0.06.
constexpr std::size_t least_elements = 256;
constexpr double least_explained = 0.7;

struct Point {
  double x, error;
};

/// The share of the squares of the errors that neighbours in x have in common: 1 if errors are a smooth
/// function of x, about 0 if they have nothing to do with each other. After von Neumann (1941).
double share_in_common(std::vector<Point> points) {
  std::ranges::sort(points, {}, &Point::x);
  double steps = 0, squares = 0, count = 0;
  for (std::size_t n = 1; n < points.size(); ++n) {
    const double before = points[n - 1].error, step = points[n].error - before;
    steps += step * step, squares += before * before, count += 1;
  }
  return count > 0 && squares > 0 ? 1 - steps / (2 * squares) : 0;
}

}  // namespace

// Too few may be copied for a vote: those that vectors leave over at the end.
std::vector<DiagnosisEntry> ActivationProblem::copied_elements(const Expected& e) const {
  const std::string input = e.output == "y" ? "x" : "dy";
  const std::vector<double>& from = case_.input(input)->values;
  Index wrong = 0, copied = 0, first = x_.size();
  for (Index at = 0; at < x_.size(); ++at) {
    const double got = e.dumped->values[at];
    if (within_bound(e, at, got)) continue;
    first = std::min(first, at);
    ++wrong;
    copied += got == from[at] && got != 0;
  }
  constexpr double nearly_all = 0.9;
  const double share = wrong > 0 ? static_cast<double>(copied) / static_cast<double>(wrong) : 0;
  if (share < nearly_all) return {};
  Index last = x_.size() - first;  // elements that are all as they were
  for (Index at = first; at < x_.size(); ++at)
    if (e.dumped->values[at] != from[at]) last = 0;
  const bool is_tail = 0 < last && last < x_.size();
  const std::string count = last == 1 ? " element" : " " + std::to_string(last) + " elements";
  return {{e.output + " is " + input + ", copied as it is" + (is_tail ? ", in the last" + count : ""), share,
           std::to_string(copied) + " of " + std::to_string(wrong) + " wrong elements have the value of " +
               input}};
}

// Through 1 + erf, 1 + tanh or a rational function, a gate is as good as 1 has digits, not as it has itself.
std::vector<DiagnosisEntry> ActivationProblem::gate_without_tail(const Expected& y) const {
  constexpr Index least_wrong = 3;
  const double most = 32 * unit_roundoff(compute_);
  Index wrong = 0;
  double off = 0;
  for (Index at = 0; at < x_.size(); ++at) {
    const double got = y.dumped->values[at];
    if (within_bound(y, at, got)) continue;
    ++wrong;
    const double factor = kind_ == Activation::sigmoid ? 1 : std::abs(x_.values[at]);
    const double of_gate = (std::abs(got - y.value[at]) - ulp(got, y.dtype) / 2) / factor;
    if (!(of_gate <= most)) return {};
    off = std::max(off, of_gate);
  }
  if (wrong < least_wrong) return {};
  const std::string gate = kind_ == Activation::gelu_erf    ? "Phi(x)"
                           : kind_ == Activation::gelu_tanh ? "(1 + tanh) / 2"
                                                            : "the sigmoid";
  return {{gate + " is off by up to " + number_text(off, 2) + " however small it is: contract key gate_error",
           confidence_of_a_place, "none of " + std::to_string(wrong) + " wrong elements is off by more"}};
}

std::vector<DiagnosisEntry> ActivationProblem::explanations(std::span<const Expected> expected) const {
  std::vector<DiagnosisEntry> all;
  const std::string own = kind_ == Activation::gelu_erf    ? "erf"
                          : kind_ == Activation::gelu_tanh ? "tanh"
                                                           : "the sigmoid";
  const auto y = std::ranges::find(expected, "y", &Expected::output);
  const bool y_is_wrong = y != expected.end() && has_wrong_elements(*y);
  const auto dx = std::ranges::find(expected, "dx", &Expected::output);
  const bool dx_is_wrong = dx != expected.end() && has_wrong_elements(*dx);
  if (y_is_wrong) all = gate_without_tail(*y);
  for (const Expected& e : expected) {
    std::ranges::move(copied_elements(e), std::back_inserter(all));
    if (e.output == "dx" && y_is_wrong) continue;
    if (e.output == "y" && !y_is_wrong && dx_is_wrong) continue;
    std::vector<Index> order(x_.size());
    std::iota(order.begin(), order.end(), Index{0});
    std::ranges::sort(order, {}, [&](Index at) { return x_.values[at]; });
    // Stores err with the digits of y, which follow x where y is nearly a line, and alike where x is alike:
    // only where a neighbour in x errs by more an element is looked at.
    const auto error = [&](Index at) { return e.dumped->values[at] - e.value[at]; };
    const auto is_gross = [&](Index at) { return std::abs(error(at)) > ulp(e.dumped->values[at], e.dtype); };
    std::vector<Point> points;
    double off = 0;
    for (std::size_t n = 1; n + 1 < order.size(); ++n) {
      const Index at = order[n];
      const double x = x_.values[at];
      const bool is_told = is_gross(order[n - 1]) || is_gross(at) || is_gross(order[n + 1]);
      if (x == x_.values[order[n - 1]] || !is_told || !std::isfinite(error(at))) continue;
      const double factor = e.output == "dx"               ? case_.input("dy")->values[at]
                            : kind_ == Activation::sigmoid ? 1
                                                           : x;
      if (factor == 0) continue;
      points.push_back({x, error(at) / factor});
      const bool is_gate = kind_ == Activation::gelu_erf || kind_ == Activation::gelu_tanh;
      if (is_gross(at))
        off = std::max(off, std::abs(error(at) / factor) * (is_gate && e.output == "y" ? 2 : 1));
    }
    const double share = points.size() < least_elements ? 0 : share_in_common(points);
    if (share < least_explained) continue;
    if (e.output == "y") {
      // What is off by more is another function, and none that is known.
      constexpr double most_of_approximation = 0x1p-6, most_declared = 0x1p-8;
      const bool is_doubled = kind_ == Activation::gelu_erf || kind_ == Activation::gelu_tanh;
      const double of_gate = is_doubled ? off / 2 : off;
      if (!(of_gate > gate_error_)) continue;  // as declared
      const std::string evidence = percent(share) + " of the squared errors are a function of x";
      if (of_gate > most_of_approximation) {
        all.push_back({"y, which is another function of x", confidence_of_a_place, evidence});
        continue;
      }
      // erf and tanh reach from -1 to 1, and the key means the gate.
      all.push_back({own + " by an approximation that is off by up to " + number_text(off, 2) +
                         (is_doubled ? ", the gate by " + number_text(of_gate, 2) : "") +
                         (of_gate < most_declared ? ": contract key gate_error" : ""),
                     share, evidence});
    } else {
      all.push_back({"the derivative, which is another function of x", confidence_of_a_place,
                     percent(share) + " of the squared errors of dx / dy are a function of x"});
    }
  }
  return all;
}

}  // namespace attest
