// Runs tiled on a problem, and bounds how far its arithmetic may take it from the exact result.
#pragma once

#include <string>

#include "tests/oracle/attention_problem.hpp"
#include "tiled/dispatch.hpp"

namespace attest::test {

/// Results of the forward pass, or bounds on their errors.
struct ForwardTensors {
  Array<double, 3> o;
  Array<double, 2> lse, m, l;

  explicit ForwardTensors(const AttentionInputs& in);
};

/// tiled's results in float or double. The problem's tensors must be exact in that type.
template <class Real>
ForwardTensors run_tiled(const AttentionProblem& problem, tiled::Level level,
                         tiled::Normalisation normalisation = tiled::Normalisation::deferred);

/// How a forward pass is cut up.
struct Cut {
  Index tile = 96;     // keys
  bool joins = false;  // per-step normalisation, or parts of the keys that are merged
};

/// ref's forward pass, and bounds on |ref - exact| and |tiled in arithmetic of unit roundoff u - exact|,
/// which attention_rounding.cpp derives.
struct ReferenceForward {
  ForwardTensors value;
  ForwardTensors bound_float, bound_double;
};
ReferenceForward reference_forward(const AttentionProblem& problem, const Cut& cut = {});

/// The first element that is further from ref than the two may be apart, in words; empty if there is none.
std::string first_disagreement(const ForwardTensors& got, const ForwardTensors& want,
                               const ForwardTensors& bound);

bool same_bits(const ForwardTensors& a, const ForwardTensors& b);

}  // namespace attest::test
