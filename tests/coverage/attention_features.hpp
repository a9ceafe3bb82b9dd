// Features of attention.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tests/coverage/feature.hpp"
#include "tests/coverage/tensors.hpp"

namespace attest::coverage {

std::vector<Feature> attention_features(DType element);

struct AttentionExtents {
  Index batch = 2, q_heads = 3, kv_heads = 3, queries = 9, keys = 11, width = 8, v_width = 8;
};

/// The features of one element type. Unless a change says otherwise, a case has o, lse, dq, dk and dv.
class AttentionFeatures {
 public:
  using Change = std::function<void(Case&)>;

  explicit AttentionFeatures(DType element) : element_(element) {}

  void add_masks();
  void add_biases();
  void add_keys();
  void add_layouts();
  void add_statistics();
  void add_types();
  std::vector<Feature> take() { return std::move(all_); }

 private:
  void add(const std::string& name, const Change& change, const AttentionExtents& n = {},
           const std::string& layout = "bhsd");

  void set_bias(Case& c, const Shape& shape) const;
  void set_sink(Case& c, Index heads) const;
  void set_slopes(Case& c, const Shape& shape) const;
  void set_past(Case& c, const Shape& k_shape, const Shape& v_shape) const;
  void set_past(Case& c, const Shape& shape) const { set_past(c, shape, shape); }
  static void set_mask(Case& c, const Shape& shape);
  /// A mask with no key for row 2 of head 0 of batch entry 0, for 9 rows of 11 keys.
  static void set_mask_with_empty_row(Case& c);

  DType element_;
  std::vector<Feature> all_;
};

}  // namespace attest::coverage
