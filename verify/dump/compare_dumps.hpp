// Two dumps held against each other bit for bit: what differs, and by how much.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "verify/dump/dump.hpp"
#include "verify/findings.hpp"
#include "verify/text.hpp"

namespace attest {

/// One tensor of file A and its counterpart in file B, element by element. All NaNs count as the same; +0 and
/// -0 do not.
struct TensorDifference {
  std::string name;
  std::string type_name;  // in A, like the shape
  std::vector<Index> shape;
  Index elements = 0;
  Index different = 0;    // all of them where type or shape differ
  Index zero_signs = 0;   // of these, +0 against -0
  Index both_nan = 0;     // elements
  std::vector<Index> at;  // the first that differs, in the shape in A; empty where none does or nothing fits
  double a = 0, b = 0;    // there
  /// The largest distance, in steps from one value of the type to the next; +0 and -0 are the same step.
  /// Infinite if one of the two is NaN, or nothing fits.
  double ulps = 0;
  std::string where;  // "all in rows 64..127 of head 3"; or which type or shape differs; "" if equal

  Verdict verdict() const { return different == 0 ? Verdict::pass : Verdict::fail; }
};

/// Verdict pass means equal, fail means different.
struct CaseDifference {
  std::string name;
  Verdict verdict = Verdict::pass;
  std::vector<TensorDifference> outputs;  // that are in both
  std::vector<std::string> reasons;       // why inconclusive: what was computed is not the same
  std::vector<std::string> notes;         // what else differs, or was not compared
  std::string error;                      // why invalid or internal
};

/// Case `name_a` of A against one case of B, or against several that make up its batch, in that order.
/// Inconclusive if op, spec or inputs differ. Holds one case of each file in memory. Throws InvalidCase.
CaseDifference compare_cases(const Dump& a, const std::string& name_a, const Dump& b,
                             std::span<const std::string> names_b);

/// "12 of 256 elements differ, 3 only in the sign of zero, by up to 4 ulp". Something differs.
std::string counts_text(const TensorDifference& difference);
/// "first at [0, 1, 7, 15]: 0.25 and 0.5". There is such an element.
std::string first_text(const TensorDifference& difference);

/// The table: both files, a line per case, below it what differs; the last line counts the verdicts.
std::string text_of_comparison(const std::string& file_a, const std::string& file_b,
                               std::span<const CaseDifference> cases, const TextStyle& style);

/// docs/compare.md describes it. `version` is the program's.
std::string json_of_comparison(const std::string& file_a, const std::string& file_b,
                               std::span<const CaseDifference> cases, std::string_view version);

}  // namespace attest
