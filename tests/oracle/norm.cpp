// The oracle's norms.
#include "tests/oracle/norm.hpp"

#include <cmath>
#include <limits>

namespace attest::oracle {
namespace {

using Real = long double;
static_assert(std::numeric_limits<Real>::digits >= 64, "the oracle must be more precise than double");

Real weight_of(const NormSpec& spec, const NormInputs& in, Index j) {
  return in.weight ? Real{in.weight(j)} + Real{spec.weight_offset} : Real{1};
}

}  // namespace

Norm norm(const NormSpec& spec, const NormInputs& in) {
  const Index rows = in.rows(), n = in.width();
  Norm out{Array<Real, 2>({rows, n}), Array<Real, 2>({rows, n}), Array<Real, 1>({rows}),
           Array<Real, 1>({rows})};
  for (Index i = 0; i < rows; ++i) {
    Real spread = 0;
    for (Index a = 0; a < n; ++a) {
      const Real x = in.x(i, a);
      if (!spec.is_centred) spread += x * x / n;
      for (Index b = 0; spec.is_centred && b < a; ++b) spread += (x - in.x(i, b)) * (x - in.x(i, b)) / n / n;
    }
    // The mean as x_0 and the mean distance from it.
    for (Index a = 0; spec.is_centred && a < n; ++a) out.mean(i) += (Real{in.x(i, a)} - in.x(i, 0)) / n;
    if (spec.is_centred) out.mean(i) += in.x(i, 0);
    out.rstd(i) = 1 / std::sqrt(spread + Real{spec.eps});
    if (in.rstd) out.rstd(i) = in.rstd(i);
    if (in.mean) out.mean(i) = in.mean(i);
    for (Index j = 0; j < n; ++j) {
      out.xhat(i, j) = (in.x(i, j) - out.mean(i)) * out.rstd(i);
      out.y(i, j) = weight_of(spec, in, j) * out.xhat(i, j) + (in.bias ? Real{in.bias(j)} : Real{0});
    }
  }
  return out;
}

NormGradients norm_gradients(const NormSpec& spec, const NormInputs& in, View<const double, 2> dy) {
  const Index rows = in.rows(), n = in.width();
  const Norm x = norm(spec, in);
  NormGradients out{Array<Real, 2>({rows, n}), Array<Real, 1>({n}), Array<Real, 1>({n})};
  for (Index i = 0; i < rows; ++i) {
    for (Index a = 0; a < n; ++a) {
      // d y_a / d x_b = w_a rstd (delta_ab - [centred] / n - xhat_a xhat_b / n)
      for (Index b = 0; b < n; ++b) {
        const Real jacobian =
            (a == b ? 1 : 0) - (spec.is_centred ? 1 : 0) / Real(n) - x.xhat(i, a) * x.xhat(i, b) / n;
        out.dx(i, b) += dy(i, a) * weight_of(spec, in, a) * x.rstd(i) * jacobian;
      }
      out.dweight(a) += dy(i, a) * x.xhat(i, a);
      out.dbias(a) += dy(i, a);
    }
  }
  return out;
}

Array<long double, 2> norm_projection(const NormSpec& spec, const NormInputs& in,
                                      View<const double, 2> weight, View<const double, 1> bias) {
  const Norm x = norm(spec, in);
  Array<Real, 2> out({in.rows(), weight.extent(0)});
  for (Index o = 0; o < weight.extent(0); ++o) {
    for (Index i = 0; i < in.rows(); ++i) {
      out(i, o) = bias ? bias(o) : 0;
      for (Index j = 0; j < in.width(); ++j) out(i, o) += Real{weight(o, j)} * x.y(i, j);
    }
  }
  return out;
}

}  // namespace attest::oracle
