// One emulated dump, judged by attest and by the rules of others.
#pragma once

#include <array>
#include <map>
#include <string>
#include <vector>

#include "tests/emulate/honest_attention.hpp"
#include "tests/emulate/judged.hpp"
#include "tests/faults/fault.hpp"
#include "tests/faults/rules.hpp"

namespace attest::faults {

using emulate::Fault;
using emulate::Kernel;
using emulate::NamedKernel;
using emulate::Setup;

/// What kernels dump here; gradients only if the backward pass ran.
inline const std::vector<std::string> dumped = {"o", "lse", "dq", "dk", "dv", "dbias", "dsink"};

/// Results of one setup that every kernel is held against.
class Truth {
 public:
  Truth(const Setup& setup, bool with_gradients);

  /// Which of other_rules() reject an output of the dump, and how many tensors each.
  std::array<int, rule_count> rejections(const Case& dump) const;

 private:
  std::map<std::string, std::vector<double>> exact_, plain_;
};

struct Outcome {
  bool is_equivalent = false;  // not a bit differs from the honest dump
  Verdict verdict = Verdict::pass;
  bool fails_by_o = false;
  bool is_named = false;
  std::string cause;  // the first of the diagnosis; empty if there is none
  std::array<bool, rule_count> rejected{};
};

/// The kernel that faults are planted in: deferred normalisation, tiles of 32, tensor cores for 16 bits.
Kernel base_kernel(DType element);

/// Kernels that keep the contract: algorithms, tiles, orders, splits and adders.
std::vector<NamedKernel> honest_variants(DType element);

/// Honest: the dump of base_kernel().
Outcome outcome_of(const Fault& fault, const Setup& setup, const Case& honest, const Truth& truth);

}  // namespace attest::faults
