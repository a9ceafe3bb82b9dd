// A multihead_attention case whose tensors and options fit together.
#pragma once

#include "ref/multihead_attention.hpp"
#include "verify/axes/extents.hpp"
#include "verify/keys.hpp"

namespace attest {

class MultiheadCase {
 public:
  /// Throws InvalidCase where spec, shapes or values do not fit together. The case must outlive this object.
  explicit MultiheadCase(const Case& c);

  AttentionSpec spec{Causal::none, 0, -1, -1, 0, EmptyRow::zero};
  Index heads = 0;
  bool average_weights = true;                        // out/weights is the mean over the heads
  Index batch = 0, queries = 0, keys = 0, width = 0;  // B, Sq, Sk, M

  /// Batch entry b.
  ref::MultiheadInputs entry(Index b) const;
  /// Self-attention over the batch entries at place i of the sequence: what a kernel computes that takes the
  /// layouts for each other. Without mask.
  ref::MultiheadInputs across_batch(Index i) const;

  /// The same tensors read as a kernel does that takes token r for row r mod S of batch entry r / S although
  /// the layout is lbm, or for row r / B of batch entry r mod B although it is blm.
  MultiheadCase with_tokens_of_other_layout() const {
    MultiheadCase other = *this;
    other.batch_first_ = !batch_first_;
    return other;
  }
  bool is_batch_first() const { return batch_first_; }

  const Tensor& x() const { return *query_; }

  /// Rows of batch entry b in an array that is laid out like out/y, as [Sq, M].
  template <class T>
  View<T, 2> like_y(T* data, Index b) const {
    return rows(data, queries, b);
  }
  /// Batch entry b in an array that is laid out like out/weights, as [H, Sq, Sk]; [1, Sq, Sk] if averaged.
  template <class T>
  View<T, 3> like_weights(T* data, Index b) const {
    const Index planes = average_weights ? 1 : heads;
    return {data + b * planes * queries * keys, {planes, queries, keys}};
  }

 private:
  void read_spec();
  void read_shapes();
  void check_values() const;

  /// [length, M] of batch entry b in a tensor of this layout.
  template <class T>
  View<T, 2> rows(T* data, Index length, Index b) const {
    return {data + b * (batch_first_ ? length * width : width),
            {length, width},
            {batch_first_ ? width : batch * width, 1}};
  }

  const Case& case_;
  Extents extents_;
  bool batch_first_ = false;
  const Tensor *query_ = nullptr, *key_ = nullptr, *value_ = nullptr;
};

}  // namespace attest
