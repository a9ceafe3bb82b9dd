// Softmax: the ways to compute it, how partial results merge, its gradient, and when the maximum may be left
// out.
#pragma once

#include <limits>

#include "core/dtype.hpp"
#include "core/view.hpp"

namespace attest::ref {

// softmax(x)_j = exp(x_j) / sum_k exp(x_k). A score of -inf has no weight. In every function here a row may
// have no score at all, and a NaN or +inf makes the results that depend on it NaN.

/// What is known of a set of scores once they have been passed over: sum_k exp(x_k) = l exp(m).
/// l = 0: no score had weight, whatever m is. (m, l) and (m + ln c, l / c) say the same.
struct SoftmaxState {
  double m, l;
};
inline constexpr SoftmaxState empty_softmax{-std::numeric_limits<double>::infinity(), 0};

/// The state of two disjoint sets together: m = max(m_a, m_b), l = l_a exp(m_a - m) + l_b exp(m_b - m).
/// Merging with a state of l = 0 changes no bit.
SoftmaxState merge(SoftmaxState a, SoftmaxState b);

/// The same with weighted sums of values beside it: o_a[E] = sum_k exp(x_k - m_a) v_k, and becomes that of
/// both. With (m, l) = (lse, 1), o is a normalised output: that is how split attention is combined. What
/// stands in the o of a state with l = 0 is not read.
SoftmaxState merge(SoftmaxState a, View<double, 1> o_a, SoftmaxState b, View<const double, 1> o_b);

// Four ways to the same sum. They differ in what they may overflow and in how often they read x[N].

/// As written: m = 0, l = sum exp(x_k). Overflows from x = 709.8 on, in float32 from 88.7, in float16 from
/// 11.1; exp underflows as far on the other side.
SoftmaxState naive_softmax(View<const double, 1> x);

/// m = max x first, then l = sum exp(x_k - m): no exp exceeds 1 and l >= 1.
SoftmaxState safe_softmax(View<const double, 1> x);

/// The safe way in blocks of `block` scores, whose states are merged from left to right.
SoftmaxState split_softmax(View<const double, 1> x, Index block);

/// One pass: a running maximum and a running sum that is rescaled whenever the maximum grows (Milakov and
/// Gimelshein, Online normalizer calculation for softmax, 2018, algorithm 3).
SoftmaxState online_softmax(View<const double, 1> x);

/// ln sum_k exp(x_k) = m + ln l; -inf if no score had weight.
double log_sum_exp(SoftmaxState state);

/// y[N] = exp(x_j - m) / l, given the state of all of x. `empty_row` fills y if no score had weight.
void softmax(View<const double, 1> x, SoftmaxState state, double empty_row, View<double, 1> y);

/// dx[N] = y (dy - sum_k dy_k y_k), the gradient of the scores.
void softmax_backward(View<const double, 1> y, View<const double, 1> dy, View<double, 1> dx);

/// The softmax of a dump, over s_j = scale * clamped(x_j) where mask_j is not 0, and -inf elsewhere.
struct SoftmaxSpec {
  double scale;
  double clamp;       // c > 0: x is limited to [-c, c] first, infinities included; 0: it is not
  bool subtract_max;  // false: the naive way
  double empty_row;   // y of a row in which no score has weight: 0 or NaN
};

/// s[N] from x[N] and mask[N] (optional). Without a clamp, -inf in x stays -inf whatever the scale is.
void softmax_scores(const SoftmaxSpec& spec, View<const double, 1> x, View<const double, 1> mask,
                    View<double, 1> s);

/// d s_j / d x_j: the scale, but 0 where x_j was clamped or masked.
double softmax_score_slope(const SoftmaxSpec& spec, double x, double mask);

/// Which scores a kernel that does not subtract the maximum may meet, computing in `format` and adding up n
/// exponentials, in any order. With every score in [lowest, highest], for an exp within 2 ulp,
///   every exp and the reciprocal of the row sum are normal numbers, and no sum overflows:
///   n exp(highest) (1 + 4u) (1 + (n-1)u / (1 - (n-1)u)) = min(max, 1 / smallest normal),
///   exp(lowest) (1 - 4u) = smallest normal,
/// so that weights keep the relative error of the safe way, with |s_j| in place of m - s_j. `overflow` is the
/// exact edge: n equal scores above it sum to more than `format` can hold, after a single rounding to
/// nearest. Where n u >= 1 no order of summation has an error bound: highest is then -inf.
struct NaiveRange {
  double lowest, highest, overflow;
};
NaiveRange range_without_maximum(DType format, Index n);

/// What a kernel computing in `format` may leave out for this row, so that no weight changes by more than its
/// rounding errors: the subtraction of the maximum, or the clamp.
///   maximum: no score exceeds `highest` of the row, and every score below `lowest` has an exp that
///   underflows even after the subtraction, or a maximum >= 0 above it, which makes underflow no worse.
///   clamp: every distance m - s_j is the same without it, or so large either way that the weight is 0.
/// lse and m may still change with the clamp: their row may move as a whole.
struct Omissible {
  bool maximum, clamp;
};
Omissible omissible(const SoftmaxSpec& spec, View<const double, 1> x, View<const double, 1> mask,
                    DType format);

}  // namespace attest::ref
