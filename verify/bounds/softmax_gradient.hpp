// Bounds of the gradient of one row of softmax. Equation numbers refer to docs/bounds_softmax.md.
#pragma once

#include <vector>

#include "verify/bounds/softmax.hpp"
#include "verify/bounds/softmax_row.hpp"

namespace attest::bounds {

/// Errors of a weight before it is stored.
struct WeightError {
  double worst, systematic, variance;
};

/// An element of dx before it is stored.
struct GradientError {
  double value, worst, systematic, sigma;
};

/// dx_j = slope p_j (dy_j - D), D = sum_k dy_k p_k, formed like this or as dy_j p_j - p_j D, from weights
/// that may have been stored, and from products dy_k p_k that may have been stored.
class SoftmaxGradient {
 public:
  /// weights: one entry per score of the row; dy[N]. All must outlive this object.
  SoftmaxGradient(const SoftmaxRow& row, const std::vector<WeightError>& weights, View<const double, 1> dy,
                  const SoftmaxTypes& types, const Arithmetic& arithmetic);

  /// Entry c of the row. Equations (S13) to (S16).
  GradientError at(Index c, double slope) const;

 private:
  struct Entry {
    double weight_worst, weight_systematic, weight_variance;  // the store of the weight included
    double product, product_store;                            // |dy p|, and half an ulp of it as stored
  };
  Entry entry(Index c) const;

  const SoftmaxRow& row_;
  const std::vector<WeightError>& weights_;
  const View<const double, 1> dy_;
  const SoftmaxTypes& types_;
  const Arithmetic& arithmetic_;
  double sum_ = 0;  // D
  double sum_worst_ = 0, sum_systematic_ = 0, sum_variance_ = 0;
  bool is_structured_;  // roundings repeat: nothing averages out
};

}  // namespace attest::bounds
