// One key/value head laid out for the bounds' inner loops, and the sums over products that both passes need.
#include "verify/bounds/head.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "verify/bounds/input_errors.hpp"

namespace attest::bounds {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

}  // namespace

void RepeatedRows::add(const double* row, Index width) {
  std::uint64_t mark = 0;
  for (Index d = 0; d < width; ++d) {
    mark = (mark ^ std::bit_cast<std::uint64_t>(row[d] + 0.0)) * 0xBF58476D1CE4E5B9u;  // -0 is 0
    mark ^= mark >> 32;
  }
  marks_.push_back(mark);
}

bool RepeatedRows::are_many() const {
  std::vector<std::uint64_t> marks = marks_;
  std::ranges::sort(marks);
  const Index rows = std::ssize(marks);
  Index repeated = 0;
  for (Index r = 0; r < rows; ++r) {
    repeated += (r > 0 && marks[r] == marks[r - 1]) || (r + 1 < rows && marks[r] == marks[r + 1]);
  }
  return 8 * repeated > rows;
}

Head::Head(const AttentionInputs& in, Index kv_head, Pass pass)
    : keys(in.keys()), qk_width(in.qk_width()), v_width(in.v_width()), v_max(v_width) {
  const Index d_stride = padded(qk_width), e_stride = padded(v_width);
  k_columns.resize(qk_width * padded(keys));
  if (pass == Pass::forward) {
    v.resize(keys * e_stride);
  } else if (pass == Pass::backward) {
    k.resize(keys * d_stride);
    v_columns.resize(v_width * padded(keys));
  }
  std::vector<double> row(qk_width);
  RepeatedRows repeated;
  for (Index j = 0; j < keys; ++j) {
    const Index block = j / lanes, lane = j % lanes;
    for (Index d = 0; d < qk_width; ++d) {
      row[d] = k_columns[(block * qk_width + d) * lanes + lane] = in.k(kv_head, j, d);
    }
    repeated.add(row.data(), qk_width);
    if (pass == Pass::backward) std::ranges::copy(row, k.begin() + j * d_stride);
    for (Index e = 0; pass != Pass::scores_only && e < v_width; ++e) {
      const double x = in.v(kv_head, j, e);
      (pass == Pass::forward ? v[j * e_stride + e] : v_columns[(block * v_width + e) * lanes + lane]) = x;
      v_max[e] = std::max(v_max[e], std::abs(x));
    }
  }
  keys_repeat = repeated.are_many();
}

void ProductSums::compute(const double* a, Index n, const double* b, Index keys, Index first, Index last) {
  for (auto* x : {&sum, &magnitude, &squares, &prefix, &prefix_sum}) x->resize(padded(keys));
  vector_kernels().product_sums(
      a, n, b, first, last, {sum.data(), magnitude.data(), squares.data(), prefix.data(), prefix_sum.data()});
}

double ProductSums::running(Index j, Index n) const {
  return mean_square_running_sum(sum[j], squares[j], prefix[j], prefix_sum[j], static_cast<double>(n));
}

double ProductSums::truncation(Index j, Index n, const SumError& error) const {
  return std::min(error.truncation(running(j, n), squares[j], sum[j]), error.shrinkage() * magnitude[j]);
}

void ScoreRow::locate(const AttentionSpec& spec, const AttentionInputs& in, const Head& head, Index h,
                      Index i) {
  head_index = h, row = i;
  const Index on_diagonal = diagonal(spec, in, i);
  first = 0;
  last = in.sequence_keys();
  if (spec.causal != Causal::none) last = std::min(last, on_diagonal + 1);
  if (spec.window_left >= 0) first = std::max(first, on_diagonal - spec.window_left);
  if (spec.window_right >= 0) last = std::min(last, on_diagonal + spec.window_right + 1);
  last = std::max(last, Index{0});
  first = std::min(first, last);
  if (in.key) {
    const auto index_of = [&](Index position) {
      return std::lower_bound(in.key.data_handle(), in.key.data_handle() + head.keys, position) -
             in.key.data_handle();
    };
    first = index_of(first);
    last = index_of(last);
  }
  q.resize(head.qk_width);
  for (Index d = 0; d < head.qk_width; ++d) q[d] = in.q(h, i, d);
}

void ScoreRow::multiply(std::span<ScoreRow* const> rows, const Head& head) {
  for (Index key = 0; key < head.keys; key += rows_in_cache) {
    for (ScoreRow* row : rows) {
      const Index from = std::max(key, row->first), to = std::min(key + rows_in_cache, row->last);
      if (from >= to) continue;
      row->products.compute(row->q.data(), head.qk_width, head.k_columns.data(), head.keys, from, to);
    }
  }
}

void ScoreRow::compute(const AttentionSpec& spec, const AttentionInputs& in, const Head& head,
                       const Arithmetic& arithmetic, Index h, Index i) {
  locate(spec, in, head, h, i);
  ScoreRow* const alone = this;
  multiply({&alone, 1}, head);
  bound(spec, in, head, arithmetic);
}

