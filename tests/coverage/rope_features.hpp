// Features of rope.
#pragma once

#include <vector>

#include "tests/coverage/feature.hpp"

namespace attest::coverage {

std::vector<Feature> rope_features(DType element);

}  // namespace attest::coverage
