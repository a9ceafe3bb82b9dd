// Memory layouts of [batch, head, sequence, width] tensors.
#pragma once

#include <string>
#include <string_view>

#include "core/view.hpp"
#include "verify/keys.hpp"

namespace attest {

/// bsm and sbm merge the heads into the last axis; thd packs the sequences of a batch one after another.
enum class Layout { bhsd, bshd, sbhd, bsm, sbm, thd };

/// Spec key `layout`, "bhsd" if absent.
Layout read_layout(KeyReader& spec);

bool merges_heads(Layout layout);

/// Extents of a tensor in this layout, for Extents::unify: pattern(bshd, "B", "Hq", "Sq", "D") is "B Sq Hq
/// D".
std::string extents_pattern(Layout layout, const std::string& b, const std::string& h, const std::string& s,
                            const std::string& width);

/// Order of the axes in memory, outermost first: a string of 'b', 'h', 's' without the last (width) axis.
std::string_view axis_order(Layout layout);

/// Order of the axes of a tensor with one value per row (lse, m, l) as PyTorch and FlashAttention return it:
/// "bhs", and "hs" for packed sequences. A dump may also hold it in axis_order().
std::string_view row_axis_order(Layout layout);

struct AxisSizes {
  Index b, h, s, width;
};

/// Elements s = [first, first + count) of batch entry b, as [h, s, width].
template <class T>
View<T, 3> sequence_view(T* data, std::string_view order, const AxisSizes& sizes, Index b, Index first,
                         Index count) {
  Index step = sizes.width, stride_b = 0, stride_h = 0, stride_s = 0;
  for (auto axis = order.rbegin(); axis != order.rend(); ++axis) {
    Index& stride = *axis == 'b' ? stride_b : *axis == 'h' ? stride_h : stride_s;
    stride = step;
    step *= *axis == 'b' ? sizes.b : *axis == 'h' ? sizes.h : sizes.s;
  }
  return {data + b * stride_b + first * stride_s, {sizes.h, count, sizes.width}, {stride_h, stride_s, 1}};
}

}  // namespace attest
