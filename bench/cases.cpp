// All that is measured, in the order of the tables.
#include "bench/cases.hpp"

namespace attest::bench {

Cases all_cases(const std::vector<int>& threads, const std::string& only) {
  Cases x;
  add_attention_cases(threads, only, x);
  add_bounds_cases(threads, only, x);
  add_precise_cases(threads, only, x);
  add_row_cases(threads, only, x);
  return x;
}

}  // namespace attest::bench
