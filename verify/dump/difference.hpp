// Collects the differences between a tensor and its counterpart, which may come in parts.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "verify/axes/axes.hpp"
#include "verify/axes/region.hpp"
#include "verify/dump/compare_dumps.hpp"

namespace attest {

/// Of the tensor `name`, read or not, and its counterparts, of which the values come later. A single part has
/// the shape of the whole; several divide its batch axis, or all have the shape of the whole.
class DifferenceCollector {
 public:
  DifferenceCollector(std::string name, const Tensor& whole, std::vector<Axis> axes,
                      const std::vector<const Tensor*>& parts);

  const std::string& name() const { return found_.name; }

  /// Whether the parts have no batch axis and each is held against all of `whole`.
  bool is_shared() const { return is_shared_; }

  /// The values of part `index`. Does nothing where types or shapes do not fit.
  void add(const Tensor& whole, const Tensor& part, std::size_t index);

  TensorDifference result() const;

 private:
  /// The elements of a part in the whole: `count` of `extent` indices along one axis, from `first` on.
  struct Placement {
    Index first, count;
  };

  /// Finds the places of the parts, or says what does not fit.
  std::string mismatch(const Tensor& whole, const std::vector<const Tensor*>& parts);
  bool place(const Tensor& whole, const std::vector<const Tensor*>& parts);
  void add_element(const Tensor& whole, Index flat, double a, double b);

  TensorDifference found_;
  std::vector<Axis> axes_;
  Region region_;                             // where an element differs
  std::vector<Placement> placements_;         // per part; empty if they do not fit
  Index outer_ = 1, extent_ = 1, inner_ = 1;  // of `whole`, around the axis that the parts divide
  Index first_ = -1;                          // flat index of the first difference
  bool is_shared_ = false;
};

}  // namespace attest
