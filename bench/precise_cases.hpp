// Double-double attention among what is measured.
#pragma once

#include "bench/cases.hpp"

namespace attest::bench {

/// As shares of the fp64 multiply-add peak of the same threads; 4 N^2 D operations are counted forward and 10
/// N^2 D backward, as if they were double's.
void add_precise_cases(const std::vector<int>& threads, const std::string& only, Cases& out);

}  // namespace attest::bench
