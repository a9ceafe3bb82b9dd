// View: a strided, non-owning array of fixed rank, with the names of std::mdspan so that it can be replaced
// by it.
#pragma once

#include <array>
#include <cassert>
#include <cstddef>

namespace attest {

using Index = std::ptrdiff_t;

/// Element (i, j, ...) lies at data_handle()[i * stride(0) + j * stride(1) + ...]. Strides count elements; a
/// stride of 0 broadcasts. A default-constructed View has no data and extents 0: it stands for "not given".
template <class T, int Rank>
class View {
 public:
  using Extents = std::array<Index, Rank>;
  static constexpr int rank = Rank;

  View() = default;
  View(T* data, Extents extents) : data_(data), extents_(extents) {  // row-major
    Index step = 1;
    for (int r = Rank - 1; r >= 0; --r) {
      strides_[r] = step;
      step *= extents[r];
    }
  }
  View(T* data, Extents extents, Extents strides) : data_(data), extents_(extents), strides_(strides) {}

  operator View<const T, Rank>() const { return {data_, extents_, strides_}; }

  T* data_handle() const { return data_; }
  Index extent(int r) const { return extents_[r]; }
  Index stride(int r) const { return strides_[r]; }
  explicit operator bool() const { return data_ != nullptr; }

  template <class... I>
  T& operator()(I... i) const {
    static_assert(sizeof...(I) == Rank);
    Index offset = 0;
    int r = 0;
    ((assert(0 <= i && i < extents_[r]), offset += i * strides_[r], ++r), ...);
    return data_[offset];
  }

  /// The view of rank Rank - 1 at index i of the first axis.
  View<T, Rank - 1> slice(Index i) const requires(Rank > 1) {
    assert(0 <= i && i < extents_[0]);
    std::array<Index, Rank - 1> extents{}, strides{};
    for (int r = 1; r < Rank; ++r) {
      extents[r - 1] = extents_[r];
      strides[r - 1] = strides_[r];
    }
    return {data_ + i * strides_[0], extents, strides};
  }

  /// Elements [first, first + count) of axis `axis`.
  View narrowed(int axis, Index first, Index count) const {
    assert(0 <= first && 0 <= count && first + count <= extents_[axis]);
    View view = *this;
    if (view.data_) view.data_ += first * strides_[axis];
    view.extents_[axis] = count;
    return view;
  }

 private:
  T* data_ = nullptr;
  Extents extents_{};
  Extents strides_{};
};

}  // namespace attest
