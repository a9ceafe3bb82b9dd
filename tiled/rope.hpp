// Rotary position embedding at the speed of memory, forward and backward.
#pragma once

#include "tiled/dispatch.hpp"

namespace attest::tiled {

/// x[H, S, D], cos[S, R/2], sin[S, R/2] -> y[H, S, D]: the first and second column of pair k become
///   first cos_k - second sin_k   and   second cos_k + first sin_k,
/// and columns from R on are copied. The columns of each view lie side by side (stride 1), and y overlaps
/// nothing. The bits depend on the level and not on the number of threads.
template <class Real>
void rope_forward(const RopeSpec& spec, View<const Real, 3> x, View<const Real, 2> cos,
                  View<const Real, 2> sin, View<Real, 3> y, Level level = fastest_level());

/// The gradient of sum(dy * y): dy[H, S, D] -> dx[H, S, D], the turn by the negative angle.
template <class Real>
void rope_backward(const RopeSpec& spec, View<const Real, 3> dy, View<const Real, 2> cos,
                   View<const Real, 2> sin, View<Real, 3> dx, Level level = fastest_level());

extern template void rope_forward(const RopeSpec&, View<const float, 3>, View<const float, 2>,
                                  View<const float, 2>, View<float, 3>, Level);
extern template void rope_forward(const RopeSpec&, View<const double, 3>, View<const double, 2>,
                                  View<const double, 2>, View<double, 3>, Level);
extern template void rope_backward(const RopeSpec&, View<const float, 3>, View<const float, 2>,
                                   View<const float, 2>, View<float, 3>, Level);
extern template void rope_backward(const RopeSpec&, View<const double, 3>, View<const double, 2>,
                                   View<const double, 2>, View<double, 3>, Level);

}  // namespace attest::tiled
