// Distributes the rows of RMSNorm over threads.
#include "tiled/rms_norm.hpp"

#include <omp.h>

#include <algorithm>
#include <vector>

#include "tiled/row_views.hpp"

namespace attest::tiled {
namespace {

/// weight + weight_offset, or ones.
template <class Real>
std::vector<Real> gain_of(const NormSpec& spec, const RmsNormInputs<Real>& in) {
  std::vector<Real> gain(static_cast<std::size_t>(in.x.extent(1)), Real{1});
  for (Index j = 0; in.weight && j < in.x.extent(1); ++j) {
    gain[static_cast<std::size_t>(j)] =
        static_cast<Real>(static_cast<double>(in.weight(j)) + spec.weight_offset);
  }
  return gain;
}

/// Rows that keep a thread busy for some microseconds.
Index rows_of_task(Index width) {
  return std::max<Index>(1, 65536 / width);
}

}  // namespace

template <class Real>
void rms_norm_forward(const NormSpec& spec, const RmsNormInputs<Real>& in, const RmsNormOutputs<Real>& out,
                      Level level) {
  assert(!spec.is_centred && !spec.xhat_dtype && in.x.extent(1) > 0);
  const Index count = in.x.extent(0), width = in.x.extent(1);
  const std::vector<Real> gain = gain_of(spec, in);
  const RmsNormRows<Real> rows{count,
                               width,
                               spec.eps,
                               gain.data(),
                               row_major(in.x),
                               row_major(out.y),
                               {out.rstd.data_handle(), out.rstd.stride(0)},
                               is_large(out.y)};
  const RowKernels<Real>& kernels = row_kernels_for<Real>(level);
  const Index task = rows_of_task(width);
  const Index parts = std::min<Index>(omp_get_max_threads(), (count + task - 1) / task);
#pragma omp parallel for schedule(static) if (parts > 1)
  for (Index p = 0; p < parts; ++p) {
    kernels.rms_norm_forward(rows, p * count / parts, (p + 1) * count / parts);
  }
}

template <class Real>
void rms_norm_backward(const NormSpec& spec, const RmsNormInputs<Real>& in, View<const Real, 2> dy,
                       View<const Real, 1> rstd, const RmsNormGradients<Real>& out, Level level) {
  assert(!spec.is_centred && !spec.xhat_dtype && in.x.extent(1) > 0);
  const Index count = in.x.extent(0), width = in.x.extent(1);
  const std::vector<Real> gain = gain_of(spec, in);
  const RmsNormGradientRows<Real> rows{count,
                                       width,
                                       gain.data(),
                                       row_major(in.x),
                                       row_major(dy),
                                       {rstd.data_handle(), rstd.stride(0)},
                                       row_major(out.dx),
                                       is_large(out.dx)};
  const RowKernels<Real>& kernels = row_kernels_for<Real>(level);
  const Index part = std::max(rows_of_task(width), (count + most_row_parts - 1) / most_row_parts);
  const Index parts = (count + part - 1) / part;
  std::vector<Real> dweight(static_cast<std::size_t>(parts * width));
#pragma omp parallel for schedule(static) if (parts > 1)
  for (Index p = 0; p < parts; ++p) {
    kernels.rms_norm_backward(rows, p * part, std::min((p + 1) * part, count), &dweight[p * width]);
  }
  for (Index j = 0; out.dweight && j < width; ++j) out.dweight(j) = 0;
  for (Index p = 0; out.dweight && p < parts; ++p) {
    for (Index j = 0; j < width; ++j) out.dweight(j) += dweight[p * width + j];
  }
}

template void rms_norm_forward(const NormSpec&, const RmsNormInputs<float>&, const RmsNormOutputs<float>&,
                               Level);
template void rms_norm_forward(const NormSpec&, const RmsNormInputs<double>&, const RmsNormOutputs<double>&,
                               Level);
template void rms_norm_backward(const NormSpec&, const RmsNormInputs<float>&, View<const float, 2>,
                                View<const float, 1>, const RmsNormGradients<float>&, Level);
template void rms_norm_backward(const NormSpec&, const RmsNormInputs<double>&, View<const double, 2>,
                                View<const double, 1>, const RmsNormGradients<double>&, Level);

}  // namespace attest::tiled
