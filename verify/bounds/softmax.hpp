// Exact values and bounds of softmax and its gradient. Derivation: docs/bounds_softmax.md.
#pragma once

#include "ref/softmax.hpp"
#include "verify/bounds/expected_view.hpp"

namespace attest::bounds {

/// Rows run along the middle axis. Views that were not given are empty.
struct SoftmaxInputs {
  View<const double, 3> x;     // [outer, N, inner]
  View<const double, 3> mask;  // [outer, N, inner], 0 = absent; optional
  View<const double, 3> dy;    // [outer, N, inner]; for dx
};

/// What the kernel computes and stores in. Kernels keep y, and dy * y, between the passes in these types.
struct SoftmaxTypes {
  DType compute, y, dy;
};

/// Outputs, and what the device wrote there: where a contract leaves open whether a row overflows, the
/// device's own choice is taken, and held against everything else that the row says.
struct SoftmaxOutputs {
  ExpectedView<3> y, dx;      // [outer, N, inner]
  ExpectedView<3> lse, m, l;  // [outer, R, inner], R equal copies
  View<const double, 3> device_y, device_dx, device_lse, device_l;
};

/// The same bits with any number of threads.
void softmax(const ref::SoftmaxSpec& spec, const SoftmaxInputs& in, const SoftmaxTypes& types,
             const SoftmaxOutputs& out);

}  // namespace attest::bounds
