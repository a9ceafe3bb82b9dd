// The shapes that are measured: what vision and language models ask of attention.
#pragma once

#include <array>

#include "core/view.hpp"

namespace attest::bench {

struct Shape {
  const char* name;
  Index batch, heads, length, width;
  bool is_causal;
  Index queries = length;

  /// Of the two products of the forward pass, 2 operations a multiply-add; half of them if causal. The
  /// backward pass has five products.
  double forward_operations() const {
    const double pairs = static_cast<double>(batch * heads * queries * length) * (is_causal ? 0.5 : 1);
    return 4 * pairs * static_cast<double>(width);
  }
  double backward_operations() const { return 2.5 * forward_operations(); }
};

constexpr std::array<Shape, 8> shapes = {{
    {"CLIP-L image 1x16x577x64", 1, 16, 577, 64, false},
    {"CLIP text 8x12x77x64 causal", 8, 12, 77, 64, true},
    {"ViT-H 1x16x257x80", 1, 16, 257, 80, false},
    {"EVA 1x16x257x112", 1, 16, 257, 112, false},
    {"1x8x2048x128 causal", 1, 8, 2048, 128, true},
    {"1x8x4096x64 causal", 1, 8, 4096, 64, true},
    {"1x1x16384x64 causal", 1, 1, 16384, 64, true},
    {"decode 1x32x1x4096x128", 1, 32, 4096, 128, false, 1},
}};

}  // namespace attest::bench
