// The sums that gradients of a failed attention dump are, for explanations of their errors.
#pragma once

#include <cmath>
#include <functional>
#include <span>
#include <vector>

#include "verify/ops/attention/problem.hpp"
#include "verify/ops/weighted_sums.hpp"

namespace attest {

/// What the weight of a term is made of.
struct GradientFactors {
  double score, lse, dp, delta;  // dp = do_i . v_j, delta = do_i . o_i
  double slope;                  // of the softcap, 1 without
  double capped;                 // score over the cap, before mask and biases; 0 without softcap
  const double *d_o, *o, *v;     // the rows do_i, o_i and v_j
  double score_of_stored_k = 0;  // with k times scale log2(e) stored first; NaN if no kernel would do that

  double p() const { return std::exp(score - lse); }
  double ds() const { return p() * (dp - delta) * slope; }
};

/// Some rows of a gradient as sums.
struct GradientSums {
  std::vector<WeightedSum> rows;
  std::vector<std::vector<GradientFactors>> factors;  // of every row's terms
  Index places_of_head = 0;                           // terms of several heads follow each other
  Index v_width = 0, d_o_step = 1, o_step = 1, v_step = 1;
  std::function<double(const GradientFactors&)> stored;  // a weight as the kernel seems to store it
};

/// A sample of the rows of dq that hold a wrong element, or of all where few do: terms are keys, weighted
/// with scale dS.
GradientSums wrong_query_sums(const AttentionCase& attention, std::span<const SavedForBackward> saved,
                              const Contract& contract, const Expected& dq);

/// The same for keys of dk (weights scale dS) or dv (weights P), of one head of one sequence. Terms are query
/// rows, those of the heads of a group one after another. Empty where it would take too long.
GradientSums wrong_key_sums(const AttentionCase& attention, std::span<const SavedForBackward> saved,
                            const Contract& contract, const Expected& gradient);

}  // namespace attest
