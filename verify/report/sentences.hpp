// What findings mean, in sentences that every report for people uses.
#pragma once

#include <string>
#include <vector>

#include "verify/findings.hpp"

namespace attest {

/// "[0,1,7,15]"
std::string list_text(const std::vector<Index>& numbers);

/// Digits that tell two values of the output's type apart.
int digits_of(const OutputFindings& o);

/// "1 of 1152 elements beyond the bound, 1 of them certainly: worst 3.1 times the rigorous bound; in row 7"
std::string beyond_sentence(const OutputFindings& o);

/// "worst at [0,1,7,15]: got 1, want 0.5; |error| 0.5 = 12 times the bound 0.0417"
std::string worst_sentence(const OutputFindings& o);

/// "errors spread 1.28 times as far as the contract explains; 1.09 is the limit"
std::string sentence_of(const Statistic& x);

/// "query rows 64..127: errors spread 1.28 times ..." of each region beyond its limit.
std::vector<std::string> sentences_of(const SpreadByRegion& axis);

/// "by head 0.61 to 0.68": the least and the largest.
std::string range_text(const SpreadByRegion& axis);

/// What `--fit` found: "passes with p_dtype bfloat16 instead of float16; rms of error / sigma: o 0.83" ...
std::vector<std::string> sentences_of(const ContractFit& fit);

/// "error grew: spread 0.94, 0.83 in the baseline; 0.86 is the limit"
std::string sentence_of(const Growth& x);

}  // namespace attest
