// Linear layers: exact values, and how far a device may be off.
#include "verify/bounds/linear.hpp"

#include <algorithm>
#include <cmath>

namespace attest::bounds {
namespace {

constexpr Index rows_at_a_time = 16;  // that share a block of weights while it is in the cache

}  // namespace

Linear::Linear(View<const double, 2> weight, View<const double, 1> bias, const Accumulator& accumulator)
    : inputs_(weight.extent(1)),
      outputs_(weight.extent(0)),
      terms_(inputs_ + (bias ? 1 : 0)),
      accumulator_(accumulator),
      packed_(padded(outputs_) * terms_) {
  for (Index n = 0; n < outputs_; ++n) {
    double* column = &packed_[n / lanes * terms_ * lanes + n % lanes];
    for (Index m = 0; m < inputs_; ++m) column[m * lanes] = weight(n, m);
    if (bias) column[inputs_ * lanes] = bias(n);
  }
}

double Linear::reference_share() const {
  return 1.05 * gamma(static_cast<double>(terms_), 0x1p-53) / sum_error(accumulator_, terms_).worst;
}

void Linear::apply(Index rows, const std::function<void(Index row, Factor* x)>& fill,
                   const std::function<void(Index row, Index n, const Estimate& y)>& take) const {
  const SumError sum = sum_error(accumulator_, terms_);
  const double u = unit_roundoff(accumulator_.dtype);
  // The products of an output may be shared by several workers, whose sums are then added up.
  const double splits =
      std::min(Arithmetic::most_splits,
               std::ceil(static_cast<double>(terms_) / static_cast<double>(Arithmetic::least_tile)));
#pragma omp parallel
  {
    Contraction sums(rows_at_a_time, lanes);
    std::vector<Factor> x(rows_at_a_time * terms_);
#pragma omp for schedule(dynamic, 1)
    for (Index first = 0; first < rows; first += rows_at_a_time) {
      const Index count = std::min(rows_at_a_time, rows - first);
      for (Index r = 0; r < count; ++r) {
        Factor* row = &x[r * terms_];
        fill(first + r, row);
        if (terms_ > inputs_) row[inputs_] = {.value = 1};
      }
      for (Index n = 0; n < outputs_; n += lanes) {
        sums.reset();
        for (Index r = 0; r < count; ++r) sums.add(r, terms_, &x[r * terms_], &packed_[n * terms_]);
        for (Index r = 0; r < count; ++r) {
          for (Index d = 0; d < std::min(lanes, outputs_ - n); ++d) {
            take(first + r, n + d, sums.result(r, d, 1, sum, splits, u, false));
          }
        }
      }
    }
  }
}

Factor stored(const Estimate& y, DType dtype) {
  const double spacing = ulp(y.value, dtype), written = round_to(y.value, dtype);
  return {.value = y.value,
          .worst = y.worst + ulp(std::abs(y.value) + y.worst, dtype) / 2,
          .variance = y.variance + spacing * spacing / 12,
          .systematic = y.systematic,
          .predicted = {std::isfinite(written) ? written - y.value : 0}};
}

std::vector<double> coherence(View<const double, 2> x, View<const double, 2> w) {
  const Index rows = x.extent(0), width = x.extent(1);
  std::vector<double> found(w.extent(0), 1.0);
  std::vector<double> mean(width), moments(width * width);
  for (const bool centred : {false, true}) {
    if (centred) {
      for (Index r = 0; r < rows; ++r) {
        for (Index d = 0; d < width; ++d) mean[d] += x(r, d) / static_cast<double>(rows);
      }
    }
    std::fill(moments.begin(), moments.end(), 0);
    for (Index r = 0; r < rows; ++r) {
      for (Index d = 0; d < width; ++d) {
        const double own = x(r, d) - mean[d];
        for (Index e = 0; e < width; ++e) moments[d * width + e] += own * (x(r, e) - mean[e]);
      }
    }
    for (Index n = 0; n < w.extent(0); ++n) {
      double together = 0, apart = 0;
      for (Index d = 0; d < width; ++d) {
        double row = 0;
        for (Index e = 0; e < width; ++e) row += moments[d * width + e] * w(n, e);
        together += w(n, d) * row;
        apart += w(n, d) * w(n, d) * moments[d * width + d];
      }
      if (apart > 0) found[n] = std::max(found[n], together / apart);
    }
  }
  return found;
}

}  // namespace attest::bounds
