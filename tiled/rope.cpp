// Distributes the rows of RoPE over threads.
#include "tiled/rope.hpp"

#include <algorithm>

#include "tiled/row_views.hpp"

namespace attest::tiled {
namespace {

/// A task turns rows whose table takes this much of the first cache, in this many heads.
constexpr Index table_bytes = 8192, heads_of_task = 32;

template <class Real>
void turn(const RopeSpec& spec, Real direction, View<const Real, 3> x, View<const Real, 2> cos,
          View<const Real, 2> sin, View<Real, 3> y, Level level) {
  assert(spec.rotary_dim % 2 == 0 && spec.rotary_dim <= x.extent(2));
  assert(cos.extent(1) == spec.pairs() && sin.extent(1) == spec.pairs());
  const Index heads = x.extent(0), count = x.extent(1);
  const RopeRows<Real> rows{spec,           x.extent(2),    direction,    row_major(x),
                            row_major(cos), row_major(sin), row_major(y), is_large(y)};
  const RowKernels<Real>& kernels = row_kernels_for<Real>(level);
  const Index row_bytes = 2 * std::max<Index>(1, spec.pairs()) * static_cast<Index>(sizeof(Real));
  const Index task = std::max<Index>(1, table_bytes / row_bytes);
#pragma omp parallel for collapse(2) schedule(static) if (task < count || heads_of_task < heads)
  for (Index first = 0; first < count; first += task) {
    for (Index head = 0; head < heads; head += heads_of_task) {
      kernels.rope(rows, head, std::min(head + heads_of_task, heads), first, std::min(first + task, count));
    }
  }
}

}  // namespace

template <class Real>
void rope_forward(const RopeSpec& spec, View<const Real, 3> x, View<const Real, 2> cos,
                  View<const Real, 2> sin, View<Real, 3> y, Level level) {
  turn<Real>(spec, 1, x, cos, sin, y, level);
}
template <class Real>
void rope_backward(const RopeSpec& spec, View<const Real, 3> dy, View<const Real, 2> cos,
                   View<const Real, 2> sin, View<Real, 3> dx, Level level) {
  turn<Real>(spec, -1, dy, cos, sin, dx, level);
}

template void rope_forward(const RopeSpec&, View<const float, 3>, View<const float, 2>, View<const float, 2>,
                           View<float, 3>, Level);
template void rope_forward(const RopeSpec&, View<const double, 3>, View<const double, 2>,
                           View<const double, 2>, View<double, 3>, Level);
template void rope_backward(const RopeSpec&, View<const float, 3>, View<const float, 2>, View<const float, 2>,
                            View<float, 3>, Level);
template void rope_backward(const RopeSpec&, View<const double, 3>, View<const double, 2>,
                            View<const double, 2>, View<double, 3>, Level);

}  // namespace attest::tiled
