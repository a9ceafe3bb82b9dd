// The attention problem that a case describes: options, conventions, and one set of views per sequence.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "core/array.hpp"
#include "core/attention.hpp"
#include "core/contract.hpp"
#include "verify/axes/extents.hpp"
#include "verify/axes/layout.hpp"
#include "verify/case.hpp"
#include "verify/keys.hpp"

namespace attest {

/// One entry of the batch, or one packed sequence.
struct Sequence {
  Index b;                 // batch entry; 0 for packed sequences
  Index first_q, queries;  // where its rows begin in the tensors, and how many there are
  Index first_k, keys;     // the same for the new keys, without the past
  AttentionInputs in;
  AttentionInputs in_backward;  // what the backward pass reads
};

class AttentionCase {
 public:
  /// Throws InvalidCase where spec, shapes or values do not fit together. The case must outlive this object.
  explicit AttentionCase(const Case& c);

  /// Replaces q by what the forward pass reads in its place, and k by what the backward pass does, if the
  /// contract has a factor for it. Throws InvalidCase where that overflows, and for contracts in float64.
  void scale_operands(const Contract& contract);
  /// in/q or in/k times the factor as a kernel stores it in its element type, divided by the factor again:
  /// what it reads where the whole scale is still to come.
  std::vector<double> scaled(const std::string& name, double factor) const;
  bool has_past() const { return past_ > 0; }

  AttentionSpec spec;
  double lse_unit;   // 1 for natural logarithms, log2(e) for base 2
  double lse_empty;  // of a row that may attend to no key
  std::vector<Sequence> sequences;

  /// A tensor without values that has the shape of lse.
  Tensor rows_tensor(DType dtype) const;

  /// Keys of a batch entry, those of the past and those beyond its length included.
  Index padded_keys() const { return past_ + sizes_k_.s; }

  // Where a sequence's share of an output lies in an array that is laid out like the dumped tensor.
  template <class T>
  View<T, 3> like_q(T* data, const Sequence& s) const {
    return rows_of(data, s, sizes_q_.width);
  }
  template <class T>
  View<T, 3> like_o(T* data, const Sequence& s) const {
    return rows_of(data, s, sizes_v_.width);
  }
  template <class T>
  View<T, 3> like_k(T* data, const Sequence& s) const {
    return keys_of(data, s, sizes_k_.width);
  }
  template <class T>
  View<T, 3> like_v(T* data, const Sequence& s) const {
    return keys_of(data, s, sizes_v_.width);
  }
  /// One value per row, or R equal copies of it, as [Hq, Sq, R].
  template <class T>
  View<T, 3> like_rows(T* data, const Tensor& tensor, const Sequence& s) const {
    const std::string_view order = row_order(tensor, "out/m");
    const Index copies = tensor.shape.size() > order.size() ? tensor.shape.back() : 1;
    return sequence_view(data, order, {sizes_q_.b, sizes_q_.h, sizes_q_.s, copies}, s.b, s.first_q,
                         s.queries);
  }
  /// [Hq, Sq, Sk], for s and p.
  template <class T>
  View<T, 3> like_scores(T* data, const Sequence& s) const {
    return broadcast_view(data, {sizes_q_.b, sizes_q_.h, sizes_q_.s, past_ + sizes_k_.s}, s);
  }
  /// [Hq, Sq, Sk] over an array that is shaped like in/bias.
  template <class T>
  View<T, 3> like_bias(T* data, const Sequence& s) const {
    return broadcast_view(data, case_.input("bias")->shape, s);
  }

 private:
  void read_spec();
  void read_shapes();
  void check_outputs();
  void read_sequences();
  void check_values() const;
  Sequence sequence(Index b, Index first_q, Index queries, Index first_k, Index keys);
  std::vector<Index> packed_starts(const std::string& name, Index total) const;
  std::string_view row_order(const Tensor& tensor, const std::string& path) const;

  template <class T>
  View<T, 3> rows_of(T* data, const Sequence& s, Index width) const {
    return sequence_view(data, axis_order(layout_), {sizes_q_.b, sizes_q_.h, sizes_q_.s, width}, s.b,
                         s.first_q, s.queries);
  }
  template <class T>
  View<T, 3> keys_of(T* data, const Sequence& s, Index width) const {
    return sequence_view(data, axis_order(layout_), {sizes_k_.b, sizes_k_.h, sizes_k_.s, width}, s.b,
                         s.first_k, s.keys);
  }
  /// A tensor that broadcasts to [B, Hq, Sq, Sk], for one batch entry.
  template <class T>
  View<T, 3> broadcast_view(T* data, const std::vector<Index>& shape, const Sequence& s) const {
    Index stride[4] = {0, 0, 0, 0}, step = 1;
    for (std::size_t axis = 0; axis < shape.size(); ++axis) {
      const Index extent = shape[shape.size() - 1 - axis];
      if (extent > 1) stride[3 - axis] = step;
      step *= extent;
    }
    return {data + s.b * stride[0], {sizes_q_.h, s.queries, s.in.keys()}, {stride[1], stride[2], stride[3]}};
  }

  const Case& case_;
  Layout layout_ = Layout::bhsd;
  Extents extents_;
  AxisSizes sizes_q_{}, sizes_k_{}, sizes_v_{};  // sizes_k_.s: new keys only
  Index past_ = 0;
  std::vector<Array<double, 3>> joined_k_,
      joined_v_;  // past and new keys, one after another, per batch entry
  std::vector<std::vector<double>> scaled_;
};

}  // namespace attest
