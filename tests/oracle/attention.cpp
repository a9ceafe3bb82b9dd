// The oracle's attention, written with whole matrices so that it shares neither code nor formulas with ref.
#include "tests/oracle/attention.hpp"

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <limits>

namespace attest::oracle {
namespace {

using Matrix = Eigen::Matrix<Real, Eigen::Dynamic, Eigen::Dynamic>;
using Vector = Eigen::Matrix<Real, Eigen::Dynamic, 1>;
using Flags = Eigen::Array<bool, Eigen::Dynamic, Eigen::Dynamic>;

static_assert(std::numeric_limits<Real>::digits >= 64, "the oracle must be more precise than double");
constexpr Real infinity = std::numeric_limits<Real>::infinity();
constexpr Real nan = std::numeric_limits<Real>::quiet_NaN();

Matrix matrix(View<const double, 2> x) {
  return Matrix::NullaryExpr(x.extent(0), x.extent(1), [&](Index r, Index c) { return Real{x(r, c)}; });
}

void add(const Matrix& terms, View<Real, 2> sums) {
  for (Index r = 0; r < sums.extent(0); ++r) {
    for (Index c = 0; c < sums.extent(1); ++c) sums(r, c) += terms(r, c);
  }
}

/// How many keys stand at or before the diagonal of row i, counted; it may be negative or exceed Sk.
/// Bottom-right: the last row has all Sk keys, each row above it has one less. Top-left: row 0 has the past
/// and one key.
Index keys_up_to_diagonal(const AttentionSpec& spec, const AttentionInputs& in, Index i) {
  const Index rows_below = in.queries() - 1 - i;
  return spec.causal == Causal::top_left ? in.past + 1 + i : in.keys() - rows_below;
}

/// Marks for every row the contiguous range of keys that causality and windows leave, then strikes out the
/// mask.
Flags visible(const AttentionSpec& spec, const AttentionInputs& in, Index h) {
  Flags flags = Flags::Constant(in.queries(), in.keys(), false);
  for (Index i = 0; i < in.queries(); ++i) {
    const Index count = keys_up_to_diagonal(spec, in, i);
    Index first = 0, end = in.keys();
    if (spec.causal != Causal::none) end = std::min(end, count);
    if (spec.window_right != -1) end = std::min(end, count + spec.window_right);
    if (spec.window_left != -1) first = std::max(first, count - 1 - spec.window_left);
    for (Index j = first; j < end; ++j) flags(i, j) = true;
  }
  if (in.mask) flags = flags && (matrix(in.mask.slice(h)).array() != 0);
  return flags;
}

/// Everything about one query head. Matrices over keys have Sk + 1 columns: the last is the sink, -inf
/// without one.
struct Head {
  Matrix q, k, v;  // v has a last row of zeros: what the sink carries
  Matrix s, p;     // [Sq, Sk + 1]
  Matrix slope;    // [Sq, Sk]: d s / d (scale q.k)
  Vector m, l, lse;
};

Head head(const AttentionSpec& spec, const AttentionInputs& in, Index h) {
  const Index rows = in.queries(), keys = in.keys();
  Head x;
  const Index g = h / (in.q.extent(0) / in.k.extent(0));
  x.q = matrix(in.q.slice(h));
  x.k = matrix(in.k.slice(g));
  x.v = Matrix::Zero(keys + 1, in.v.extent(2));
  x.v.topRows(keys) = matrix(in.v.slice(g));

  Matrix s = Real{spec.scale} * x.q * x.k.transpose();
  x.slope = Matrix::Ones(rows, keys);
  if (spec.softcap != 0) {
    const Real cap = spec.softcap;
    x.slope = s.unaryExpr([cap](Real a) { return 1 / (std::cosh(a / cap) * std::cosh(a / cap)); });
    s = s.unaryExpr([cap](Real a) { return cap * std::tanh(a / cap); });
  }
  if (in.alibi_slopes) {
    s -= Real{in.alibi_slopes(h)} * Matrix::NullaryExpr(rows, keys, [&](Index i, Index j) {
           const Index distance = keys_up_to_diagonal(spec, in, i) - (j + 1);
           return spec.alibi == Alibi::position ? static_cast<Real>(-j)
                                                : static_cast<Real>(std::max(distance, -distance));
         });
  }
  if (in.bias) s += matrix(in.bias.slice(h));
  x.s = Matrix::Constant(rows, keys + 1, -infinity);
  x.s.leftCols(keys) = visible(spec, in, h).select(s, Matrix::Constant(rows, keys, -infinity));
  if (in.sink) x.s.col(keys).setConstant(Real{in.sink(h)});

  x.m = x.s.rowwise().maxCoeff();
  x.l = Vector::Zero(rows);
  x.lse = Vector::Constant(rows, -infinity);
  x.p = Matrix::Zero(rows, keys + 1);
  for (Index i = 0; i < rows; ++i) {
    if (x.m(i) > -infinity) {
      x.l(i) = (x.s.row(i).array() - x.m(i)).exp().sum();
      x.lse(i) = x.m(i) + std::log(x.l(i));
      x.p.row(i) = (x.s.row(i).array() - x.lse(i)).exp();
    } else if (spec.empty_row == EmptyRow::nan) {
      x.p.row(i).setConstant(nan);
    } else if (spec.empty_row == EmptyRow::mean_v) {
      x.p.row(i).head(keys).setConstant(1 / static_cast<Real>(keys));
    }
  }
  return x;
}

/// ds_i = (diag(p_i) - p_i p_i^T) dp_i, row by row, sink column included. The weights of an empty row are
/// constants.
Matrix score_gradient(const AttentionSpec& spec, const Head& x, const Matrix& d_o) {
  const Matrix dp = d_o * x.v.transpose();
  Matrix ds = Matrix::Zero(dp.rows(), dp.cols());
  for (Index i = 0; i < dp.rows(); ++i) {
    if (x.m(i) == -infinity && spec.empty_row != EmptyRow::nan) continue;
    const Vector p = x.p.row(i).transpose();
    const Matrix jacobian = Matrix(p.asDiagonal()) - p * p.transpose();
    ds.row(i) = (jacobian * dp.row(i).transpose()).transpose();
  }
  return ds;
}

}  // namespace

Attention attention(const AttentionSpec& spec, const AttentionInputs& in) {
  const Index heads = in.q.extent(0), rows = in.queries(), keys = in.keys();
  Attention out{Array<Real, 3>({heads, rows, in.v.extent(2)}),
                Array<Real, 2>({heads, rows}),
                Array<Real, 2>({heads, rows}),
                Array<Real, 2>({heads, rows}),
                Array<Real, 3>({heads, rows, keys}),
                Array<Real, 3>({heads, rows, keys})};
  for (Index h = 0; h < heads; ++h) {
    const Head x = head(spec, in, h);
    add(x.p * x.v, out.o.view().slice(h));
    add(x.s, out.s.view().slice(h));
    add(x.p, out.p.view().slice(h));
    for (Index i = 0; i < rows; ++i) {
      out.m(h, i) = x.m(i);
      out.l(h, i) = x.l(i);
      out.lse(h, i) = x.lse(i);
    }
  }
  return out;
}

AttentionGradients attention_gradients(const AttentionSpec& spec, const AttentionInputs& in,
                                       View<const double, 3> d_o) {
  const Index heads = in.q.extent(0), kv_heads = in.k.extent(0), rows = in.queries(), keys = in.keys();
  AttentionGradients out{
      Array<Real, 3>({heads, rows, in.q.extent(2)}), Array<Real, 3>({kv_heads, keys, in.k.extent(2)}),
      Array<Real, 3>({kv_heads, keys, in.v.extent(2)}), Array<Real, 3>({heads, rows, keys}),
      in.sink ? Array<Real, 1>({heads}) : Array<Real, 1>()};
  for (Index h = 0; h < heads; ++h) {
    const Head x = head(spec, in, h);
    const Index g = h / (heads / kv_heads);
    const Matrix d_out = matrix(d_o.slice(h));
    const Matrix ds = score_gradient(spec, x, d_out);
    const Matrix dx = Real{spec.scale} * ds.leftCols(keys).cwiseProduct(x.slope);
    add(ds, out.ds.view().slice(h));
    add(dx * x.k, out.dq.view().slice(h));
    add(dx.transpose() * x.q, out.dk.view().slice(g));
    add(x.p.leftCols(keys).transpose() * d_out, out.dv.view().slice(g));
    if (in.sink) out.dsink(h) = ds.col(keys).sum();
  }
  return out;
}

}  // namespace attest::oracle
