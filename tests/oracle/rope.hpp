// A second rotary embedding, slow and independent of ref: whole matrices, and angles as powers of e^(i f).
#pragma once

#include <complex>
#include <vector>

#include "core/array.hpp"
#include "core/rope.hpp"

namespace attest::oracle {

/// 64 bits of significand on x86: rounding errors 2^-11 of double's, which the tests count on.
using Real = long double;

/// inv_freq[R/2], all exact (AngleRule::exact).
std::vector<Real> rope_inverse_frequencies(const RopeFrequencies& frequencies, Index rotary_dim);

/// e^(i f p) = cos(f p) + i sin(f p): p multiplications, by squaring. Off by about |p| 2^-64.
std::complex<Real> rope_turn(Real f, long long p);

/// The D x D matrix that maps a row x to y. cos, sin: R values, one a column.
Array<Real, 2> rope_matrix(const RopeSpec& spec, Index width, const std::vector<Real>& cos,
                           const std::vector<Real>& sin);

/// matrix x, or its transpose times x.
std::vector<Real> rope_times(const Array<Real, 2>& matrix, const std::vector<Real>& x, bool transposed);

}  // namespace attest::oracle
