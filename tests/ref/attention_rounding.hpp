// Runs ref on a problem, and bounds how far double arithmetic may take ref from the exact result.
#pragma once

#include <cmath>
#include <string>

#include "core/array.hpp"
#include "tests/oracle/attention.hpp"
#include "tests/oracle/attention_problem.hpp"

namespace attest::test {

/// One value per element of every output of attention: results of ref, or bounds on their errors.
struct AttentionTensors {
  Array<double, 3> o, s, p, dq, dk, dv, ds;
  Array<double, 2> lse, m, l;
  Array<double, 1> dsink;

  explicit AttentionTensors(const AttentionInputs& in);
};

/// ref's forward pass, and its backward pass on what the forward pass saved.
AttentionTensors run_ref(const AttentionProblem& problem);

/// What the oracle says.
struct Exact {
  oracle::Attention forward;
  oracle::AttentionGradients backward;
};
Exact run_oracle(const AttentionProblem& problem);

/// Bounds on |ref - exact|, derived in attention_rounding.cpp. Throws std::logic_error where the scores are
/// so large that their rounding errors are no longer small and the derivation does not hold.
AttentionTensors rounding_bounds(const AttentionProblem& problem, const Exact& exact);

/// Infinities are equal or not; NaN agrees with NaN and with nothing else.
inline bool agrees(oracle::Real got, oracle::Real want, oracle::Real bound) {
  return std::isnan(want) ? std::isnan(got) : got == want || std::abs(got - want) <= bound;
}

/// Every element equal, NaN to NaN.
template <int Rank>
bool same(const Array<double, Rank>& a, const Array<double, Rank>& b) {
  for (Index n = 0; n < a.size(); ++n) {
    if (!agrees(a.data()[n], b.data()[n], 0)) return false;
  }
  return a.size() == b.size();
}
bool same(const AttentionTensors& a, const AttentionTensors& b);

/// The first element of ref that leaves its bound, in words with the problem's name; empty if there is none.
std::string first_disagreement(const AttentionProblem& problem);

}  // namespace attest::test
