// Where an answer holds that right elements elsewhere speak against: "in head 0".
#pragma once

#include <string>
#include <vector>

#include "verify/axes/axes.hpp"

namespace attest {

/// Of the elements that an answer explains and those that it makes wrong: the indices along one axis or a few
/// that nearly all of the former have, and of the latter no more than `most_denied` times as many. "" if
/// there are no such indices. Indices that no element has are unknown.
std::string held_place(std::vector<Index> explained, std::vector<Index> denied, const std::vector<Axis>& axes,
                       double most_denied);

}  // namespace attest
