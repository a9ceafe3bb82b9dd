// Blocks of (query row, key) pairs of the backward pass: P and dS with the errors that a device makes in
// them.
#pragma once

#include <vector>

#include "verify/bounds/attention_backward.hpp"
#include "verify/bounds/contraction.hpp"
#include "verify/bounds/head.hpp"
#include "verify/bounds/storage_grid.hpp"

namespace attest::bounds {

/// dS before the softcap's slope: the gradient of a bias.
struct ScoreGradient {
  double value = 0, worst = 0;
};

/// One query row against all keys. Entries outside [first, last), and those of masked keys, are 0.
struct PairRow {
  Index first = 0, last = 0;
  std::vector<Factor> p, ds;  // [Sk]: the weight, and dS as the operand of the products with K and Q
  std::vector<ScoreGradient> gradient;
  double delta = 0;           // do . o
  double delta_worst = 0;     // rigorous bound of its error
  double delta_variance = 0;  // of its error, which all pairs of the row share
  double delta_shift = 0;     // which of it is known,
  double delta_rest = 0;      // and the variance of what is not
};

/// Fills rows; one object a thread.
class PairRows {
 public:
  PairRows(const AttentionSpec& spec, const AttentionInputs& in, const BackwardInputs& saved,
           const Arithmetic& arithmetic, const Head& head)
      : spec_(spec),
        in_(in),
        saved_(saved),
        arithmetic_(arithmetic),
        head_(head),
        qk_sum_(sum_error(arithmetic.contract.qk, head.qk_width)),
        dp_sum_(sum_error(arithmetic.contract.qk, head.v_width)),
        grid_(arithmetic.contract.p_dtype),
        largest_stored_(format_of(arithmetic.contract.p_dtype).max) {}

  /// Row i of query head h.
  void fill(Index h, Index i, PairRow& row);

 private:
  void fill_empty(PairRow& row) const;
  void fill_vanished(Index j, PairRow& row) const;
  void add_stores_to_delta(PairRow& row) const;
  void fill_delta(Index h, Index i, PairRow& row);
  void fill_exponents(double lse, double lse_worst, const PairRow& row);
  void fill_pair(double lse, double lse_systematic, Index j, PairRow& row) const;
  /// x as the format of P holds it; x itself beyond its largest number.
  double rounded(double x) const;
  Factor stored(Factor factor, double eta) const;

  const AttentionSpec& spec_;
  const AttentionInputs& in_;
  const BackwardInputs& saved_;
  const Arithmetic& arithmetic_;
  const Head& head_;
  const SumError qk_sum_, dp_sum_;
  const StorageGrid grid_;  // of P and dS
  const double largest_stored_;
  ScoreRow scores_;
  ProductSums dp_;  // do . v
  std::vector<double> d_o_;
  std::vector<double> p_, exponent_worst_, growth_;  // [Sk, padded]; growth = e^exponent_worst - 1
};

}  // namespace attest::bounds
