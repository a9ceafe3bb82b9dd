// Tests of core/view and core/array: strides, broadcasting, slices, narrowed axes, and owning storage.
#include "core/view.hpp"

#include <array>
#include <cstddef>
#include <numeric>
#include <type_traits>
#include <vector>

#include "core/array.hpp"
#include "tests/catch.hpp"

namespace {

using namespace attest;

/// 0, 1, 2, ...: in a row-major array each element is its own offset.
template <int Rank>
Array<int, Rank> counting(typename View<int, Rank>::Extents extents) {
  Array<int, Rank> array(extents);
  std::iota(array.data(), array.data() + array.size(), 0);
  return array;
}

}  // namespace

TEST_CASE("a view without strides is row-major") {
  std::vector<int> data(2 * 3 * 4);
  const View<int, 3> view(data.data(), {2, 3, 4});
  REQUIRE(view.extent(0) == 2);
  REQUIRE(view.extent(1) == 3);
  REQUIRE(view.extent(2) == 4);
  REQUIRE(view.stride(0) == 12);
  REQUIRE(view.stride(1) == 4);
  REQUIRE(view.stride(2) == 1);
  REQUIRE(view.data_handle() == data.data());
  REQUIRE(&view(1, 2, 3) == &data[23]);
}

TEST_CASE("strides count elements, so that exchanged strides transpose") {
  Array<int, 2> array = counting<2>({2, 3});
  const View<int, 2> transposed(array.data(), {3, 2}, {1, 3});
  for (Index i = 0; i < 2; ++i) {
    for (Index j = 0; j < 3; ++j) REQUIRE(&transposed(j, i) == &array(i, j));
  }
}

TEST_CASE("a negative stride walks backwards from the handle") {
  Array<int, 1> array = counting<1>({5});
  const View<int, 1> reversed(array.data() + 4, {5}, {-1});
  for (Index i = 0; i < 5; ++i) REQUIRE(reversed(i) == 4 - i);
}

TEST_CASE("a stride of zero shows one element at every index of its axis") {
  Array<int, 2> array = counting<2>({2, 3});
  const View<int, 3> shared(array.data(), {2, 7, 3}, {3, 0, 1});  // every one of 7 heads reads the same rows
  for (Index head = 0; head < 7; ++head) {
    REQUIRE(&shared(0, head, 2) == &array(0, 2));
    REQUIRE(&shared(1, head, 0) == &array(1, 0));
  }
  REQUIRE(shared.slice(1).stride(0) == 0);
  REQUIRE(shared.narrowed(1, 5, 2).data_handle() == array.data());

  int one = 1;
  const View<int, 2> all(&one, {4, 5}, {0, 0});
  all(3, 4) = 6;
  REQUIRE(all(0, 0) == 6);
}

TEST_CASE("a slice drops the first axis and keeps the other strides") {
  Array<int, 4> array = counting<4>({2, 3, 4, 5});
  const View<int, 3> matrix_stack = array.view().slice(1);
  const View<int, 2> matrix = matrix_stack.slice(2);
  const View<int, 1> row = matrix.slice(3);
  REQUIRE(matrix_stack.extent(0) == 3);
  REQUIRE(matrix.extent(0) == 4);
  REQUIRE(matrix.extent(1) == 5);
  REQUIRE(row.extent(0) == 5);
  REQUIRE(&row(4) == &array(1, 2, 3, 4));

  const View<int, 2> transposed(array.data(), {5, 4}, {1, 5});
  REQUIRE(transposed.slice(2).stride(0) == 5);
  REQUIRE(&transposed.slice(2)(3) == &array(0, 0, 3, 2));
}