void ScoreRow::bound(const AttentionSpec& spec, const AttentionInputs& in, const Head& head,
                     const Arithmetic& arithmetic, const HeadErrors* errors) {
  const Index h = head_index, i = row, on_diagonal = diagonal(spec, in, i), width = head.qk_width;
  for (auto* x : {&s, &tangent, &error, &variance}) x->resize(head.keys);
  // These stay what they are, unless there is a softcap or q and k have errors.
  slope.resize(head.keys, 1.0);
  slope_error.resize(head.keys, 0.0);
  drift.resize(head.keys, 0.0);
  // Products with zeros cost nothing, where the device has these zeros, too.
  const Index zeros = errors ? 0 : std::count(q.begin(), q.end(), 0.0);
  const Index terms = std::max<Index>(1, width - zeros);
  scale_products(spec.scale, arithmetic, terms, width);
  if (errors) {  // docs/bounds_multihead.md, (3)
    InheritedProducts inherited;
    inherited.compute(*errors, head, q, h, i, first, last);
    inherit(inherited, spec.scale, arithmetic, width);
  }
  store(is_power_of_two(spec.scale) ? 1 : 2, arithmetic);  // q.k, then the scale times it
  if (spec.softcap > 0) {
    store(1, arithmetic);
    apply_softcap(spec.softcap, arithmetic);
    store(2, arithmetic);
  }
  const double u = arithmetic.u, c2u2 = mean_square_rounding * u * u;
  for (Index j = first; in.alibi_slopes && j < last; ++j) {
    const double a =
        in.alibi_slopes(h) * static_cast<double>(alibi_distance(spec.alibi, on_diagonal, in.key_position(j)));
    s[j] -= a;
    error[j] += u * (std::abs(a) + std::abs(s[j]));
    variance[j] += c2u2 * (a * a + s[j] * s[j]);
  }
  if (in.alibi_slopes) store(1, arithmetic);
  for (Index j = first; in.bias && j < last; ++j) {
    s[j] += in.bias(h, i, j);
    if (s[j] == -infinity) continue;
    error[j] += u * std::abs(s[j]);
    variance[j] += c2u2 * s[j] * s[j];
  }
  if (in.bias) store(1, arithmetic);
  inherited_worst = 0;
  for (Index j = first; (in.mask || errors) && j < last; ++j) {
    if (in.mask && in.mask(h, i, j) == 0) {
      s[j] = -infinity;
    } else if (errors) {
      inherited_worst = std::max(inherited_worst, inherited_error[j]);
    }
  }
}

// x = scale q.k: the scale is rounded to the format of the scores, then multiplied. Equation (6).
ATTEST_VECTORISED
void ScoreRow::scale_products(double scale, const Arithmetic& arithmetic, Index terms, Index width) {
  const SumError qk = sum_error(arithmetic.contract.qk, terms, width);
  const double u = arithmetic.u, c2u2 = mean_square_rounding * u * u, size = std::abs(scale),
               n = static_cast<double>(width);
  const double *sum = products.sum.data(), *magnitude = products.magnitude.data(),
               *squares = products.squares.data(), *prefix = products.prefix.data(),
               *prefix_sum = products.prefix_sum.data();
  double *score = s.data(), *t = tangent.data(), *worst = error.data(), *noise = variance.data();
#pragma GCC ivdep
  for (Index j = first; j < last; ++j) {
    const double x = scale * sum[j];
    const double running = mean_square_running_sum(sum[j], squares[j], prefix[j], prefix_sum[j], n);
    score[j] = t[j] = x;
    worst[j] = size * qk.worst * magnitude[j] + 3 * u * std::abs(x);
    noise[j] = scale * scale * qk.variance(running, squares[j]) + 2 * c2u2 * x * x;
  }
}

void ScoreRow::inherit(const InheritedProducts& inherited, double scale, const Arithmetic& arithmetic,
                       Index width) {
  const double size = std::abs(scale), worst = sum_error(arithmetic.contract.qk, width).worst;
  inherited_error.resize(s.size());
  for (Index j = first; j < last; ++j) {
    inherited_error[j] = size * inherited.worst[j];
    error[j] += inherited_error[j] * (1 + worst + 3 * arithmetic.u);
    variance[j] += scale * scale * inherited.variance[j];
    drift[j] = scale * inherited.drift[j];
  }
}

// Kernels that are not fused store scores after every operation. Equation (6b).
void ScoreRow::store(int times, const Arithmetic& arithmetic) {
  if (!arithmetic.score_store) return;
  for (Index j = first; j < last; ++j) {
    if (s[j] == -infinity) continue;
    for (int n = 0; n < times; ++n) error[j] += arithmetic.score_store_worst(s[j], error[j]);
    variance[j] += times * arithmetic.score_store_variance(s[j]);
  }
}

void ScoreRow::apply_softcap(double softcap, const Arithmetic& arithmetic) {
  const double u = arithmetic.u, relative = arithmetic.tanh_relative;
  capped = 0;
  for (Index j = first; j < last; ++j) {
    const double t = std::tanh(s[j] / softcap), before = error[j];
    const double t_error = before / softcap + (relative + 2 * u) * std::abs(t);
    // The slope at any point within the error of x: |tanh''| <= 0.77.
    const double steepest = std::min(1.0, 1 - t * t + 0.77 * before / softcap);
    slope[j] = 1 - t * t;
    slope_error[j] = 2 * std::abs(t) * t_error + t_error * t_error + 2 * u;
    tangent[j] = s[j] * slope[j];
    s[j] = softcap * t;
    capped = std::max(capped, std::abs(s[j]));
    error[j] = steepest * before + (relative + 3 * u) * std::abs(s[j]);
    drift[j] *= steepest;
    variance[j] = steepest * steepest * variance[j] +
                  (relative * relative / 3 + mean_square_rounding * u * u) * s[j] * s[j];
  }
}

}  // namespace attest::bounds
