// Contract keys that a diagnosis names, where the case could have them.
#include "verify/diagnosis/advice.hpp"

#include <string_view>

#include "core/dtype.hpp"

namespace attest {
namespace {

bool holds(const Format& wide, const Format& format) {
  return wide.precision >= format.precision && wide.emax >= format.emax && wide.emin <= format.emin;
}

}  // namespace

void drop_impossible_advice(const Case& c, std::span<Decoy> answers) {
  constexpr std::string_view key = ": contract key compute_dtype";
  for (const DType narrow : {DType::float16, DType::bfloat16}) {
    bool is_possible = true;
    // The cosines and sines of rope need not be held.
    for (const char* name : {"x", "dy", "residual", "weight", "bias"})
      if (const Tensor* input = c.input(name); input && input->dtype)
        is_possible &= holds(format_of(narrow), format_of(*input->dtype));
    if (is_possible) continue;
    const std::string advice = " " + std::string(format_of(narrow).name) + std::string(key);
    for (Decoy& answer : answers)
      if (answer.name.ends_with(advice)) answer.name.resize(answer.name.size() - key.size());
  }
}

}  // namespace attest
