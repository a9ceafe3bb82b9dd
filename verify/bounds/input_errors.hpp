// Errors that q, k and v bring along where an earlier step of the same device computed them. Equation numbers
// refer to docs/bounds_multihead.md.
#pragma once

#include <vector>

#include "core/view.hpp"
#include "verify/bounds/head.hpp"

namespace attest::bounds {

/// How far the q that the device read may be from the q given, and the same for k and v: rigorous bounds,
/// standard deviations of what averages out, and by how much all are systematically too close to 0 at most.
struct InputErrors {
  View<const double, 3> q_worst, q_sigma, q_systematic;  // [Hq, Sq, D]
  View<const double, 3> k_worst, k_sigma, k_systematic;  // [Hkv, Sk, D]
  View<const double, 3> v_worst, v_sigma, v_systematic;  // [Hkv, Sk, E]
  double reference_share = 0;  // the values given are off by at most this share of the rigorous bounds
};

/// The errors of the keys and values of one head, laid out like Head.
struct HeadErrors {
  HeadErrors(const InputErrors& errors, const AttentionInputs& in, Index kv_head);

  const InputErrors& inputs;
  // variance: sigma^2 + systematic^2, since the systematic part need not be the same everywhere; drift:
  // systematic, with the sign of k or v.
  std::vector<double> k_worst, k_variance, k_drift;  // [Sk / lanes, D, lanes]
  std::vector<double> v_worst, v_variance, v_drift;  // [Sk, E]

  const double* v_row(Index j) const { return &v_worst[j * padded(inputs.v_worst.extent(2))]; }
};

/// What q and k bring into the products q_i.k_j of one query row. Equation (3).
struct InheritedProducts {
  std::vector<double> worst, variance, drift;  // [Sk]; drift keeps its sign

  /// Row i of query head h, for the keys of [first, last); q[D] are its exact values.
  void compute(const HeadErrors& errors, const Head& head, const std::vector<double>& q, Index h, Index i,
               Index first, Index last);

 private:
  struct Query;
  void compute_block(const std::vector<Query>& q, const HeadErrors& errors, const Head& head, Index first);
};

struct Weights;

/// What q, k and v bring into one row of o, beside what Weights tell of the scores' own errors. Equation (5).
struct InheritedValues {
  std::vector<double> worst, variance, drift;  // [E]; drift: also that of the scores

  /// o[E]: the exact row.
  void compute(const HeadErrors& errors, const Weights& w, const Head& head, const std::vector<double>& o,
               double flush);
};

}  // namespace attest::bounds
