// How others decide that a tensor is right, for comparison.
#pragma once

#include <array>
#include <span>
#include <string_view>

#include "core/dtype.hpp"

namespace attest::faults {

/// One output. want: the exact values rounded to the element type. plain: what a plain implementation in the
/// element type makes of the same inputs.
struct Judged {
  std::string_view output;
  DType dtype;
  std::span<const double> got, want, plain;
};

struct Rule {
  std::string_view name;
  bool (*rejects)(const Judged& tensor);
};

/// torch.assert_close with its defaults; allclose with 1e-2; cosine similarity > 0.999; ggml's normalised
/// mean squared error < 5e-4; flash-attention's: o no further off than twice what a plain implementation is,
/// gradients three times, lse not looked at.
inline constexpr int rule_count = 5;
const std::array<Rule, rule_count>& other_rules();

}  // namespace attest::faults
