// The problem of gelu, silu and sigmoid: one function of every element.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "ref/activation.hpp"
#include "verify/contract/keys.hpp"
#include "verify/op.hpp"

namespace attest {

class ActivationProblem : public Problem {
 public:
  explicit ActivationProblem(const Case& c);

  std::string contract() const override;
  std::vector<Expected> expect(const ProgressFunction& progress) override;
  void recheck(std::span<const Expected> expected) const override;
  std::vector<Decoy> decoys(std::span<const Expected> expected) const override;
  std::vector<Decoy> alternatives(std::span<const Expected> expected) const override;
  std::vector<DiagnosisEntry> explanations(std::span<const Expected> expected) const override;

 private:
  void fill_values(Expected& expected) const;

  std::vector<DiagnosisEntry> gate_without_tail(const Expected& y) const;
  std::vector<Decoy> fitted_constants(std::span<const Expected> expected) const;
  std::vector<Decoy> wrong_derivatives(std::span<const Expected> expected) const;
  std::vector<Decoy> misplaced(std::span<const Expected> expected) const;
  std::vector<DiagnosisEntry> copied_elements(const Expected& expected) const;

  using Function = std::function<double(double x)>;
  using Gradient = std::function<double(double x, double dy)>;
  /// A function and its derivative, or y and dx, of a sample of elements: answers for the outputs that the
  /// case holds.
  std::vector<Decoy> sampled(const std::string& name, const Function& value, const Function& slope) const;
  std::vector<Decoy> sampled_gradients(const std::string& name, const Function& value,
                                       const Gradient& gradient) const;

  const Case& case_;
  const Tensor& x_;
  DType compute_;
  double gate_error_;  // beyond what the formulas round
  ref::Activation kind_;
};

}  // namespace attest
