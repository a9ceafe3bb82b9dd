// What rms_norm and layer_norm share: exact values and bounds, the checks of ours and the decoys.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "verify/bounds/norm.hpp"
#include "verify/op.hpp"
#include "verify/ops/norm/case.hpp"

namespace attest {

struct NormVariant;

class NormProblem : public Problem {
 public:
  /// outputs: the ports of the op.
  NormProblem(const Case& c, bool is_centred, const std::vector<Port>& outputs);

  std::string contract() const override { return norm_.contract_text() + contract_keys_.origin(); }
  std::vector<Expected> expect(const ProgressFunction& progress) override;
  void recheck(std::span<const Expected> expected) const override;
  std::vector<Decoy> decoys(std::span<const Expected> expected) const override;
  std::vector<Decoy> alternatives(std::span<const Expected> expected) const override;
  std::vector<DiagnosisEntry> explanations(std::span<const Expected> expected) const override;

 private:
  struct Variant;
  std::vector<Decoy> sampled_answers(const Variant& variant) const;
  std::vector<Index> sampled_rows() const;
  /// With an eps, or a width to divide by, that the outputs of the forward pass show.
  std::vector<NormVariant> fitted_variants(std::span<const Expected> expected) const;
  /// Without parts of the sums that statistics are.
  std::vector<NormVariant> lost_parts(std::span<const Expected> expected) const;
  /// Gradients that are a number times what they should be.
  std::vector<Decoy> multiplied_gradients(std::span<const Expected> expected) const;
  std::vector<Decoy> in_some_columns(std::span<const Expected> expected) const;
  std::vector<Decoy> of_other_rows(std::span<const Expected> expected) const;
  std::vector<Decoy> unshared_sums(std::span<const Expected> expected) const;
  std::vector<Decoy> narrow_sums_of_dx(const Expected& dx) const;
  std::vector<DiagnosisEntry> wrong_sums_of_warps(std::span<const Expected> expected) const;
  std::vector<Decoy> narrow_gradient_sums(std::span<const Expected> expected) const;
  std::vector<DiagnosisEntry> lost_rows(std::span<const Expected> expected) const;
  std::vector<DiagnosisEntry> wrong_rows_of_chunks(std::span<const Expected> expected) const;
  std::vector<Decoy> misplaced_partial_sums(std::span<const Expected> expected) const;
  std::vector<DiagnosisEntry> lost_columns(std::span<const Expected> expected) const;
  std::vector<DiagnosisEntry> one_pass(std::span<const Expected> expected) const;
  void expect_sum(Expected& sum) const;

  const Case& case_;
  NormCase norm_;
  std::vector<std::string> outputs_;
  std::map<std::string, std::vector<double>> reference_error_;  // of ref, per element of each output
};

}  // namespace attest
