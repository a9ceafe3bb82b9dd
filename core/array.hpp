// Array: an owning, row-major array of fixed rank.
#pragma once

#include "core/aligned_vector.hpp"
#include "core/view.hpp"

namespace attest {

template <class T, int Rank>
class Array {
 public:
  using Extents = typename View<T, Rank>::Extents;

  Array() = default;
  explicit Array(Extents extents, T fill = T{}) : extents_(extents), values_(count(extents), fill) {}

  View<T, Rank> view() { return {values_.data(), extents_}; }
  View<const T, Rank> view() const { return {values_.data(), extents_}; }
  Index extent(int r) const { return extents_[r]; }
  Index size() const { return static_cast<Index>(values_.size()); }
  T* data() { return values_.data(); }
  const T* data() const { return values_.data(); }

  template <class... I>
  T& operator()(I... i) {
    return view()(i...);
  }
  template <class... I>
  const T& operator()(I... i) const {
    return view()(i...);
  }

 private:
  static std::size_t count(const Extents& extents) {
    std::size_t n = 1;
    for (const Index e : extents) n *= static_cast<std::size_t>(e);
    return n;
  }
  Extents extents_{};
  AlignedVector<T> values_;
};

}  // namespace attest
