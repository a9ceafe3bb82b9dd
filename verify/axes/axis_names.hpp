// What axes are called in pictures and tables, in the terms of the op: "query row", "head".
#pragma once

#include <string>
#include <vector>

#include "verify/axes/axes.hpp"

namespace attest {

/// One index of `axes[axis]`.
std::string axis_name(const Op& op, const std::vector<Axis>& axes, std::size_t axis);

/// Several of them: "query rows", "batch entries".
std::string plural(const std::string& name);

}  // namespace attest
