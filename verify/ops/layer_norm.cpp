// The record of `layer_norm`.
#include "verify/inputs/make_inputs.hpp"
#include "verify/ops/norm/problem.hpp"
#include "verify/ops/ops.hpp"

namespace attest {

Op layer_norm_op() {
  using enum PortType;
  return {
      "layer_norm",
      "LayerNorm over the last axis, forward and backward: (x - mean) / sqrt(variance + eps) (weight + "
      "offset) "
      "+ bias.",
      {
          {"x", "... N", floating, true, "input"},
          {"residual", "... N", floating, false, "added to x before the normalisation"},
          {"weight", "N", floating, false, "factor of the normalised x; 1 if absent"},
          {"bias", "N", floating, false, "added last; 0 if absent"},
          {"dy", "... N", floating, false, "gradient of y: asks for the gradients"},
          {"mean", "... (1)", floating, false, "statistics that the gradients read in place of those of x"},
          {"rstd", "... (1)", floating, false, "likewise; with mean"},
      },
      {
          {"y", "... N", floating, false, "output"},
          {"mean", "... (1)", floating, false, "mean of every row"},
          {"rstd", "... (1)", floating, false, "1 / sqrt(variance + eps) of every row"},
          {"sum", "... N", floating, false, "x + residual as the next layer reads it"},
          {"dx", "... N", floating, false, "gradient of x, and of residual"},
          {"dweight", "N", floating, false, "gradient of weight"},
          {"dbias", "N", floating, false, "gradient of bias"},
      },
      norm_spec_keys("added to the variance (mean over N, not N - 1), under the root"),
      norm_contract_keys(true),
      [](const Case& c) -> std::unique_ptr<Problem> {
        return std::make_unique<NormProblem>(c, true, layer_norm_op().outputs);
      },
      norm_inputs(true),
  };
}

}  // namespace attest
