// The record of `rms_norm`.
#include "verify/inputs/make_inputs.hpp"
#include "verify/ops/norm/problem.hpp"
#include "verify/ops/ops.hpp"

namespace attest {

Op rms_norm_op() {
  using enum PortType;
  return {
      "rms_norm",
      "RMSNorm over the last axis, forward and backward: x / sqrt(mean(x^2) + eps) (weight + offset) + bias.",
      {
          {"x", "... N", floating, true, "input"},
          {"residual", "... N", floating, false, "added to x before the normalisation"},
          {"weight", "N", floating, false, "factor of the normalised x; 1 if absent"},
          {"bias", "N", floating, false, "added last; 0 if absent"},
          {"dy", "... N", floating, false, "gradient of y: asks for the gradients"},
          {"rstd", "... (1)", floating, false, "statistics that the gradients read in place of those of x"},
      },
      {
          {"y", "... N", floating, false, "output"},
          {"rstd", "... (1)", floating, false, "1 / sqrt(mean(x^2) + eps) of every row"},
          {"sum", "... N", floating, false, "x + residual as the next layer reads it"},
          {"dx", "... N", floating, false, "gradient of x, and of residual"},
          {"dweight", "N", floating, false, "gradient of weight"},
          {"dbias", "N", floating, false, "gradient of bias"},
      },
      norm_spec_keys("added to the mean square, under the root"),
      norm_contract_keys(false),
      [](const Case& c) -> std::unique_ptr<Problem> {
        return std::make_unique<NormProblem>(c, false, rms_norm_op().outputs);
      },
      norm_inputs(false),
  };
}

}  // namespace attest
