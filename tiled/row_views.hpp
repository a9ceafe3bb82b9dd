// Views as kernels of rows take them, for the files that distribute rows.
#pragma once

#include "tiled/dispatch.hpp"

namespace attest::tiled {

template <class Real>
RowMajor<Real> row_major(View<Real, 2> x) {
  assert(x.extent(1) <= 1 || x.stride(1) == 1);
  return {x.data_handle(), x.stride(0)};
}
template <class Real>
RowMajorHeads<Real> row_major(View<Real, 3> x) {
  assert(x.extent(2) <= 1 || x.stride(2) == 1);
  return {x.data_handle(), x.stride(0), x.stride(1)};
}

/// Whether an output and as much input beside it are more than a core should take of the caches: some last
/// caches hold hundreds of MiB, and writing around them is faster all the same.
template <class Real, int Rank>
bool is_large(View<Real, Rank> y) {
  Index bytes = 2 * static_cast<Index>(sizeof(Real));
  for (int r = 0; r < Rank; ++r) bytes *= y.extent(r);
  constexpr Index share_of_caches = Index{1} << 24;
  return bytes > share_of_caches;
}

}  // namespace attest::tiled
