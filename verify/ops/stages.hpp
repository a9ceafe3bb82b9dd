// Kernels that err at one stage of their arithmetic, for diagnoses: what they make of a number there.
#pragma once

#include <algorithm>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/dtype.hpp"

namespace attest {

/// change(stage, x) is what the kernel goes on with at that stage where a right one has x.
template <class Stage>
struct Misstep {
  std::string name;
  std::function<double(Stage, double)> change;
};

/// The 16-bit formats that have fewer digits than `compute`.
std::vector<DType> narrow_formats(DType compute);

/// " in bfloat16" and the like, behind the name of what is rounded.
std::string in_format(DType dtype);

/// Kernels that round to a narrow format at some of the stages: the name, then "in bfloat16".
template <class Stage>
std::vector<Misstep<Stage>> narrow_missteps(
    const std::vector<std::pair<std::string_view, std::vector<Stage>>>& named, DType compute) {
  std::vector<Misstep<Stage>> all;
  for (const DType narrow : narrow_formats(compute)) {
    for (const auto& [name, stages] : named) {
      const auto change = [stages = stages, narrow](Stage stage, double x) {
        return std::ranges::find(stages, stage) == stages.end() ? x : round_to(x, narrow);
      };
      all.push_back({std::string(name) + in_format(narrow), change});
    }
  }
  return all;
}

/// A kernel with every operation in a narrow format, as its contract could have said.
template <class Stage>
std::vector<Misstep<Stage>> narrow_throughout(DType compute, const std::string& what = "every operation") {
  std::vector<Misstep<Stage>> all;
  for (const DType narrow : narrow_formats(compute)) {
    all.push_back({what + in_format(narrow) + ": contract key compute_dtype",
                   [narrow](Stage, double x) { return round_to(x, narrow); }});
  }
  return all;
}

}  // namespace attest
