// Runs tiled's backward pass on a problem, and bounds how far its arithmetic may take it from the exact
// result.
#pragma once

#include <string>

#include "tests/oracle/attention_problem.hpp"
#include "tiled/dispatch.hpp"

namespace attest::test {

/// Gradients, or bounds on their errors.
struct GradientTensors {
  Array<double, 3> dq, dk, dv, ds;
  Array<double, 1> dsink;

  explicit GradientTensors(const AttentionInputs& in);
};

/// What the backward pass reads of the forward pass.
struct SavedTensors {
  Array<double, 3> o;
  Array<double, 2> lse;

  /// Of ref, rounded to float, so that float and double start from the same.
  explicit SavedTensors(const AttentionProblem& problem);
  SavedTensors(Array<double, 3> given_o, Array<double, 2> given_lse)
      : o(std::move(given_o)), lse(std::move(given_lse)) {}
};

/// ref's gradients as functions of these o and lse.
GradientTensors reference_backward(const AttentionProblem& problem, const SavedTensors& saved);

/// tiled's results in float or double; problem and saved are converted.
template <class Real>
GradientTensors run_tiled_backward(const AttentionProblem& problem, const SavedTensors& saved,
                                   tiled::Level level);

/// Adds the bounds of arithmetic with unit roundoff u, smallest subnormal eta and smallest normal number tiny
/// (backward_rounding.cpp derives them), where o and lse are off by saved_error of themselves.
void add_bounds(const AttentionProblem& problem, const SavedTensors& saved, double u, double eta, double tiny,
                GradientTensors& bound, double saved_error = 0);

/// The first element that is further from `want` than its bound, in words; empty if there is none.
std::string disagreement(const GradientTensors& got, const GradientTensors& want,
                         const GradientTensors& bound);

}  // namespace attest::test
