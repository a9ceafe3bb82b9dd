// Arithmetic that attention and multi-head attention can declare alike.
#pragma once

#include <string>
#include <vector>

#include "verify/case.hpp"

namespace attest::coverage {

struct DeclaredArithmetic {
  std::string name, key;
  Attribute value;

  void operator()(Case& c) const { c.contract[key] = value; }
};

inline std::vector<DeclaredArithmetic> attention_arithmetic() {
  return {
      {"weights stored in bfloat16", "p_dtype", "bfloat16"},
      {"softmax in float64", "softmax_dtype", "float64"},
      {"scores added up in float64", "qk_accumulate", "float64"},
      {"outputs added up in float64", "pv_accumulate", "float64"},
      {"tensor cores of Volta", "matrix_unit", "volta"},
      {"tensor cores of Hopper", "matrix_unit", "hopper"},
      {"every addition rounded", "matrix_unit", "none"},
      {"operands in tf32", "matrix_unit", "tf32"},
      {"row sum of stored weights", "row_sum", "stored"},
      {"o of splits stored in bfloat16", "split_dtype", "bfloat16"},
      {"exp within 1e-4", "exp_error", 1e-4},
      {"weights normalised", "weights", "normalised"},
      {"weights relative to the maximum", "weights", "relative"},
      {"weights relative to the maximum, times 256", "weights", "relative_256"},
      {"weights relative to the maximum, times 448", "weights", "relative_448"},
      {"scores stored in bfloat16", "scores_dtype", "bfloat16"},
  };
}

}  // namespace attest::coverage
