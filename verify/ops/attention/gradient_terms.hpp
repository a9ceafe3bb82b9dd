// The terms that gradients are sums of, with all that a backward pass reads for each of them.
#pragma once

#include <cmath>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "verify/ops/attention/problem.hpp"

namespace attest {

/// A row of queries, and a key, of a sequence.
struct QueryPlace {
  std::size_t n;
  Index h, i;
  bool operator==(const QueryPlace&) const = default;
};
struct KeyPlace {
  std::size_t n;
  Index g, j;
  bool operator==(const KeyPlace&) const = default;
};

/// What one term is made of. A fault overwrites what its kernel reads from elsewhere.
struct GradientTerm {
  QueryPlace row;
  KeyPlace key;
  double product;  // q_i . k_j
  double lse, dp, delta;
  double bias, alibi;  // added to the capped score
  bool is_visible;
  double slope = std::numeric_limits<double>::quiet_NaN();  // of the softcap, if not that of the score
  double exponent = 1;                                      // of P, for another base
  double count = 1;                                         // how often it is added
  bool is_capped = true;
  const double* vector;  // what is weighted with P or dS: a row of k, q or do
};

class BackwardPass {
 public:
  /// output: dq, dk or dv.
  BackwardPass(const AttentionCase& attention, std::span<const SavedForBackward> saved,
               const std::string& output);

  const std::string& output() const { return output_; }
  const AttentionSpec& spec() const { return attention_.spec; }
  const AttentionCase& attention() const { return attention_; }
  std::size_t sequences() const { return inputs_.size(); }
  /// With the keys that are absent, if the sequences of a batch have lengths.
  const AttentionInputs& in(std::size_t n) const { return inputs_[n]; }
  /// Without those.
  Index keys(std::size_t n) const { return attention_.sequences[n].in_backward.keys(); }
  Index diagonal_of(std::size_t n, Index i) const {
    return diagonal(spec(), attention_.sequences[n].in_backward, i);
  }

  double product(QueryPlace row, KeyPlace key) const;
  double dp(QueryPlace row, KeyPlace key) const;
  /// Of a row that sees no key: what kernels store for it, or 0.
  double lse(QueryPlace row) const;
  double delta(QueryPlace row) const { return delta_of_columns(row, in(row.n).v_width()); }
  /// Of the first columns, a multiple of 8 or all.
  double delta_of_columns(QueryPlace row, Index columns) const {
    return deltas_[row.n](row.h, row.i, (columns + 7) / 8);
  }
  double bias(QueryPlace row, Index j) const;
  double alibi(QueryPlace row, Index j, Index diagonal) const;
  bool is_in_mask(QueryPlace row, Index j) const;
  /// The causal diagonal and the windows alone.
  static bool is_in_reach(const AttentionSpec& spec, Index diagonal, Index position);

  const double* q(QueryPlace row) const { return &in(row.n).q(row.h, row.i, 0); }
  const double* o(QueryPlace row) const { return &saved_[row.n].o(row.h, row.i, 0); }
  const double* d_o(QueryPlace row) const { return &saved_[row.n].d_o(row.h, row.i, 0); }
  const double* k(KeyPlace key) const { return &in(key.n).k(key.g, key.j, 0); }
  Index vector_step() const { return vector_step_; }
  Index width() const { return width_; }  // of the vectors

  GradientTerm term(QueryPlace row, Index j) const;
  double p(const GradientTerm& term) const;
  /// P, or the scale times dS.
  double weight(const GradientTerm& term) const;

 private:
  const AttentionCase& attention_;
  const std::span<const SavedForBackward> saved_;
  const std::string output_;
  std::vector<AttentionInputs> inputs_;
  std::vector<Array<double, 3>> deltas_;  // [Hq, Sq, E / 8 + 1], of the first columns
  Index vector_step_, width_;
};

/// One way in which a backward pass may go wrong.
struct GradientFault {
  std::string name;
  std::function<void(GradientTerm&)> change;
};

/// Operands read from another place; what is made of them; options misread. The pass must outlive them.
std::vector<GradientFault> wrong_reads_of_gradients(const BackwardPass& pass);
std::vector<GradientFault> wrong_stages_of_gradients(const BackwardPass& pass);
std::vector<GradientFault> wrong_options_of_gradients(const BackwardPass& pass);

}  // namespace attest
