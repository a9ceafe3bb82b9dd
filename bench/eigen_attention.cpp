// Attention with Eigen: scores, softmax by rows, weighted sum.
#include "bench/eigen_attention.hpp"

#include <Eigen/Dense>
#include <cmath>
#include <limits>

namespace attest::bench {

template <class Real>
void eigen_attention(const Real* q, const Real* k, const Real* v, Real* o, Index heads, Index length,
                     Index width, bool is_causal) {
  using Matrix = Eigen::Matrix<Real, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  using In = Eigen::Map<const Matrix>;
  const Real scale = 1 / std::sqrt(static_cast<Real>(width));
#pragma omp parallel for
  for (Index h = 0; h < heads; ++h) {
    const Index offset = h * length * width;
    const In q_h(q + offset, length, width), k_h(k + offset, length, width), v_h(v + offset, length, width);
    Matrix s = q_h * k_h.transpose() * scale;
    if (is_causal) {
      for (Index i = 0; i < length; ++i) {
        s.row(i).tail(length - i - 1).setConstant(-std::numeric_limits<Real>::infinity());
      }
    }
    s = (s.colwise() - s.rowwise().maxCoeff()).array().exp().matrix();
    const Eigen::Matrix<Real, Eigen::Dynamic, 1> l = s.rowwise().sum();
    Eigen::Map<Matrix> o_h(o + offset, length, width);
    o_h.noalias() = s * v_h;
    o_h.array().colwise() /= l.array();
  }
}

template void eigen_attention(const float*, const float*, const float*, float*, Index, Index, Index, bool);
template void eigen_attention(const double*, const double*, const double*, double*, Index, Index, Index,
                              bool);

}  // namespace attest::bench
