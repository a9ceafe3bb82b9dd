// Rotary position embedding, forward and backward, in plain loops (Su et al., RoFormer, 2021).
#pragma once

#include "core/rope.hpp"

namespace attest::ref {

/// inv_freq[R/2] of the first formula to the last, in long double.
void rope_inverse_frequencies(const RopeFrequencies& frequencies, Index rotary_dim, AngleRule rule,
                              View<long double, 1> inv_freq);

/// cos[S, R/2], sin[S, R/2] of positions[S], times attention_factor (1 but for YaRN). Under
/// AngleRule::float32 inv_freq is rounded to float32 first.
void rope_table(View<const long double, 1> inv_freq, AngleRule rule, double attention_factor,
                View<const double, 1> positions, View<double, 2> cos, View<double, 2> sin);

/// x[H, S, D], cos[S, W], sin[S, W] -> y[H, S, D].
///   W = R     y = x cos + rotate(x) sin, rotate(x) = (-x_second, x_first): the table is used column by
///             column as given, whether or not both columns of a pair have the same angle
///   W = R/2   the same with the angle of pair k for both of its columns
/// Columns from R on are copied.
void rope_forward(const RopeSpec& spec, View<const double, 3> x, View<const double, 2> cos,
                  View<const double, 2> sin, View<double, 3> y);

/// The gradient of sum(dy * y): dy[H, S, D] -> dx[H, S, D], the transposed map. With one angle a pair that is
/// the turn by its negative.
void rope_backward(const RopeSpec& spec, View<const double, 3> dy, View<const double, 2> cos,
                   View<const double, 2> sin, View<double, 3> dx);

}  // namespace attest::ref
