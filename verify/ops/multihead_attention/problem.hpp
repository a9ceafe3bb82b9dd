// The multihead_attention problem of a case: its exact values and bounds, the check of ours and the decoys.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "verify/bounds/linear.hpp"
#include "verify/contract/keys.hpp"
#include "verify/op.hpp"
#include "verify/ops/multihead_attention/case.hpp"

namespace attest {

class MultiheadProblem : public Problem {
 public:
  explicit MultiheadProblem(const Case& c);

  std::string contract() const override { return contract_text(contract_, contract_keys_); }
  std::vector<Expected> expect(const ProgressFunction& progress) override;
  void recheck(std::span<const Expected> expected) const override;
  std::vector<Decoy> decoys(std::span<const Expected> expected) const override;
  std::vector<Decoy> alternatives(std::span<const Expected> expected) const override;
  std::vector<DiagnosisEntry> explanations(std::span<const Expected> expected) const override;

 private:
  struct Layers {
    bounds::Linear q, k, v, out;
  };
  struct Stored;    // q, k or v of one batch entry as the device has stored it
  struct Unstored;  // an output of the heads before the device stores it

  Layers layers() const;
  void expect_entry(Index b, const Layers& layers, Expected* y, Expected* weights) const;
  void expect_y(Index b, const bounds::Linear& out, const Unstored& o, const Stored& v, double share,
                Expected& y) const;
  void expect_mean_weights(Index b, const Unstored& p, double share, Expected& weights) const;

  AttentionInputs attention_inputs(const ref::Projected& x, const ref::MultiheadInputs& in) const {
    return attention_inputs(x, in, multihead_.heads);
  }
  AttentionInputs attention_inputs(const ref::Projected& x, const ref::MultiheadInputs& in,
                                   Index heads) const;
  /// What ref says of a sample of the rows of batch entry b, or of those that are given.
  std::vector<Decoy> sampled(const std::string& name, Index b, const AttentionSpec& spec,
                             const AttentionInputs& attention, const ref::MultiheadInputs& in,
                             const std::vector<Index>& rows = {}) const;
  /// Adds row i of batch entry b to answers for y and weights.
  void add_row(std::vector<Decoy>& answers, Index b, Index i, View<const double, 1> y,
               View<const double, 2> p) const;

  // Answers for batch entry b, or for the first one.
  std::vector<Decoy> other_projections() const;
  std::vector<Decoy> other_options(Index b, const ref::Projected& right) const;
  std::vector<Decoy> other_operands(Index b, const ref::Projected& right, const std::vector<Index>& rows,
                                    Index wrong_head) const;
  std::vector<Decoy> other_masks(Index b, const ref::Projected& right, const std::vector<Index>& rows,
                                 Index wrong_head, bool only_weights_fail) const;
  std::vector<Decoy> other_empty_rows(Index b, const AttentionInputs& attention) const;
  std::vector<Decoy> wrong_softmax(Index b, const AttentionInputs& attention, const std::vector<Index>& rows,
                                   Index wrong_head, bool only_weights_fail) const;
  std::vector<Decoy> other_biases(Index b, const ref::Projected& right, const std::vector<Index>& rows) const;
  /// Tokens whose number is taken apart as in the other layout.
  std::vector<Decoy> other_tokens(Index b) const;
  std::vector<Decoy> other_stores(Index b, const ref::Projected& exact, const std::vector<Index>& rows) const;

  /// Some of the rows of batch entry b that have a wrong element; any rows if there are too few of them.
  std::vector<Index> telling_rows(Index b, std::span<const Expected> expected) const;
  /// The head without which all errors of y would be gone; -1: there is none.
  Index wrong_head(std::span<const Expected> expected) const;
  /// o[D] of head h in row i.
  using HeadOutput = std::function<void(Index h, Index i, View<double, 1> o)>;
  /// y of these rows; in.out_weight projects.
  Decoy joined(const std::string& name, Index b, const std::vector<Index>& rows,
               const ref::MultiheadInputs& in, const HeadOutput& o) const;

  const Case& case_;
  MultiheadCase multihead_;
  MultiheadContract contract_;
};

}  // namespace attest
