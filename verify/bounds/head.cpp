// One key/value head laid out for the bounds' inner loops, and the sums over products that both passes need.
#include "verify/bounds/head.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "verify/bounds/input_errors.hpp"

namespace attest::bounds {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

}  // namespace

bool rows_repeat(const std::vector<double>& x, Index rows, Index width) {
  std::vector<Index> order(rows);
  std::iota(order.begin(), order.end(), Index{0});
  const auto row = [&](Index r) { return x.data() + r * width; };
  std::sort(order.begin(), order.end(), [&](Index a, Index b) {
    return std::lexicographical_compare(row(a), row(a) + width, row(b), row(b) + width);
  });
  const auto same = [&](Index a, Index b) { return std::equal(row(a), row(a) + width, row(b)); };
  Index repeated = 0;
  for (Index r = 0; r < rows; ++r) {
    repeated += (r > 0 && same(order[r], order[r - 1])) || (r + 1 < rows && same(order[r], order[r + 1]));
  }
  return 8 * repeated > rows;
}

Head::Head(const AttentionInputs& in, Index kv_head)
    : keys(in.keys()),
      qk_width(in.qk_width()),
      v_width(in.v_width()),
      k(keys * padded(qk_width)),
      v(keys * padded(v_width)),
      k_columns(qk_width * padded(keys)),
      v_columns(v_width * padded(keys)),
      v_max(v_width) {
  for (Index j = 0; j < keys; ++j) {
    for (Index d = 0; d < qk_width; ++d) {
      k[j * padded(qk_width) + d] = k_columns[(j / lanes * qk_width + d) * lanes + j % lanes] =
          in.k(kv_head, j, d);
    }
    for (Index e = 0; e < v_width; ++e) {
      const double x = in.v(kv_head, j, e);
      v[j * padded(v_width) + e] = v_columns[(j / lanes * v_width + e) * lanes + j % lanes] = x;
      v_max[e] = std::max(v_max[e], std::abs(x));
    }
  }
  keys_repeat = rows_repeat(k, keys, padded(qk_width));
}

void ProductSums::compute(const double* a, Index n, const double* b, Index keys, Index first, Index last) {
  for (auto* x : {&sum, &magnitude, &squares, &prefix, &prefix_sum}) x->resize(padded(keys));
  for (Index j = first / lanes * lanes; j < last; j += lanes) compute_block(a, n, b + j * n, j);
}

ATTEST_VECTORISED
void ProductSums::compute_block(const double* a, Index n, const double* b, Index first) {
  double s[lanes] = {}, m[lanes] = {}, q[lanes] = {}, p[lanes] = {}, ps[lanes] = {};
  for (Index d = 0; d < n; ++d) {
    for (Index j = 0; j < lanes; ++j) {
      const double t = a[d] * b[d * lanes + j];
      s[j] += t;
      m[j] += std::abs(t);
      q[j] += t * t;
      p[j] += s[j] * s[j];
      ps[j] += s[j];
    }
  }
  std::copy_n(s, lanes, &sum[first]);
  std::copy_n(m, lanes, &magnitude[first]);
  std::copy_n(q, lanes, &squares[first]);
  std::copy_n(p, lanes, &prefix[first]);
  std::copy_n(ps, lanes, &prefix_sum[first]);
}

double ProductSums::variance(Index j, Index n, const SumError& error) const {
  return error.noise *
         mean_square_running_sum(sum[j], squares[j], prefix[j], prefix_sum[j], static_cast<double>(n));
}

void ScoreRow::compute(const AttentionSpec& spec, const AttentionInputs& in, const Head& head,
                       const Arithmetic& arithmetic, Index h, Index i, const HeadErrors* errors) {
  const Index on_diagonal = diagonal(spec, in, i);
  first = 0;
  last = head.keys;
  if (spec.causal != Causal::none) last = std::min(last, on_diagonal + 1);
  if (spec.window_left >= 0) first = std::max(first, on_diagonal - spec.window_left);
  if (spec.window_right >= 0) last = std::min(last, on_diagonal + spec.window_right + 1);
  last = std::max(last, Index{0});
  first = std::min(first, last);

  const Index width = head.qk_width;
  std::vector<double> q(width);
  for (Index d = 0; d < width; ++d) q[d] = in.q(h, i, d);
  products.compute(q.data(), width, head.k_columns.data(), head.keys, first, last);

  InheritedProducts from_inputs;
  if (errors) from_inputs.compute(*errors, head, q, h, i, first, last);

  for (auto* x : {&s, &slope, &tangent, &error, &variance, &slope_error, &drift}) x->assign(head.keys, 0.0);
  inherited_worst = 0;
  const SumError qk = sum_error(arithmetic.contract.qk, width);
  const double u = arithmetic.u;
  const double c2u2 = mean_square_rounding * u * u;
  const double scale = std::abs(spec.scale);
  for (Index j = first; j < last; ++j) {
    if (in.mask && in.mask(h, i, j) == 0) {
      s[j] = -infinity;
      continue;
    }
    // x = scale q.k: the scale is rounded to the format of the scores, then multiplied. Equation (6).
    double x = spec.scale * products.sum[j];
    double worst = scale * qk.worst * products.magnitude[j] + 3 * u * std::abs(x);
    double noise = scale * scale * products.variance(j, width, qk) + 2 * c2u2 * x * x;
    slope[j] = 1;
    tangent[j] = x;
    if (errors) {  // docs/bounds_multihead.md, (3)
      const double own = scale * from_inputs.worst[j];
      inherited_worst = std::max(inherited_worst, own);
      worst += own * (1 + qk.worst + 3 * u);
      noise += scale * scale * from_inputs.variance[j];
      drift[j] = spec.scale * from_inputs.drift[j];
    }
    if (spec.softcap > 0) {
      const double t = std::tanh(x / spec.softcap);
      const double t_error = worst / spec.softcap + (arithmetic.tanh_relative + 2 * u) * std::abs(t);
      // The slope at any point within `worst` of x: |tanh''| <= 0.77.
      const double steepest = std::min(1.0, 1 - t * t + 0.77 * worst / spec.softcap);
      slope[j] = 1 - t * t;
      slope_error[j] = 2 * std::abs(t) * t_error + t_error * t_error + 2 * u;
      tangent[j] = x * slope[j];
      x = spec.softcap * t;
      worst = steepest * worst + (arithmetic.tanh_relative + 3 * u) * std::abs(x);
      drift[j] *= steepest;
      noise = steepest * steepest * noise +
              (arithmetic.tanh_relative * arithmetic.tanh_relative / 3 + c2u2) * x * x;
    }
    if (in.alibi_slopes) {
      const double a = in.alibi_slopes(h) * std::abs(static_cast<double>(on_diagonal - j));
      x -= a;
      worst += u * (std::abs(a) + std::abs(x));
      noise += c2u2 * (a * a + x * x);
    }
    if (in.bias) {
      x += in.bias(h, i, j);
      if (x != -infinity) {
        worst += u * std::abs(x);
        noise += c2u2 * x * x;
      }
    }
    s[j] = x;
    error[j] = worst;
    variance[j] = noise;
  }
}

}  // namespace attest::bounds
