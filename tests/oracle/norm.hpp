// A second RMSNorm and LayerNorm, slow and independent of ref: long double, the variance from all pairs of
// values, gradients from whole Jacobians.
#pragma once

#include "core/array.hpp"
#include "core/norm.hpp"

namespace attest::oracle {

/// Not rounded where spec.xhat_dtype says so: xhat is returned beside y.
struct Norm {
  Array<long double, 2> y, xhat;     // [R, N]
  Array<long double, 1> mean, rstd;  // [R]
};
Norm norm(const NormSpec& spec, const NormInputs& in);

struct NormGradients {
  Array<long double, 2> dx;              // [R, N]
  Array<long double, 1> dweight, dbias;  // [N]
};
/// Of sum(y * dy).
NormGradients norm_gradients(const NormSpec& spec, const NormInputs& in, View<const double, 2> dy);

/// q, k, v stacked: row t of x, normalised, times the transpose of weight[O, N], plus bias[O] if given.
Array<long double, 2> norm_projection(const NormSpec& spec, const NormInputs& in,
                                      View<const double, 2> weight, View<const double, 1> bias);

}  // namespace attest::oracle