TEST_CASE("narrowing keeps the rank, the strides and the other axes") {
  Array<int, 3> array = counting<3>({4, 5, 6});
  const View<int, 3> view = array.view().narrowed(1, 2, 3).narrowed(2, 1, 2);
  REQUIRE(view.extent(0) == 4);
  REQUIRE(view.extent(1) == 3);
  REQUIRE(view.extent(2) == 2);
  for (int r = 0; r < 3; ++r) REQUIRE(view.stride(r) == array.view().stride(r));
  for (Index i = 0; i < 4; ++i) {
    for (Index j = 0; j < 3; ++j) {
      for (Index k = 0; k < 2; ++k) REQUIRE(&view(i, j, k) == &array(i, j + 2, k + 1));
    }
  }
}

TEST_CASE("narrowing to nothing is allowed, also at the end of an axis") {
  Array<int, 2> array = counting<2>({3, 2});
  REQUIRE(array.view().narrowed(0, 1, 0).extent(0) == 0);
  REQUIRE(array.view().narrowed(0, 3, 0).extent(0) == 0);
  REQUIRE(array.view().narrowed(0, 0, 3).extent(0) == 3);
}

TEST_CASE("a default-constructed view is not given and has no elements") {
  const View<double, 2> view;
  REQUIRE_FALSE(view);
  REQUIRE(view.data_handle() == nullptr);
  REQUIRE(view.extent(0) == 0);
  REQUIRE(view.extent(1) == 0);
  const View<const double, 2> converted = view;
  REQUIRE_FALSE(converted);
  REQUIRE_FALSE(view.narrowed(0, 0, 0));

  double value = 0;
  REQUIRE(View<double, 2>(&value, {1, 1}));
}

TEST_CASE("a view of mutable elements becomes one of constant elements, not the reverse") {
  Array<int, 2> array = counting<2>({2, 3});
  const View<int, 2> transposed(array.data(), {3, 2}, {1, 3});
  const View<const int, 2> view = transposed;
  REQUIRE(&view(2, 1) == &array(1, 2));
  REQUIRE(view.stride(1) == 3);
  STATIC_REQUIRE(std::is_convertible_v<View<int, 2>, View<const int, 2>>);
  STATIC_REQUIRE_FALSE(std::is_convertible_v<View<const int, 2>, View<int, 2>>);
}

TEST_CASE("a constant view writes through to mutable elements, as a pointer does") {
  Array<int, 1> array({3});
  const View<int, 1> view = array.view();
  view(1) = 7;
  REQUIRE(array(1) == 7);
}

TEST_CASE("an array is row-major and filled") {
  Array<double, 2> array({2, 3}, 0.5);
  REQUIRE(array.size() == 6);
  REQUIRE(array.extent(0) == 2);
  REQUIRE(array.extent(1) == 3);
  for (Index i = 0; i < 6; ++i) REQUIRE(array.data()[i] == 0.5);
  array(1, 2) = 2;
  REQUIRE(array.data()[5] == 2);
  REQUIRE(Array<double, 2>({2, 3})(1, 1) == 0);
}

TEST_CASE("a constant array gives views and elements that are constant") {
  const Array<int, 2> array = counting<2>({2, 2});
  STATIC_REQUIRE(std::is_same_v<decltype(array.view()), View<const int, 2>>);
  STATIC_REQUIRE(std::is_same_v<decltype(array(0, 0)), const int&>);
  REQUIRE(array(1, 0) == 2);
}

TEST_CASE("a copied array has its own elements") {
  Array<int, 1> array = counting<1>({3});
  Array<int, 1> copy = array;
  copy(0) = 9;
  REQUIRE(array(0) == 0);
  REQUIRE(copy(0) == 9);
}

TEST_CASE("an array with an extent of zero keeps its other extents") {
  const Array<int, 3> array({2, 0, 4});
  REQUIRE(array.size() == 0);
  REQUIRE(array.view().extent(0) == 2);
  REQUIRE(array.view().extent(1) == 0);
  REQUIRE(array.view().extent(2) == 4);
  REQUIRE(Array<int, 3>().size() == 0);
  REQUIRE(Array<int, 3>().extent(0) == 0);
}
