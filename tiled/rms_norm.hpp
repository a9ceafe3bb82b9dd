// RMSNorm at the speed of memory, forward and backward.
#pragma once

#include "core/norm.hpp"
#include "tiled/dispatch.hpp"

namespace attest::tiled {

/// The columns of each view lie side by side (stride 1); rows may have any stride.
template <class Real>
struct RmsNormInputs {
  View<const Real, 2> x;       // [R, N], N at least 1
  View<const Real, 1> weight;  // [N]; not given: weight + weight_offset = 1
};

/// Views that are empty are not written.
template <class Real>
struct RmsNormOutputs {
  View<Real, 2> y;     // [R, N]
  View<Real, 1> rstd;  // [R]
};

/// NormSpec without a centre and without a rounded xhat. Squares are added in Real: a row whose mean square
/// leaves its range gives 0, infinity or NaN. The bits depend on the level and neither on the number of
/// threads nor on the other rows.
template <class Real>
void rms_norm_forward(const NormSpec& spec, const RmsNormInputs<Real>& in, const RmsNormOutputs<Real>& out,
                      Level level = fastest_level());

/// Views that are empty are not written.
template <class Real>
struct RmsNormGradients {
  View<Real, 2> dx;       // [R, N]
  View<Real, 1> dweight;  // [N]; 0 without rows
};

/// The gradients that ref::norm defines, as functions of rstd[R] as given. Rows are cut into parts, as many
/// as R says, whose dweight is added in their order: most_row_parts times its memory, and the same bits with
/// any number of threads.
constexpr Index most_row_parts = 64;
template <class Real>
void rms_norm_backward(const NormSpec& spec, const RmsNormInputs<Real>& in, View<const Real, 2> dy,
                       View<const Real, 1> rstd, const RmsNormGradients<Real>& out,
                       Level level = fastest_level());

extern template void rms_norm_forward(const NormSpec&, const RmsNormInputs<float>&,
                                      const RmsNormOutputs<float>&, Level);
extern template void rms_norm_forward(const NormSpec&, const RmsNormInputs<double>&,
                                      const RmsNormOutputs<double>&, Level);
extern template void rms_norm_backward(const NormSpec&, const RmsNormInputs<float>&, View<const float, 2>,
                                       View<const float, 1>, const RmsNormGradients<float>&, Level);
extern template void rms_norm_backward(const NormSpec&, const RmsNormInputs<double>&, View<const double, 2>,
                                       View<const double, 1>, const RmsNormGradients<double>&, Level);

}  // namespace attest::tiled
