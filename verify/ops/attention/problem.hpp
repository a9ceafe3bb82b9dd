// The attention problem of a case: its exact values and bounds, the checks of ours and the decoys.
#pragma once

#include <cmath>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/array.hpp"
#include "core/contract.hpp"
#include "ref/attention.hpp"
#include "verify/bounds/attention_backward.hpp"
#include "verify/bounds/attention_forward.hpp"
#include "verify/op.hpp"
#include "verify/ops/attention/case.hpp"
#include "verify/ops/attention/replay.hpp"

namespace attest {

/// What the gradients of one sequence are judged from: the device's own o and lse where they are usable, so
/// that a gradient is judged as a function of what its kernel read, and exact values with their bounds
/// elsewhere.
struct SavedForBackward {
  Array<double, 3> d_o, o, o_worst, o_systematic, o_sigma;  // [Hq, Sq, E]
  Array<double, 2> lse, lse_worst, lse_systematic;          // [Hq, Sq], natural log
  Array<double, 2> delta_shift;                             // [Hq, Sq]: see BackwardInputs; NaN at first

  explicit SavedForBackward(const Sequence& s);

  /// delta_shift, 0 where it is unknown.
  double known_delta_shift(Index h, Index i) const {
    return std::isnan(delta_shift(h, i)) ? 0 : delta_shift(h, i);
  }

  bounds::BackwardInputs for_bounds() const;
  ref::AttentionSaved for_ref() const { return {o.view(), lse.view(), d_o.view()}; }
};

class AttentionProblem : public Problem {
 public:
  explicit AttentionProblem(const Case& c);

  std::string contract() const override;
  std::vector<Expected> expect(const ProgressFunction& progress) override;
  void recheck(std::span<const Expected> expected) const override;
  std::vector<Decoy> decoys(std::span<const Expected> expected) const override;
  std::vector<Decoy> alternatives(std::span<const Expected> expected) const override;
  std::vector<DiagnosisEntry> explanations(std::span<const Expected> expected) const override;

 private:
  bool has_gradients() const;
  bounds::ForwardOutputs forward_outputs(const Sequence& s, std::vector<Expected>& all) const;
  void collect_saved(std::vector<Expected>& all);
  void expect_replays(std::vector<Expected>& all) const;
  void expect_gradients(std::vector<Expected>& all, const ProgressFunction& progress);

  /// How a kernel may have misread its inputs.
  using Misreading = std::function<void(AttentionInputs&)>;

  /// What ref says of a sample of rows and keys if the options were `spec` and the inputs misread: one entry
  /// per output that the case holds; none for dk and dv if a misreading changes how many keys there are.
  std::vector<Decoy> sampled_answers(const std::string& name, const AttentionSpec& spec,
                                     const Misreading& misread = {}) const;
  class Answers;
  /// How a kernel may have misread what its backward pass starts from.
  using GradientMisreading = std::function<void(AttentionInputs&, ref::AttentionSaved&)>;
  /// The same for dq, dk and dv only: what the backward pass alone misreads.
  std::vector<Decoy> sampled_gradients(const std::string& name, const AttentionSpec& spec,
                                       const GradientMisreading& misread) const;
  void add_gradients(Answers& answers, const AttentionSpec& spec, const GradientMisreading& misread) const;
  /// lse from other statistics of its row.
  std::vector<Decoy> sampled_lse(const std::string& name,
                                 const std::function<double(double m, double l)>& lse) const;
  /// m and l from other statistics of their row; lse stays.
  std::vector<Decoy> sampled_statistics(
      const std::string& name, const std::function<ref::SoftmaxStats(const ref::SoftmaxStats&)>& of) const;
  std::vector<Decoy> sampled_means_of_v() const;
  /// o of tensors whose axes are in another order than the spec says.
  std::vector<Decoy> in_other_layouts() const;
  /// What the backward pass alone gets wrong; none without gradients.
  std::vector<Decoy> gradient_alternatives(std::span<const Expected> expected) const;

  const Case& case_;
  AttentionCase attention_;
  Contract contract_;
  std::vector<Tensor> unwritten_;        // shapes of o and lse where the dump holds gradients but not these
  std::vector<SavedForBackward> saved_;  // per sequence, if there are gradients
  std::optional<WeightStore> weight_store_;  // how the kernel seems to store P
};

}  // namespace attest
