// Sums of inexact terms times exact vectors, with everything their bounds need.
#include "verify/bounds/contraction.hpp"

#include <algorithm>
#include <cmath>

namespace attest::bounds {

Contraction::Contraction(Index rows, Index width)
    : blocks_(padded(width) / lanes), sums_(rows * blocks_), counts_(rows) {}

void Contraction::reset() {
  std::fill(sums_.begin(), sums_.end(), TermBlock{});
  std::fill(counts_.begin(), counts_.end(), 0);
}

void Contraction::add(Index row, Index count, const Factor* factors, const double* vectors) {
  for (Index first = 0; first < count; first += rows_in_cache) {
    vector_kernels().add_terms(&sums_[row * blocks_], blocks_, factors + first,
                               vectors + first * blocks_ * lanes, std::min(rows_in_cache, count - first));
  }
  counts_[row] += count;
}

Estimate Contraction::result(Index row, Index d, double scale, const SumError& sum, double extra_roundings,
                             double u, bool terms_repeat) const {
  const TermBlock& sums = sums_[row * blocks_ + d / lanes];
  d %= lanes;
  const double size = std::abs(scale), x = std::abs(sums.value[d]);
  const double kappa = sum.worst + gamma(extra_roundings, u);
  const double running =
      mean_square_running_sum(sums.value[d], sums.squares[d], sums.prefix[d], sums.prefix_sum[d],
                              std::max(1.0, static_cast<double>(counts_[row])));
  // Every product may be subnormal, before or after the scale, and so may the result; a sum of zeros is not.
  const double underflow = sums.magnitude[d] > 0
                               ? (std::max(size, 1.0) * static_cast<double>(counts_[row]) + 1) * sum.underflow
                               : 0;
  Estimate e;
  e.value = scale * sums.value[d];
  e.worst = size * ((sums.worst[d] * (1 + kappa) + kappa * sums.magnitude[d]) * (1 + 2 * u) + 2 * u * x) +
            underflow;
  e.rest_systematic = size * (sums.systematic[d] + 2 * u * x + sum.truncation(running, sums.squares[d], x));
  e.rest_systematic += underflow;
  e.systematic = e.rest_systematic + size * std::abs(sums.predicted[0][d]);
  if (terms_repeat) e.systematic += size * confidence_multiplier(1) * sums.spread[d];
  const double additions =
      sum.variance(running, sums.squares[d]) + mean_square_rounding * u * u * extra_roundings * running;
  e.variance = size * size * (sums.variance[d] + additions);
  e.rest_variance = size * size * (sums.rest[d] + additions);
  for (int k = 0; k < store_variants; ++k) e.replay[k] = scale * sums.predicted[k][d];
  return e;
}

}  // namespace attest::bounds
