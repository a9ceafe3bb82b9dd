// Attention by tiles whose products are OpenBLAS's, as PyTorch's CPU kernel has it: what tiled is compared
// with where OpenBLAS is installed.
#pragma once

#include "tiled/dispatch.hpp"

namespace attest::bench {

/// q, k, v, o: [heads, length, width], row-major. Tiles of rows are distributed over threads. The
/// exponentials are tiled's of `level`.
template <class Real>
void blas_attention(const Real* q, const Real* k, const Real* v, Real* o, Index heads, Index length,
                    Index width, bool is_causal, tiled::Level level);

}  // namespace attest::bench
