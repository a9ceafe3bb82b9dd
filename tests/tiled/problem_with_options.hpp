// Problems whose other options are drawn by chance.
#pragma once

#include <array>
#include <cstdint>

#include "tests/oracle/attention_problem.hpp"
#include "tests/support/random.hpp"

namespace attest::test {

inline AttentionProblem problem_with_options(const AttentionShape& shape, Causal causal, Index window_left,
                                             Index window_right, std::uint64_t seed) {
  Random random(seed);
  const EmptyRow empty_row = std::array{EmptyRow::zero, EmptyRow::nan, EmptyRow::mean_v}[seed % 3];
  const AttentionSpec spec{causal,
                           random.one_in(2) ? 0.25 : -0.3,
                           window_left,
                           window_right,
                           random.one_in(3) ? 1.5 : 0,
                           empty_row,
                           seed % 2 == 0 ? Alibi::distance : Alibi::position};
  const AttentionExtras extras{random.one_in(4), random.one_in(4), random.one_in(4), random.one_in(4)};
  return random_problem(shape, spec, extras, random.below(shape.sk + 1), seed);
}

}  // namespace attest::test
