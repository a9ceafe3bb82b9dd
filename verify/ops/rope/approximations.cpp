// Cosines and sines that are slightly off, alike in all heads: those of an approximation.
#include <algorithm>
#include <cmath>
#include <tuple>

#include "verify/compare.hpp"
#include "verify/ops/rope/problem.hpp"
#include "verify/ops/rope/sample.hpp"
#include "verify/ops/weighted_sums.hpp"

namespace attest {
namespace {

constexpr double own_error = 0x1p-20;  // of fast sines and cosines at small angles
constexpr double most_off = 0x1p-4;    // of fast ones at 1e5, 2^-7; what is off by more has another cause

/// What is known of the pairs that have wrong elements. Errors count in the rounding of the output.
struct Fit {
  double before = 0,
         left = 0;         // mean squares, and those that other cosines and sines leave; summed over pairs
  double angle_error = 0;  // the least that would allow those, beside own_error
  double off = 0;          // the most that one of those is off by, beyond doubt
};

/// Adds pair k of row s of the sample: cosine and sine as they fit all heads best.
void add_pair(const Expected& e, const RopeSample& sample, const RopeSpec& spec, Index s, Index k,
              bool backward, Fit& fit) {
  const Index rows = sample.shape.sizes.s, heads = sample.shape.sizes.h;
  const double turn = backward ? -1 : 1;
  bool is_wrong = false;
  // Of d_cos a - d_sin b = error, with weights: three sums of the normal equations, and that of squares.
  double cos_cos = 0, cos_sin = 0, sin_sin = 0, cos_off = 0, sin_off = 0, off_off = 0;
  for (Index h = 0; h < heads; ++h) {
    const Index row = (h * rows + s) * sample.shape.sizes.width, i = row + spec.first(k),
                j = row + spec.second(k);
    const double a = sample.input[i], b = sample.input[j];
    for (const auto& [at, of_cos, of_sin] : {std::tuple{i, a, -turn * b}, std::tuple{j, b, turn * a}}) {
      const double got = sample.dumped.values[at], off = got - e.value[sample.at[at]];
      is_wrong |= !within_bound(e, sample.at[at], got);
      const double rounding = ulp(got, e.dtype) / std::sqrt(12.0), weight = 1 / (rounding * rounding);
      cos_cos += weight * of_cos * of_cos;
      cos_sin += weight * of_cos * of_sin;
      sin_sin += weight * of_sin * of_sin;
      cos_off += weight * of_cos * off;
      sin_off += weight * of_sin * off;
      off_off += weight * off * off;
    }
  }
  const double determinant = cos_cos * sin_sin - cos_sin * cos_sin;
  if (!is_wrong || !(determinant > 0)) return;
  const double cos = (cos_off * sin_sin - sin_off * cos_sin) / determinant,
               sin = (sin_off * cos_cos - cos_off * cos_sin) / determinant;
  const double equations = static_cast<double>(2 * heads);
  fit.before += off_off / equations;
  fit.left += std::max(0.0, off_off - cos * cos_off - sin * sin_off) / (equations - 2);
  const double doubt = 2 * std::sqrt((cos_cos + sin_sin) / determinant);
  const double angle = std::abs(sample.source.positions[s] * sample.source.frequencies[k].exact.hi);
  const double off = std::hypot(cos, sin) - doubt - own_error;
  fit.off = std::max(fit.off, off);
  if (off > 0 && angle > 0) fit.angle_error = std::max(fit.angle_error, off / angle);
}

}  // namespace

std::vector<DiagnosisEntry> RopeProblem::approximations(const Expected& e,
                                                        const RopeDirection& direction) const {
  constexpr double most_angle_error = 0x1p-17;  // wrong frequencies are off by more
  constexpr double least_explained = 0.7;
  const RopeSample sample(rope_, case_.input(direction.input)->values, *e.dumped);
  const double heads = static_cast<double>(sample.shape.sizes.h);
  if (rope_.source.has_table() || heads < 2) return {};
  Fit fit;
  for (Index s = 0; s < sample.shape.sizes.s; ++s) {
    for (Index k = 0; k < rope_.spec.pairs(); ++k)
      add_pair(e, sample, rope_.spec, s, k, direction.backward, fit);
  }
  const double share = 1 - fit.left / fit.before;
  if (!(share >= least_explained) || fit.angle_error > most_angle_error || fit.off > most_off) return {};
  return {{"cosines and sines are approximations: contract keys angle_error, sincos_error", 0.9 * share,
           "what they are off by is alike in all heads and explains " + percent(share) +
               " of the squared errors of " + e.output}};
}

}  // namespace attest
