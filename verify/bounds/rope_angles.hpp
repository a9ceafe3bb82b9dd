// The angles of a rotary embedding: exact inverse frequencies, those that a device may have instead, and
// cosine and sine of any position with a certified error. Equation numbers refer to docs/bounds_rope.md.
#pragma once

#include <span>
#include <vector>

#include "core/double_double.hpp"
#include "core/rope.hpp"

namespace attest::bounds {

/// The inverse frequency f of one pair.
struct PairFrequency {
  DoubleDouble exact;
  double error;  // |exact - f| <= error f
  double slack;  // |device's - f| <= slack u f, u the unit roundoff of the angles. Equations (3) to (7)

  /// Under AngleRule::float32 the float32 numbers that a device may have, the nearest to f first; else empty.
  std::vector<double> candidates;
};

/// [R/2], from the formulas of core/rope.hpp.
std::vector<PairFrequency> pair_frequencies(const RopeFrequencies& frequencies, Index rotary_dim,
                                            AngleRule rule);

/// Inverse frequencies that the kernel was given: nothing is uncertain but, without a rule, the product.
std::vector<PairFrequency> pair_frequencies(std::span<const double> inv_freq, AngleRule rule);

/// Cosine and sine of position * inverse frequency.
struct Turn {
  double cos, sin;
  double error;        // certified, of each
  double angle_slack;  // the device's angle may be this far off
};

/// candidate: an index into f.candidates; ignored under AngleRule::exact. |position| <= 2^53.
Turn turn(const PairFrequency& f, AngleRule rule, double position, std::size_t candidate);

/// How far, in radians, the candidates of f spread the angle of a position. 0 under AngleRule::exact.
double angle_freedom(const PairFrequency& f, double position);

}  // namespace attest::bounds
