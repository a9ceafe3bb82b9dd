// The weights of one attention row, exact, with the errors that a device makes before it multiplies them with
// V.
#pragma once

#include <vector>

#include "verify/bounds/head.hpp"
#include "verify/bounds/weight_structure.hpp"

namespace attest::bounds {

/// Vectors have one entry per key that the row attends to. docs/bounds.md, "Attention, forward".
struct Weights {
  ScoreRow scores;
  std::vector<Index> key;
  std::vector<double> score;
  std::vector<double> p;               // exact weights
  std::vector<double> delta;           // rigorous bound of the error of the exponent
  std::vector<double> growth;          // e^delta - 1, padded to `lanes`
  std::vector<double> variance;        // of its noise
  std::vector<double> drift;           // systematic error that q and k bring along; 0 where they are exact
  std::vector<double> tangent;         // d score / d ln(scale)
  std::vector<double> store;           // rigorous bound of the rounding error of the stored weight
  std::vector<double> store_variance;  // of that error
  std::vector<double>
      predicted[3];  // that error if stored relative to the row maximum, normalised, or in halves
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

  Index count() const { return static_cast<Index>(key.size()); }
  Index span() const { return scores.last - scores.first; }

  /// Row i of query head h. False if it may attend to no key: then only `scores` is set.
  bool compute(const AttentionSpec& spec, const AttentionInputs& in, const Head& head,
               const Arithmetic& arithmetic, Index h, Index i, const HeadErrors* errors = nullptr);

 private:
  bool compute_exact(const AttentionInputs& in, Index h);
  void compute_exponent_errors(const AttentionInputs& in, const Arithmetic& arithmetic, Index h);
  void compute_stored(const Arithmetic& arithmetic);
  double joint_store_variance(const Arithmetic& arithmetic) const;
};

}  // namespace attest::bounds
