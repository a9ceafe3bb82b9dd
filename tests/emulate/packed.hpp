// Tensors of one sequence as those of packed sequences.
#pragma once

#include "verify/case.hpp"

namespace attest::emulate {

/// [1, H, S, ...] as [S, H, ...].
inline Tensor packed(const Tensor& t) {
  Tensor result = t;
  const Index heads = t.shape[1], rows = t.shape[2], width = t.shape.size() == 4 ? t.shape[3] : 1;
  result.shape = {rows, heads};
  if (t.shape.size() == 4) result.shape.push_back(width);
  for (Index h = 0; h < heads; ++h)
    for (Index i = 0; i < rows; ++i)
      for (Index e = 0; e < width; ++e)
        result.values[(i * heads + h) * width + e] = t.values[(h * rows + i) * width + e];
  return result;
}

}  // namespace attest::emulate
