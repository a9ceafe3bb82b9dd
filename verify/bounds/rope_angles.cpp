// The angles of a rotary embedding. Equation numbers refer to docs/bounds_rope.md.
#include "verify/bounds/rope_angles.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "core/dtype.hpp"

namespace attest::bounds {
namespace {

constexpr double u64 = 0x1p-53, u32 = 0x1p-24;
constexpr double pow_slack = 8;          // 4 ulp, as CUDA documents powf; glibc and SLEEF stay below 1
constexpr double reciprocal_slack = 1;   // inv_freq = 1 / theta^e
constexpr double second_order = 1.0001;  // products of errors: slacks are below 2^-10 / u

bool is_float32(double x) {
  return round_to(x, DType::float32) == x;
}

/// x^n for n >= 0.
DoubleDouble power(DoubleDouble x, Index n) {
  DoubleDouble result = 1;
  for (; n > 0; n >>= 1, x = x * x) {
    if (n & 1) result = result * x;
  }
  return result;
}

/// theta^(-1/n): one Newton step from the double nearby. Equation (1).
DoubleDouble inverse_root(double theta, Index n) {
  const double guess = std::pow(theta, -1.0 / static_cast<double>(n));
  const DoubleDouble rest = power(guess, n) * theta - 1;
  return DoubleDouble(guess) - DoubleDouble(guess) * rest / static_cast<double>(n);
}

/// f = f_k (e + (1 - e) / factor) and what the kernel's way to it costs.
struct Mix {
  DoubleDouble share = 1;   // e
  double share_error = 0;   // of e, in u: absolute, and 0 where it is 0 or 1 for certain
  double share_growth = 0;  // of e, per relative error of f_k
};

/// The pair that makes this many turns in M positions. In double, which is the rule: it is rounded to
/// integers.
double pair_that_turns(double turns, const RopeFrequencies& f, double rotary_dim) {
  return rotary_dim * std::log(f.original_max_position_embeddings / (turns * 2 * std::numbers::pi)) /
         (2 * std::log(f.theta));
}

Mix yarn_mix(const RopeFrequencies& f, double rotary_dim, Index k) {
  const double low = std::max(std::floor(pair_that_turns(f.beta_fast, f, rotary_dim)), 0.0);
  const double high = std::min(std::ceil(pair_that_turns(f.beta_slow, f, rotary_dim)), rotary_dim - 1);
  const double at = static_cast<double>(k);
  if (at <= low) return {};
  if (at >= high) return {0};
  return {1 - DoubleDouble(at - low) / (high - low), 2, 0};
}

Mix llama3_mix(const RopeFrequencies& f, DoubleDouble plain) {
  const DoubleDouble two_pi{2 * std::numbers::pi, 0x1.1a62633145c07p-52};
  const DoubleDouble turns = plain * f.original_max_position_embeddings / two_pi;
  const DoubleDouble span = DoubleDouble(f.high_freq_factor) - f.low_freq_factor;
  const DoubleDouble smooth = (turns - f.low_freq_factor) / span;
  const double growth = turns.hi / span.hi;
  const double unclear = 1e-3;  // beyond any rounding: a kernel may take the other branch next to a border
  if (smooth.hi >= 1 + unclear) return {};
  if (smooth.hi <= -unclear) return {0};
  const DoubleDouble share = smooth.hi >= 1 ? 1 : smooth.hi <= 0 ? 0 : smooth;
  return {share, 3 * growth + 4, growth};
}

/// The float32 numbers within slack u f of f. Equation (8).
std::vector<double> candidates_near(double f, double slack) {
  const float nearest = static_cast<float>(round_to(f, DType::float32));
  std::vector<double> all = {nearest};
  float up = nearest, down = nearest;
  const auto is_near = [&](double g) { return std::abs(g - f) <= slack * u32 * f; };
  for (bool grew = true; grew;) {
    grew = false;
    up = std::nextafter(up, std::numeric_limits<float>::infinity());
    down = std::nextafter(down, 0.0F);
    for (const float g : {up, down}) {
      if (!is_near(g)) continue;
      all.push_back(g);
      grew = true;
    }
  }
  return all;
}

}  // namespace

std::vector<PairFrequency> pair_frequencies(const RopeFrequencies& f, Index rotary_dim, AngleRule rule) {
  const Index pairs = rotary_dim / 2;
  const double r = static_cast<double>(rotary_dim);
  const bool rounds = rule == AngleRule::float32;
  double theta = f.theta;
  if (f.scaling == RopeScaling::ntk) theta *= std::pow(f.factor, r / (r - 2));
  if (f.scaling == RopeScaling::dynamic_ntk) {
    const double m = f.original_max_position_embeddings, length = std::max(f.sequence_length, m);
    theta *= std::pow(f.factor * length / m - (f.factor - 1), r / (r - 2));
  }
  const bool theta_is_rounded = rounds ? !is_float32(theta) : theta != f.theta;
  const double factor_slack = rounds && !is_float32(f.factor) ? 1 : 0;

  std::vector<PairFrequency> all(pairs);
  const DoubleDouble ratio = inverse_root(theta, pairs);
  for (Index k = 0; k < pairs; ++k) {
    PairFrequency& pair = all[k];
    const double exponent = 2 * static_cast<double>(k) / r;
    DoubleDouble plain = power(ratio, k);
    pair.slack = 0;  // theta^0 = 1 whatever the library
    if (k > 0) {
      pair.slack = pow_slack + reciprocal_slack + (theta_is_rounded ? 2 * exponent : 0);
      if (rounds) {
        // The exponent is a float32 number e'; other libraries take e: theta^-e' = theta^-e theta^(e - e').
        const double rounded = static_cast<float>(exponent);
        const double shift = (rounded * r - 2 * static_cast<double>(k)) / r * std::log(theta);
        plain = plain * (1 + DoubleDouble(std::expm1(-shift)));
        pair.slack += std::abs(shift) / u32;
      } else {
        pair.slack += exponent * std::log(theta);
      }
    }
    const double n = static_cast<double>(pairs);
    pair.error = (n * n + 128) * 0x1p-100 + (rounds ? 0x1p-70 : 0);  // equation (2)

    Mix mix;
    if (f.scaling == RopeScaling::yarn) mix = yarn_mix(f, r, k);
    if (f.scaling == RopeScaling::llama3) mix = llama3_mix(f, plain);
    if (f.scaling == RopeScaling::linear) mix = {0};
    const DoubleDouble share = mix.share + (1 - mix.share) / f.factor;
    pair.exact = plain * share;
    if (mix.share.hi < 1) pair.slack += 1 + factor_slack;  // equation (6)
    if (mix.share_error > 0) {                             // equation (7)
      const double leverage = (1 + 1 / f.factor) / share.hi;
      pair.slack += 3 + leverage * (mix.share_error + mix.share_growth * pair.slack);
      pair.error += leverage * (mix.share_growth + 1) * (pair.error + 0x1p-98);
    }
    pair.slack *= second_order;
    if (rounds) pair.candidates = candidates_near(pair.exact.hi, pair.slack);
  }
  return all;
}

std::vector<PairFrequency> pair_frequencies(std::span<const double> inv_freq, AngleRule rule) {
  std::vector<PairFrequency> all;
  for (const double f : inv_freq) {
    all.push_back({f, 0, 0, {}});
    if (rule == AngleRule::float32) all.back().candidates = {round_to(f, DType::float32)};
  }
  return all;
}

Turn turn(const PairFrequency& f, AngleRule rule, double position, std::size_t candidate) {
  if (rule == AngleRule::float32) {
    // Two float32 numbers have an exact product in double, so that it is rounded once. Equation (9).
    const double angle =
        round_to(round_to(position, DType::float32) * f.candidates[candidate], DType::float32);
    return {std::cos(angle), std::sin(angle), 0x1p-52, 0};
  }
  const DoubleDouble angle = f.exact * position;
  const double c = std::cos(angle.hi), s = std::sin(angle.hi), dc = std::cos(angle.lo),
               ds = std::sin(angle.lo);
  const double size = std::abs(angle.hi);
  return {c * dc - s * ds, s * dc + c * ds, size * (f.error + 0x1p-99) + 0x1p-50,  // equation (10)
          size * (f.slack + 1) * u64};                                             // equation (11)
}

double angle_freedom(const PairFrequency& f, double position) {
  if (f.candidates.size() < 2) return 0;
  const auto [least, most] = std::minmax_element(f.candidates.begin(), f.candidates.end());
  return (*most - *least) * std::abs(position);
}

}  // namespace attest::bounds
