// Tensors in memory that is NaN between their rows and around them, which a kernel must neither use nor
// change.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include "tests/support/random.hpp"

namespace attest::test {

/// Where the rows of a tensor begin: at multiples of 64 bytes, or one element after the end of the row
/// before.
enum class RowLayout { aligned, tight };

template <class Real>
class Guarded {
 public:
  Guarded(Index rows, Index width, RowLayout layout)
      : rows_(rows),
        width_(width),
        stride_(layout == RowLayout::tight ? width + 1 : (width / line + 2) * line),
        values_(static_cast<std::size_t>(rows * stride_ + 3 * line), std::numeric_limits<Real>::quiet_NaN()) {
    const auto address = reinterpret_cast<std::uintptr_t>(values_.data()) / sizeof(Real);
    first_ = line + (line - static_cast<Index>(address % line)) % line + (layout == RowLayout::tight);
  }

  Real* data() { return values_.data() + first_; }
  Index stride() const { return stride_; }
  View<Real, 2> view() { return {data(), {rows_, width_}, {stride_, 1}}; }
  View<Real, 3> heads(Index count) {
    const Index rows = rows_ / count;
    return {data(), {count, rows, width_}, {rows * stride_, stride_, 1}};
  }

  /// In [-1, 1), multiples of 2^-20: exact in float, and no product of four of them is subnormal.
  void fill(Random& random) {
    for (Index i = 0; i < rows_; ++i) {
      for (Index j = 0; j < width_; ++j) data()[i * stride_ + j] = static_cast<Real>(random.symmetric());
    }
  }
  bool gaps_are_untouched() const {
    for (Index n = 0; n < static_cast<Index>(values_.size()); ++n) {
      const Index i = n - first_;
      const bool is_inside = i >= 0 && i < rows_ * stride_ && i % stride_ < width_;
      if (!is_inside && !std::isnan(values_[static_cast<std::size_t>(n)])) return false;
    }
    return true;
  }
  bool has_bits_of(Guarded& other) {
    for (Index i = 0; i < rows_; ++i) {
      if (std::memcmp(data() + i * stride_, other.data() + i * other.stride_,
                      static_cast<std::size_t>(width_) * sizeof(Real)) != 0)
        return false;
    }
    return true;
  }

 private:
  static constexpr Index line = 64 / static_cast<Index>(sizeof(Real));
  Index rows_, width_, stride_, first_;
  std::vector<Real> values_;
};

}  // namespace attest::test
