// The multihead_attention problem of a case: its exact values and bounds, the check of ours and the decoys.
#pragma once

#include <string>
#include <vector>

#include "verify/bounds/linear.hpp"
#include "verify/contract_keys.hpp"
#include "verify/op.hpp"
#include "verify/ops/multihead_attention_case.hpp"

namespace attest {

class MultiheadProblem : public Problem {
 public:
  explicit MultiheadProblem(const Case& c);

  std::string contract() const override { return contract_text(contract_, contract_keys_); }
  std::vector<Expected> expect(const ProgressFunction& progress) override;
  void recheck(std::span<const Expected> expected) const override;
  std::vector<Decoy> decoys(std::span<const Expected> expected) const override;
  std::vector<Decoy> alternatives(std::span<const Expected> expected) const override;

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
  /// What ref says of a sample of the rows of batch entry b.
  std::vector<Decoy> sampled(const std::string& name, Index b, const AttentionSpec& spec,
                             const AttentionInputs& attention, const ref::MultiheadInputs& in) const;
  /// Adds row i of batch entry b to answers for y and weights.
  void add_row(std::vector<Decoy>& answers, Index b, Index i, View<const double, 1> y,
               View<const double, 2> p) const;

  const Case& case_;
  MultiheadCase multihead_;
  MultiheadContract contract_;
};

}  // namespace attest
