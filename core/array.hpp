// Array: an owning, row-major array of fixed rank.
#pragma once

#include <new>
#include <vector>

#include "core/view.hpp"

namespace attest {

/// Memory that begins with a line of the caches, as that of other tensor libraries does: vectors of rows
/// whose length is a multiple of 64 bytes straddle none.
template <class T>
struct AlignedAllocator {
  using value_type = T;
  static constexpr std::align_val_t alignment{64};

  AlignedAllocator() = default;
  template <class U>
  explicit AlignedAllocator(const AlignedAllocator<U>&) {}
  T* allocate(std::size_t n) { return static_cast<T*>(::operator new(n * sizeof(T), alignment)); }
  void deallocate(T* p, std::size_t) { ::operator delete(p, alignment); }
  bool operator==(const AlignedAllocator&) const = default;
};

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
  std::vector<T, AlignedAllocator<T>> values_;
};

}  // namespace attest
