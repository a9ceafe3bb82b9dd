// Gradients of attention, and how far apart tiled and ref may be in them.
#pragma once

#include <string>

#include "tests/tiled/attention_rounding.hpp"

namespace attest::test {

/// Gradients, or bounds on their errors.
struct GradientTensors {
  Array<double, 3> dq, dk, dv, ds;
  Array<double, 1> dsink;

  explicit GradientTensors(const AttentionInputs& in)
      : dq({in.q_heads(), in.queries(), in.qk_width()}),
        dk({in.kv_heads(), in.keys(), in.qk_width()}),
        dv({in.kv_heads(), in.keys(), in.v_width()}),
        ds({in.q_heads(), in.queries(), in.keys()}),
        dsink({in.sink ? in.q_heads() : 0}) {}
};

/// What the backward pass reads of the forward pass.
struct SavedTensors {
  Array<double, 3> o;
  Array<double, 2> lse;
};

/// ref's gradients as functions of these o and lse.
GradientTensors reference_backward(const AttentionProblem& problem, const SavedTensors& saved);

/// Adds the bounds of arithmetic with unit roundoff u, which gradient_rounding.cpp derives.
void add_bounds(const AttentionProblem& problem, const SavedTensors& saved, double u, double eta, double tiny,
                GradientTensors& bound);

/// The first element that is further from `want` than the bound, in words; empty if there is none.
std::string disagreement(const GradientTensors& got, const GradientTensors& want,
                         const GradientTensors& bound);

}  // namespace attest::test
