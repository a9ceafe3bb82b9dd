// One feature put to the test: exact values against the oracle, an honest dump, and wrong ones.
#pragma once

#include <string>
#include <vector>

#include "tests/coverage/feature.hpp"

namespace attest::coverage {

struct OutputCheck {
  std::string name;
  /// Median of bound / ulp of the output's element type over the elements that need not be met exactly; 0 if
  /// all do.
  double bound_in_ulp = 0;
  /// Largest share of an element's bound by which its exact value may differ from the oracle's.
  double open_share = 0;
};

struct Checked {
  std::vector<OutputCheck> outputs;   // in the order of the ports
  std::vector<std::string> problems;  // none: the feature is covered
};

/// - The op's value of every output, asked for alone, is the oracle's within the certified error of the value
///   and the oracle's own.
/// - Every bound is finite, is no more than the rigorous one, and is 0 only where the value is a number of
/// the
///   output's element type.
/// - The oracle's values, rounded to the element types, pass together, and no decoy would.
/// - For every output, one element that is 3 bounds off (one ulp where it must be exact) fails it, and so
/// does
///   a NaN.
Checked check(const Suite& suite, const Feature& feature);

}  // namespace attest::coverage
