// The oracle's multi-head attention.
#include "tests/oracle/multihead_attention.hpp"

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <limits>

namespace attest::oracle {
namespace {

using Real = long double;
using Matrix = Eigen::Matrix<Real, Eigen::Dynamic, Eigen::Dynamic>;

/// [x, 1]
Matrix with_ones(View<const double, 2> x) {
  return Matrix::NullaryExpr(x.extent(0), x.extent(1) + 1,
                             [&](Index r, Index c) { return c < x.extent(1) ? Real{x(r, c)} : Real{1}; });
}

/// Rows [first, first + count) of [w, b].
Matrix with_bias(View<const double, 2> w, View<const double, 1> b, Index first, Index count) {
  return Matrix::NullaryExpr(count, w.extent(1) + 1, [&](Index r, Index c) {
    return c < w.extent(1) ? Real{w(first + r, c)} : b ? Real{b(first + r)} : Real{0};
  });
}

}  // namespace

Multihead multihead_attention(const MultiheadProblem& in) {
  const Index m = in.query.extent(1), rows = in.query.extent(0), keys = in.key.extent(0), d = m / in.heads;
  const Matrix query = with_ones(in.query), key = with_ones(in.key), value = with_ones(in.value);
  const Real u = 0x1p-53L, step = static_cast<Real>(m + 4) * u;  // of a projection, relative to its terms
  Matrix y = Matrix::Zero(rows, m), error = Matrix::Zero(rows, m), magnitude = Matrix::Zero(rows, m);
  Multihead out{Array<Real, 2>({rows, m}), Array<Real, 3>({in.heads, rows, keys}), Array<Real, 2>({rows, m}),
                Array<Real, 3>({in.heads, rows, keys})};
  for (Index h = 0; h < in.heads; ++h) {
    const Matrix wq = with_bias(in.in_weight, in.in_bias, h * d, d),
                 wk = with_bias(in.in_weight, in.in_bias, m + h * d, d),
                 wv = with_bias(in.in_weight, in.in_bias, 2 * m + h * d, d);
    const Matrix s = Real{in.scale} * (query * (wq.transpose() * wk) * key.transpose());
    const Matrix v = value * wv.transpose();
    // Sums of magnitudes: every rounding error is relative to one of these.
    const Matrix q_terms = query.cwiseAbs() * wq.cwiseAbs().transpose(),
                 k_terms = key.cwiseAbs() * wk.cwiseAbs().transpose(),
                 v_terms = value.cwiseAbs() * wv.cwiseAbs().transpose();
    const Matrix s_error = std::abs(Real{in.scale}) * (2 * step + static_cast<Real>(d + 4) * u) *
                           (q_terms * k_terms.transpose());

    Matrix p = Matrix::Zero(rows, keys), p_error = Matrix::Zero(rows, keys);
    for (Index i = 0; i < rows; ++i) {
      const auto sees = [&](Index j) {
        return j <= i + in.causal_offset && (!in.mask || in.mask(h, i, j) != 0);
      };
      Real largest = -std::numeric_limits<Real>::infinity(), sum = 0, worst = 0;
      for (Index j = 0; j < keys; ++j) {
        if (sees(j)) largest = std::max(largest, s(i, j));
      }
      for (Index j = 0; j < keys; ++j) {
        if (!sees(j)) continue;
        sum += p(i, j) = std::exp(s(i, j) - largest);
        worst = std::max(worst, s_error(i, j) + u * (std::abs(s(i, j)) + std::abs(largest)));
      }
      for (Index j = 0; j < keys && sum > 0; ++j) {
        p(i, j) /= sum;
        p_error(i, j) = p(i, j) * (2 * worst + static_cast<Real>(keys + 8) * u);
      }
    }
    const Matrix w =
        Matrix::NullaryExpr(m, d, [&](Index n, Index e) { return Real{in.out_weight(n, h * d + e)}; });
    y += p * (v * w.transpose());
    const Matrix o_error =
        (p_error + p * static_cast<Real>(keys + 4) * u) * v.cwiseAbs() + p * v_terms * step;
    error += o_error * w.cwiseAbs().transpose();
    magnitude += p * v.cwiseAbs() * w.cwiseAbs().transpose();
    for (Index i = 0; i < rows; ++i) {
      for (Index j = 0; j < keys; ++j) {
        out.weights(h, i, j) = p(i, j);
        out.weights_error(h, i, j) = 2 * p_error(i, j);
      }
    }
  }
  for (Index i = 0; i < rows; ++i) {
    for (Index n = 0; n < m; ++n) {
      const Real bias = in.out_bias ? in.out_bias(n) : 0;
      out.y(i, n) = y(i, n) + bias;
      out.y_error(i, n) = 2 * (error(i, n) + step * (magnitude(i, n) + std::abs(bias)));
    }
  }
  return out;
}

}  // namespace attest::oracle
