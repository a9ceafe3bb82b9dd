// The elementary errors that a contract implies, and how they add up.
#include "verify/bounds/arithmetic.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

namespace attest::bounds {

double log_gamma(double n, double u) {
  return -n * std::log1p(-u);
}

double gamma(double n, double u) {
  return std::expm1(log_gamma(n, u));
}

namespace {

SumError sum_of_operands(const Accumulator& accumulator, Index n, Index span) {
  const double u = unit_roundoff(accumulator.dtype);
  const double terms = static_cast<double>(n);
  const double underflow = ulp(0, accumulator.dtype) / 2;
  const SumError plain{gamma(terms, u), mean_square_rounding * u * u * terms, 0, underflow,
                       std::max(terms, 1.0)};
  if (accumulator.block == 0) return plain;

  // A block cuts off the tails of its products and of the running sum, then of the total. Zeros cost nothing.
  const double b = accumulator.block, products = accumulator.tf32 == Tf32::three ? 3 : 1;
  const double blocks = products * std::min(terms, std::ceil(static_cast<double>(span) / b));
  const double grid = std::ldexp(1.0, -accumulator.extra_bits);
  const double worst = gamma(blocks, 2 * u * (1 + (b + 1) * grid));
  const double noise = mean_square_rounding * u * u * blocks * (1 + (b + 1) * grid * grid);
  // A kernel is free to use the plain units of the device, too.
  return {std::max(worst, plain.worst), std::max(noise, plain.noise), 0.5 * worst, underflow,
          std::max(blocks, 1.0)};
}

}  // namespace

bool vanishes(double score, double error, double reference, double reference_error, double u) {
  const double rounding = error + reference_error + 4 * u * (std::abs(score) + std::abs(reference));
  return reference - score - rounding > least_vanishing;
}

// Equations (3) to (5c).
SumError sum_error(const Accumulator& accumulator, Index n, Index span) {
  SumError sum = sum_of_operands(accumulator, n, span);
  const double cut = 0x1p-10, mean = cut / (4 * std::numbers::ln2),
               mean_square = mean_square_rounding * cut * cut;
  switch (accumulator.tf32) {
    case Tf32::none:
      break;
    case Tf32::one:
      sum.worst = (1 + sum.worst) * (1 + cut) * (1 + cut) - 1;
      sum.loss = 2 * mean;
      sum.conversion = 2 * mean_square;
      break;
    case Tf32::three:
      sum.worst = (1 + sum.worst) * (1 + 2 * cut * cut) - 1;
      sum.loss = mean * mean + 7.0 / 16 * cut * mean;
      sum.conversion = mean_square * mean_square + 45.0 / 256 * cut * cut * mean_square;
      break;
  }
  return sum;
}

Arithmetic::Arithmetic(const Contract& c)
    : contract(c),
      u(unit_roundoff(c.softmax_dtype)),
      exp_error(c.exp_error.value_or(4 * u)),
      log_error(8 * u),
      log_relative(4 * u),
      tanh_relative(c.tanh_error.value_or(4 * u)),
      flush(std::ldexp(1.0, format_of(c.softmax_dtype).emin)),
      p_is_rounded(format_of(c.p_dtype).precision < format_of(c.softmax_dtype).precision),
      p_unit(p_is_rounded ? unit_roundoff(c.p_dtype) : 0),
      p_half_subnormal(p_is_rounded ? ulp(0, c.p_dtype) / 2 : 0),
      split_unit(c.split_dtype ? unit_roundoff(*c.split_dtype) : 0),
      split_half_subnormal(c.split_dtype ? ulp(0, *c.split_dtype) / 2 : 0) {
  if (c.scores_dtype && unit_roundoff(*c.scores_dtype) > u) score_store.emplace(*c.scores_dtype);
}

double Arithmetic::tiles(Index keys, Index span) const {
  const Index tiles = std::min(keys, (span + least_tile - 1) / least_tile);
  return static_cast<double>(std::max(tiles, Index{1}));
}

double Arithmetic::reference_share(Index width, Index keys) const {
  const double u64 = 0x1p-53;
  width = std::max(width, Index{1});
  keys = std::max(keys, Index{1});
  return 1.05 *
         std::max({gamma(static_cast<double>(width), u64) / sum_error(contract.qk, width).worst,
                   gamma(static_cast<double>(keys), u64) / sum_error(contract.pv, keys).worst, u64 / u});
}

double confidence_multiplier(Index elements) {
  const double delta = 1e-9;
  return std::sqrt(2 * std::log(2 * static_cast<double>(elements) / delta));
}

ElementBound element_bound(double value, double worst, double systematic, double sigma, double lambda,
                           double share, DType dtype) {
  for (double* x : {&worst, &systematic, &sigma})
    if (std::isnan(*x)) *x = std::numeric_limits<double>::infinity();  // 0 times an infinite bound
  const double probable = std::min(systematic + lambda * sigma, worst);
  const double size = std::abs(value);
  const double spacing = ulp(size, dtype);
  const double value_error = share * worst + 0x1p-53 * size;
  // A value of the type is met exactly if no error leads half way to the next, and then the bound is less
  // than the distance to its neighbours. Equation (13a).
  const double nearest = round_to(value, dtype), off = std::abs(value - nearest);
  const double half_way = 0.5 * ulp(std::abs(nearest) * (1 - 0x1p-52), dtype);
  const bool is_stored_value = off <= 0x1p-12 * half_way;
  const auto is_met = [&](double error) {
    return is_stored_value && error + value_error + off < 0.999 * half_way;
  };
  const auto stored = [&](double error) {
    if (is_met(error)) return half_way;
    return std::isfinite(error) ? error + 0.5 * ulp(size + error, dtype) : error;
  };
  // Subnormals have few bits, and so have what they come from: their rounding errors are no longer spread
  // evenly.
  const bool is_coarse = size < std::ldexp(1.0, format_of(dtype).emin);
  const double store_variance = std::max(spacing * spacing / 12, is_coarse ? off * off : 0);
  return {value,     value_error, stored(worst), stored(probable), std::sqrt(sigma * sigma + store_variance),
          systematic};
}

}  // namespace attest::bounds
