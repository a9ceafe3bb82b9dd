// How far rounding is expected to carry a plain sum of known terms.
#include "verify/bounds/sum_noise.hpp"

#include <algorithm>
#include <bit>
#include <cmath>

#include "core/double_double.hpp"
#include "verify/bounds/arithmetic.hpp"

namespace attest::bounds {
namespace {

constexpr std::size_t most_lanes = 1024;

double sum_of_squares(std::span<const double> terms) {
  double squares = 0;
  for (const double t : terms) squares += t * t;
  return squares;
}

}  // namespace

double SumNoise::multiplicity(std::span<const double> terms) {
  const double squares = sum_of_squares(terms);
  if (!(squares > 0) || !std::isfinite(squares)) return 1;
  const std::size_t wanted = std::bit_ceil(2 * terms.size());
  if (slots_.size() < wanted || ++generation_ == 0) {
    slots_.assign(std::max(wanted, slots_.size()), Slot{});
    generation_ = 1;
  }
  const std::size_t mask = slots_.size() - 1;
  // Values of few bits differ in the upper bits of their product.
  const int shift = 64 - static_cast<int>(std::bit_width(mask));
  double mass_squares = 0;
  for (const double t : terms) {
    const double magnitude = std::abs(t);
    const std::uint64_t mixed = std::bit_cast<std::uint64_t>(magnitude) * 0x9E3779B97F4A7C15;
    std::size_t at = static_cast<std::size_t>(mixed >> shift);
    while (slots_[at].generation == generation_ && slots_[at].magnitude != magnitude) at = (at + 1) & mask;
    Slot& slot = slots_[at];
    if (slot.generation != generation_) slot = {magnitude, 0, generation_};
    mass_squares += magnitude * (2 * slot.mass + magnitude);  // (mass + magnitude)^2 - mass^2
    slot.mass += magnitude;
  }
  return std::max(1.0, mass_squares / squares);
}

double SumNoise::variance(std::span<const double> terms) {
  const double n = static_cast<double>(terms.size());
  double sum = 0, prefix = 0, prefix_sum = 0;
  for (const double t : terms) {
    sum += t;
    prefix += sum * sum;
    prefix_sum += sum;
  }
  const double squares = sum_of_squares(terms);
  double additions = n * mean_square_running_sum(sum, squares, prefix, prefix_sum, std::max(n, 1.0));
  for (std::size_t stride = 2; stride <= std::min(terms.size() / 2, most_lanes); stride *= 2) {
    lanes_.assign(stride, 0);
    double in_lanes = 0;
    for (std::size_t first = 0; first < terms.size(); first += stride) {
      const std::size_t count = std::min(stride, terms.size() - first);
      for (std::size_t lane = 0; lane < count; ++lane) {
        lanes_[lane] += terms[first + lane];
        in_lanes += lanes_[lane] * lanes_[lane];
      }
    }
    double total = 0;
    for (const double lane : lanes_) {
      total += lane;
      in_lanes += total * total;
    }
    additions = std::max(additions, in_lanes);
  }
  return at_least_simulated(mean_square_rounding * (additions + squares) * multiplicity(terms), terms);
}

double SumNoise::variance_of_positive(std::span<const double> terms) {
  double sum = 0;
  for (const double t : terms) sum += std::abs(t);
  const double n = static_cast<double>(terms.size());
  return at_least_simulated(
      mean_square_rounding * (n * sum * sum + sum_of_squares(terms)) * multiplicity(terms), terms);
}

double SumNoise::at_least_simulated(double variance, std::span<const double> terms) {
  const double error = simulated_error(terms) / unit_roundoff(compute_);
  return std::max(variance, error * error / 16);
}

double SumNoise::simulated_error(std::span<const double> terms) {
  if (compute_ == DType::float32) {
    return simulated_error(terms, [](double a, double b) {
      const double s = a + b, rounded = static_cast<float>(s);
      return DoubleDouble(rounded, rounded - s);
    });
  }
  if (compute_ == DType::float64) {
    return simulated_error(terms, [](double a, double b) {
      const DoubleDouble s = two_sum(a, b);
      return DoubleDouble(s.hi, -s.lo);
    });
  }
  return simulated_error(terms, [this](double a, double b) {
    const double s = a + b, rounded = round_to(s, compute_);
    return DoubleDouble(rounded, rounded - s);
  });
}

/// add(a, b): a + b as rounded, and its error.
template <class Add>
double SumNoise::simulated_error(std::span<const double> terms, Add add) {
  double largest = 0;
  for (std::size_t stride = 1; stride <= std::max(std::min(terms.size() / 2, most_lanes), std::size_t{1});
       stride *= 2) {
    lanes_.assign(stride, 0);
    errors_.assign(stride, 0);
    for (std::size_t first = 0; first < terms.size(); first += stride) {
      const std::size_t count = std::min(stride, terms.size() - first);
      for (std::size_t lane = 0; lane < count; ++lane) {
        const DoubleDouble s = add(lanes_[lane], terms[first + lane]);
        lanes_[lane] = s.hi;
        errors_[lane] += s.lo;
      }
    }
    double total = 0, error = 0;
    for (std::size_t lane = 0; lane < stride; ++lane) {
      const DoubleDouble s = add(total, lanes_[lane]);
      total = s.hi;
      error += errors_[lane] + s.lo;
    }
    largest = std::max(largest, std::abs(error));
  }
  return largest;
}

}  // namespace attest::bounds
