// Softmax and the activations.
#include <cmath>
#include <limits>

#include "data/golden/results.hpp"

namespace attest::golden {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

Interval ratio(double numerator, double denominator) {
  return Interval(numerator) / Interval(denominator);
}

/// 1 / (1 + exp(-x)).
Interval sigmoid(const Interval& x) {
  return Interval(1) / (Interval(1) + exp(-x));
}

/// f(x) = base + rest and f'(x) = slope_base + slope_rest: above 0, the base is what is left of f far out.
struct Point {
  Interval base, rest, slope_base, slope_rest;
};

/// Of x g(w(x)) with a gate g that grows from 0 to 1, g(-w) = 1 - g(w); change: x times the derivative of
/// g(w(x)).
Point gated(double x, const Interval& gate, const Interval& gate_of_minus_w, const Interval& change) {
  if (x > 0) return {x, -(Interval(x) * gate_of_minus_w), 1, change - gate_of_minus_w};
  return {0, Interval(x) * gate, 0, gate + change};
}

Point gated_by_sigmoid(double x, const Interval& w, const Interval& slope_of_w) {
  const Interval gate = sigmoid(w), rest = sigmoid(-w);
  return gated(x, gate, rest, Interval(x) * slope_of_w * gate * rest);
}

Point activation_at(const std::string& kind, double at) {
  const Interval x(at);
  if (kind == "sigmoid") return {0, sigmoid(x), 0, sigmoid(x) * sigmoid(-x)};
  if (kind == "silu") return gated_by_sigmoid(at, x, 1);
  if (kind == "quick") {
    const Interval factor = ratio(1702, 1000);
    return gated_by_sigmoid(at, factor * x, factor);
  }
  if (kind == "tanh") {  // (1 + tanh(z)) / 2 is the sigmoid of 2 z = c (x + a x^3)
    const Interval a = ratio(44715, 1000000), c = sqrt(Interval(8) / pi()), x2 = square(x);
    return gated_by_sigmoid(at, c * (x + a * x * x2), c * (Interval(1) + Interval(3) * a * x2));
  }
  const Interval w = x / sqrt(Interval(2)), two(2);
  const Interval density = exp(-square(x) / two) / sqrt(two * pi());
  return gated(at, erfc(-w) / two, erfc(w) / two, x * density);
}

}  // namespace

void activation(const Case& c, Results& results) {
  const Tensor &x = c.in.at("x"), *dy = c.input("dy");
  std::string kind = c.op;
  if (kind == "gelu") kind = text(c.spec, "approximate", "none");
  Output *const y = results.output("y", x.shape), *const dx = dy ? results.output("dx", x.shape) : nullptr;
  for (Index n = 0; n < x.size(); ++n) {
    const Point point = activation_at(kind, x.values[n]);
    if (y) y->set(n, nudged(point.base, point.rest));
    if (!dx) continue;
    const Interval gradient(dy->values[n]);
    dx->set(n, nudged(gradient * point.slope_base, gradient * point.slope_rest));
  }
}

void softmax(const Case& c, Results& results) {
  const Tensor &x = c.in.at("x"), *mask = c.input("mask"), *dy = c.input("dy");
  const auto rank = static_cast<Index>(x.shape.size());
  Index axis = static_cast<Index>(number(c.spec, "axis", -1));
  if (axis < 0) axis += rank;
  Index inner = 1;
  std::vector<Index> reduced;
  for (Index r = 0; r < rank; ++r) {
    if (r > axis) inner *= x.shape[r];
    if (r != axis) reduced.push_back(x.shape[r]);
  }
  const Index length = x.shape[axis], rows = x.size() / length;
  Output *const y = results.output("y", x.shape), *const lse = results.output("lse", reduced),
                *const m = results.output("m", reduced), *const l = results.output("l", reduced),
                *const dx = dy ? results.output("dx", x.shape) : nullptr;
  const Interval scale(number(c.spec, "scale", 1));
  const double clamp = number(c.spec, "clamp", 0);
  const bool subtracts = !c.spec.contains("subtract_max") || boolean(c.spec, "subtract_max");
  const double fill =
      text(c.spec, "empty_row", "zero") == "nan" ? std::numeric_limits<double>::quiet_NaN() : 0;

  for (Index row = 0; row < rows; ++row) {
    const Index start = row / inner * inner * length + row % inner;
    std::vector<Index> at;  // of the scores that have weight
    std::vector<Interval> s;
    for (Index j = 0; j < length; ++j) {
      const Index n = start + j * inner;
      double value = x.values[n];
      if (clamp > 0) value = std::fmin(std::fmax(value, -clamp), clamp);
      const bool has_weight = value != -infinity && (!mask || mask->values[n] != 0);
      if (y) y->set(n, has_weight ? 0 : 0.0);
      if (dx) dx->set(n, 0.0);
      if (!has_weight) continue;
      at.push_back(n);
      s.push_back(scale * Interval(value));
    }
    if (at.empty()) {
      for (Index j = 0; j < length; ++j) {
        if (y) y->set(start + j * inner, fill);
        if (dx) dx->set(start + j * inner, fill);
      }
      if (m) m->set(row, subtracts ? -infinity : 0);
      if (l) l->set(row, 0.0);
      if (lse) lse->set(row, -infinity);
      continue;
    }
    std::size_t top_at = 0;
    for (std::size_t n = 1; n < s.size(); ++n) {
      if (s[n].seems_above(s[top_at])) top_at = n;  // exact: at most 106 bits
    }
    const Interval top = s[top_at];
    std::vector<Interval> e;
    Interval tail;
    for (std::size_t n = 0; n < s.size(); ++n) {
      e.push_back(exp(s[n] - top));
      if (n != top_at) tail += e[n];
    }
    const Interval sum = Interval(1) + tail;
    if (m) m->set(row, subtracts ? top : Interval(0));
    if (l) l->set(row, subtracts ? sum : sum * exp(top));
    if (lse) lse->set(row, nudged(top, log1p(tail)));
    Interval mean;  // of dy - dy_top, so that constant dy give 0 exactly
    for (std::size_t n = 0; n < at.size(); ++n) {
      if (y) y->set(at[n], e[n] / sum);
      if (dx) mean += e[n] * (Interval(dy->values[at[n]]) - Interval(dy->values[at[top_at]]));
    }
    mean /= sum;
    for (std::size_t n = 0; dx && n < at.size(); ++n) {
      if (clamp > 0 && std::abs(x.values[at[n]]) > clamp) continue;
      const Interval difference = Interval(dy->values[at[n]]) - Interval(dy->values[at[top_at]]);
      dx->set(at[n], scale * (e[n] / sum) * (difference - mean));
    }
  }
}

}  // namespace attest::golden
