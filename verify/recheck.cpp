// The check of ours on every run: the engine's values against those of ref.
#include "verify/recheck.hpp"

#include <algorithm>
#include <cmath>

#include "verify/text.hpp"

namespace attest {

void hold_against_ref(std::span<const Expected> expected, std::span<const Decoy> answers) {
  for (const Decoy& answer : answers) {
    const auto e = std::ranges::find(expected, answer.output, &Expected::output);
    if (e == expected.end()) continue;
    for (std::size_t n = 0; n < answer.at.size(); ++n) {
      const Index at = answer.at[n];
      const double value = e->value[at], want = answer.value[n];
      const bool agrees = value == want || std::abs(value - want) <= e->disagreement(at) ||
                          (std::isnan(value) && std::isnan(want));
      if (agrees) continue;
      throw InternalError("the engine's value of out/" + e->output + " at flat index " + std::to_string(at) +
                          " is " + exact_text(value) + ", the reference's " + exact_text(want));
    }
  }
}

}  // namespace attest
