// What a record promises and what a case exercises of it: ports, and values of keys.
#pragma once

#include <set>
#include <string>

#include "tests/coverage/feature.hpp"
#include "verify/op.hpp"

namespace attest::coverage {

/// "in/mask, forward", "in/mask absent", "out/m with 4 axes", "causal = top_left, backward", "scale,
/// forward":
///   every input port, and every optional one absent; every output port; each number of axes that a port's
///   extents offer;
///   every value of a key that is a choice, and that key absent where nothing stands in for it;
///   every other key at a value that is not its fallback.
/// If the op has gradients, inputs and keys count for outputs of the forward and of the backward pass apart.
using Items = std::set<std::string>;

Items promised(const Op& op);

/// A key of the spec counts only if the oracle's answer depends on it: it is another one under every other
/// choice, or without the key, or, where it is required, with another number. Changes that make the case
/// invalid are not asked about.
Items exercised(const Suite& suite, const Op& op, const Case& c);

/// dq, dx, ...: named after an input.
bool is_gradient(const Op& op, const std::string& output);

}  // namespace attest::coverage
