// Which instruction sets this machine offers, and the functions compiled for each.
#pragma once

#include <span>

#include "tiled/problem.hpp"
#include "tiled/row_kernels.hpp"

namespace attest::tiled {

/// The levels of the x86-64 psABI: SSE4.2, AVX2 with FMA, AVX-512. Results differ between levels in their
/// rounding errors.
enum class Level { v2, v3, v4 };

/// The levels that this machine can run, the fastest last.
std::span<const Level> available_levels();
inline Level fastest_level() {
  return available_levels().back();
}
const char* name_of(Level level);

template <class Real>
const Kernels<Real>& kernels_for(Level level);
template <class Real>
const RowKernels<Real>& row_kernels_for(Level level);

}  // namespace attest::tiled
