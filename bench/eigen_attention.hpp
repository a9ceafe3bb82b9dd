// Attention as one writes it with Eigen, without tiles: what tiled is compared with.
#pragma once

#include "core/view.hpp"

namespace attest::bench {

/// q, k, v, o: [heads, length, width], row-major. Heads are distributed over threads.
template <class Real>
void eigen_attention(const Real* q, const Real* k, const Real* v, Real* o, Index heads, Index length,
                     Index width, bool is_causal);

}  // namespace attest::bench
