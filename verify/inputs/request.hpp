// Requests for inputs as people write them, checked against the records of the operations.
#pragma once

#include <string>
#include <vector>

#include "verify/inputs/generated.hpp"

namespace attest {

struct Op;

/// The texts of one command line.
struct RequestText {
  std::string recipe;
  std::vector<std::string> shape;  // "B=1,Hq=8"
  std::vector<std::string> set;    // "causal=top_left", "contract/p_dtype=float32"
  std::vector<std::string> with;   // "do,sink"
  std::string dtype = "float16";
  std::uint64_t seed = 1;
};

/// Throws InvalidCase that lists what is accepted.
InputRequest parse_request(const Op& op, const RequestText& text);

/// What the recipes of an op are for, its extents and optional inputs. Width 0 breaks no line.
std::string text_of_recipes(const Op& op, Index width);

}  // namespace attest
