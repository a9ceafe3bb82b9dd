// Rotary position embedding, forward and backward, in plain loops.
#include "ref/rope.hpp"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <numbers>

#include "core/dtype.hpp"

namespace attest::ref {
namespace {

constexpr double pi = std::numbers::pi;

/// The pair that makes this many turns in M positions. Double, as the models' own Python code does.
double pair_that_turns(double turns, const RopeFrequencies& f, Index rotary_dim) {
  const double r = static_cast<double>(rotary_dim), m = f.original_max_position_embeddings;
  return r * std::log(m / (turns * 2 * pi)) / (2 * std::log(f.theta));
}

long double yarn(const RopeFrequencies& f, Index rotary_dim, Index k, long double inv_freq) {
  const double last = static_cast<double>(rotary_dim - 1);
  const double low = std::max(std::floor(pair_that_turns(f.beta_fast, f, rotary_dim)), 0.0);
  double high = std::min(std::ceil(pair_that_turns(f.beta_slow, f, rotary_dim)), last);
  if (low == high) high += 0.001;
  const long double ramp =
      std::clamp((static_cast<long double>(k) - low) / (static_cast<long double>(high) - low), 0.0L, 1.0L);
  return inv_freq / f.factor * ramp + inv_freq * (1 - ramp);
}

long double llama3(const RopeFrequencies& f, long double inv_freq) {
  const long double wavelength = 2 * std::numbers::pi_v<long double> / inv_freq;
  const long double turns = f.original_max_position_embeddings / wavelength;
  const long double smooth = std::clamp(
      (turns - f.low_freq_factor) / (f.high_freq_factor - static_cast<long double>(f.low_freq_factor)), 0.0L,
      1.0L);
  return (1 - smooth) * inv_freq / f.factor + smooth * inv_freq;
}

struct Coefficients {
  double first, second;
};

/// The table's values for the two columns of pair k in row s.
Coefficients of_pair(const RopeSpec& spec, View<const double, 2> table, Index s, Index k) {
  if (table.extent(1) == spec.pairs()) return {table(s, k), table(s, k)};
  assert(table.extent(1) == spec.rotary_dim);
  return {table(s, spec.first(k)), table(s, spec.second(k))};
}

}  // namespace

void rope_inverse_frequencies(const RopeFrequencies& f, Index rotary_dim, AngleRule rule,
                              View<long double, 1> inv_freq) {
  const double r = static_cast<double>(rotary_dim);
  double theta = f.theta;
  if (f.scaling == RopeScaling::ntk) theta *= std::pow(f.factor, r / (r - 2));
  if (f.scaling == RopeScaling::dynamic_ntk) {
    const double m = f.original_max_position_embeddings, length = std::max(f.sequence_length, m);
    theta *= std::pow(f.factor * length / m - (f.factor - 1), r / (r - 2));
  }
  for (Index k = 0; k < rotary_dim / 2; ++k) {
    long double exponent = 2 * static_cast<long double>(k) / static_cast<long double>(rotary_dim);
    if (rule == AngleRule::float32) exponent = static_cast<float>(exponent);
    const long double plain = std::pow(static_cast<long double>(theta), -exponent);
    inv_freq(k) = f.scaling == RopeScaling::linear   ? plain / f.factor
                  : f.scaling == RopeScaling::yarn   ? yarn(f, rotary_dim, k, plain)
                  : f.scaling == RopeScaling::llama3 ? llama3(f, plain)
                                                     : plain;
  }
}

void rope_table(View<const long double, 1> inv_freq, AngleRule rule, double attention_factor,
                View<const double, 1> positions, View<double, 2> cos, View<double, 2> sin) {
  for (Index s = 0; s < positions.extent(0); ++s) {
    for (Index k = 0; k < inv_freq.extent(0); ++k) {
      long double angle = positions(s) * inv_freq(k);
      if (rule == AngleRule::float32) {
        const float position = static_cast<float>(positions(s)), f = static_cast<float>(inv_freq(k));
        angle = round_to(static_cast<double>(position) * static_cast<double>(f), DType::float32);
      }
      cos(s, k) = static_cast<double>(attention_factor * std::cos(angle));
      sin(s, k) = static_cast<double>(attention_factor * std::sin(angle));
    }
  }
}

void rope_forward(const RopeSpec& spec, View<const double, 3> x, View<const double, 2> cos,
                  View<const double, 2> sin, View<double, 3> y) {
  for (Index h = 0; h < x.extent(0); ++h) {
    for (Index s = 0; s < x.extent(1); ++s) {
      for (Index k = 0; k < spec.pairs(); ++k) {
        const Index i = spec.first(k), j = spec.second(k);
        const Coefficients c = of_pair(spec, cos, s, k), n = of_pair(spec, sin, s, k);
        y(h, s, i) = x(h, s, i) * c.first - x(h, s, j) * n.first;
        y(h, s, j) = x(h, s, j) * c.second + x(h, s, i) * n.second;
      }
      for (Index d = spec.rotary_dim; d < x.extent(2); ++d) y(h, s, d) = x(h, s, d);
    }
  }
}

void rope_backward(const RopeSpec& spec, View<const double, 3> dy, View<const double, 2> cos,
                   View<const double, 2> sin, View<double, 3> dx) {
  for (Index h = 0; h < dy.extent(0); ++h) {
    for (Index s = 0; s < dy.extent(1); ++s) {
      for (Index k = 0; k < spec.pairs(); ++k) {
        const Index i = spec.first(k), j = spec.second(k);
        const Coefficients c = of_pair(spec, cos, s, k), n = of_pair(spec, sin, s, k);
        dx(h, s, i) = dy(h, s, i) * c.first + dy(h, s, j) * n.second;
        dx(h, s, j) = dy(h, s, j) * c.second - dy(h, s, i) * n.first;
      }
      for (Index d = spec.rotary_dim; d < dy.extent(2); ++d) dx(h, s, d) = dy(h, s, d);
    }
  }
}

}  // namespace attest::ref
