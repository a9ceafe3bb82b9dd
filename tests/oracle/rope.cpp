// A second rotary embedding, slow and independent of ref.
#include "tests/oracle/rope.hpp"

#include <algorithm>
#include <cmath>

namespace attest::oracle {
namespace {

const Real two_pi = 8 * std::atan(Real{1});

/// e^(-(2k/R) ln theta).
Real plain(Real theta, Index rotary_dim, Index k) {
  return std::exp(-std::log(theta) * static_cast<Real>(2 * k) / static_cast<Real>(rotary_dim));
}

/// Between 0 (f stays) and 1 (f / factor), by counting the turns that pairs make in M positions.
Real yarn_interpolation(const RopeFrequencies& f, Index rotary_dim, Index k) {
  const auto turns = [&](Index pair) {
    return f.original_max_position_embeddings * plain(f.theta, rotary_dim, pair) / two_pi;
  };
  Index low = 0, high = rotary_dim - 1;
  while (low < 10 * rotary_dim && turns(low + 1) >= f.beta_fast) ++low;
  while (high > -10 * rotary_dim && turns(high - 1) <= f.beta_slow) --high;
  if (k <= low) return 0;
  if (k >= high) return 1;
  return static_cast<Real>(k - low) / static_cast<Real>(high - low);
}

}  // namespace

std::vector<Real> rope_inverse_frequencies(const RopeFrequencies& f, Index rotary_dim) {
  const Real factor = f.factor, r = static_cast<Real>(rotary_dim), m = f.original_max_position_embeddings;
  std::vector<Real> all;
  for (Index k = 0; k < rotary_dim / 2; ++k) {
    Real x = plain(f.theta, rotary_dim, k);
    const Real stretch = static_cast<Real>(2 * k) / (r - 2);  // (2k/R) * (R/(R-2))
    switch (f.scaling) {
      case RopeScaling::none:
        break;
      case RopeScaling::linear:
        x /= factor;
        break;
      case RopeScaling::ntk:
        x *= std::pow(factor, -stretch);
        break;
      case RopeScaling::dynamic_ntk:
        if (f.sequence_length > m) x *= std::pow(1 + factor * (f.sequence_length / m - 1), -stretch);
        break;
      case RopeScaling::yarn: {
        const Real interpolation = yarn_interpolation(f, rotary_dim, k);
        x -= interpolation * (x - x / factor);
        break;
      }
      case RopeScaling::llama3: {
        const Real turns = m * x / two_pi;
        if (turns <= f.low_freq_factor) {
          x /= factor;
        } else if (turns < f.high_freq_factor) {
          const Real smooth = (turns - f.low_freq_factor) / (f.high_freq_factor - f.low_freq_factor);
          x = x / factor + smooth * (x - x / factor);
        }
        break;
      }
    }
    all.push_back(x);
  }
  return all;
}

std::complex<Real> rope_turn(Real f, long long p) {
  std::complex<Real> base{std::cos(f), std::sin(f)}, result = 1;
  if (p < 0) base = std::conj(base);
  for (unsigned long long n = static_cast<unsigned long long>(std::abs(p)); n > 0; n >>= 1, base *= base) {
    if (n & 1) result *= base;
  }
  return result;
}

Array<Real, 2> rope_matrix(const RopeSpec& spec, Index width, const std::vector<Real>& cos,
                           const std::vector<Real>& sin) {
  Array<Real, 2> matrix({width, width}, 0);
  for (Index d = 0; d < width; ++d) {
    if (d >= spec.rotary_dim) {
      matrix(d, d) = 1;
      continue;
    }
    const Index half = spec.rotary_dim / 2;
    const bool is_first = spec.style == RopeStyle::half ? d < half : d % 2 == 0;
    const Index step = spec.style == RopeStyle::half ? half : 1;
    matrix(d, d) = cos[d];
    matrix(d, is_first ? d + step : d - step) = is_first ? -sin[d] : sin[d];
  }
  return matrix;
}

std::vector<Real> rope_times(const Array<Real, 2>& matrix, const std::vector<Real>& x, bool transposed) {
  const Index n = matrix.extent(0);
  std::vector<Real> y(n, 0);
  for (Index i = 0; i < n; ++i) {
    for (Index j = 0; j < n; ++j) y[i] += (transposed ? matrix(j, i) : matrix(i, j)) * x[j];
  }
  return y;
}

}  // namespace attest::oracle
