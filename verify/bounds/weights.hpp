// The weights of one attention row, exact, with the errors that a device makes before it multiplies them with
// V.
#pragma once

#include <vector>

#include "verify/bounds/head.hpp"
#include "verify/bounds/weight_structure.hpp"

namespace attest::bounds {

/// Arrays have one entry per key that the row attends to. docs/bounds.md, "Attention, forward".
struct Weights {
  ScoreRow scores;
  std::vector<Index> key;  // without those whose weight vanishes
  Index vanished;          // how many these are
  const double* score;
  const double* tangent;  // d score / d ln(scale)
  const double* drift;    // systematic error that q and k bring along; 0 where they are exact
  const double* squares;  // sum over d of (q_d k_d)^2
  Lanes p;                // exact weights, padded to `lanes` with zeros
  Lanes growth;           // e^delta - 1, delta: rigorous bound of the error of the exponent; padded
  Lanes variance;         // of its noise
  Lanes spread;           // the square root of the variance
  Lanes store;            // rigorous bound of the rounding error of the stored weight
  Lanes store_variance;   // of that error
  Lanes predicted[3];     // that error if stored relative to the row maximum, normalised, or in halves
  double sink_p, sink_delta, sink_variance;
  double m, l, lse;
  double largest;  // largest |score| or |lse|
  double delta_max;
  Index top;  // entry with the largest score
  // Errors that all keys of the row share
  double shift;   // of the subtracted maximum, which differs from tile to tile
  double update;  // of the rescaling factors
  double split;   // of the factors that combine split keys
  // Relative error of the row sum where it adds weights as stored: rigorous bound and variance
  double stored_sum, stored_sum_variance;
  // Share of store_variance that is left where the rounding of the exact weights is known: those that an
  // error before the store takes to a neighbour
  double flipped;
  // Share of store_variance that all weights can have at once, if they are stored relative to one number
  double joint;
  WeightStructure structure;

  /// What the errors of the exponents come to in the row sum, the sink's among them: the sum grows by a share
  /// of `up` at most, and falls to `down` at least.
  struct InRowSum {
    double up, down;
    double noise;       // sum p spread
    double scale;       // sum p tangent
    double drift;       // sum p drift
    double truncation;  // sum p sqrt(squares)
  };
  InRowSum in_row_sum() const;

  Index count() const { return static_cast<Index>(key.size()); }
  Index span() const { return scores.last - scores.first; }

  Weights() = default;
  Weights(const Weights&) = delete;  // arrays may be parts of those of `scores`

  /// Of `scores`, whose products are known, of query head h. False if the row may attend to no key: then only
  /// `scores` is set.
  bool compute(const AttentionSpec& spec, const AttentionInputs& in, const Head& head,
               const Arithmetic& arithmetic, Index h, const HeadErrors* errors = nullptr);
  /// Row i of query head h, but of what is below only what has no error: key, score, p, sink_p, m, l, lse,
  /// top.
  bool compute_exact(const AttentionSpec& spec, const AttentionInputs& in, const Head& head,
                     const Arithmetic& arithmetic, Index h, Index i);

 private:
  bool normalise(const AttentionInputs& in, const Arithmetic& a, Index h);
  const double* of_keys(const Lanes& of_all, Lanes& copies) const;
  void find_keys(const Arithmetic& a, double sink);
  double exponentials();
  void compute_exponent_errors(const AttentionInputs& in, const Arithmetic& arithmetic, Index h);
  void compute_stored(const Arithmetic& arithmetic);
  double joint_store_variance(const Arithmetic& arithmetic) const;

  Lanes copies_[6];
};

}  // namespace attest::bounds
