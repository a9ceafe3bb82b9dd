// Inputs of attention as kernels have misread them, for answers that a failed dump is held against.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "core/attention.hpp"

namespace attest {

/// One way to misread the inputs. apply() may point the views at arrays that live as long as this object.
struct NamedMisreading {
  std::string name;
  bool needs_no_mask = false;  // the diagonal and the windows are part of what is misread: none apply
  std::function<void(AttentionInputs&)> apply;
  bool is_of_whole_call = false;  // see Decoy
};

/// Those that can be told from the right reading of these inputs: masks and biases of another row or sign,
/// heads and rows of K and V other than their own, options of the score in another order. Misreadings that
/// need an array of all scores are left out of long sequences.
std::vector<NamedMisreading> misreadings(const AttentionSpec& spec, const AttentionInputs& in);

}  // namespace attest
