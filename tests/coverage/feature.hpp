// What the coverage table is made of: one small case for every meaning that an op's record gives a dump, and
// what an oracle says of it.
#pragma once

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/dtype.hpp"
#include "verify/case.hpp"

namespace attest::coverage {

/// Which ports and keys it exercises is read off the case (exercised.hpp).
struct Feature {
  std::string name;  // "windows on both sides"
  Case c;            // out/ has shapes and element types, but no values yet
};

/// What an oracle says of one output, in the order of the dumped tensor.
struct Answer {
  std::vector<long double> value;
  std::vector<long double> error;  // |value - exact| <= error, by the oracle's own arithmetic

  explicit Answer(const Tensor& output) : value(output.size()), error(output.size()) {}
};
using Answers = std::map<std::string, Answer>;  // by output

/// The features of one op, and its oracle. Neither shares code with ref/ or with verify/.
struct Suite {
  std::string_view op;
  std::string_view oracle;  // where it is
  /// Tensors of the op's main inputs and outputs have this element type.
  std::vector<Feature> (*features)(DType element);
  /// Of every output that the case holds.
  Answers (*answers)(const Case& c);
};
std::span<const Suite> all_suites();

extern const Suite attention_suite, softmax_suite, gelu_suite, silu_suite, sigmoid_suite, rms_norm_suite,
    layer_norm_suite, layer_norm_qkv_suite, rope_suite, multihead_attention_suite;

}  // namespace attest::coverage
