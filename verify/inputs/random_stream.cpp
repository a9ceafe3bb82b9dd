// Random numbers that can be had in any order, and the normal quantile.
#include "verify/inputs/random_stream.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cfloat>
#include <cmath>
#include <limits>

#include "verify/bounds/lanes.hpp"

namespace attest {
namespace {

static_assert(std::numeric_limits<double>::is_iec559 && FLT_EVAL_METHOD == 0,
              "the bits of generated inputs rest on IEEE double arithmetic");

/// Highest power first.
template <std::size_t N>
double polynomial(const double (&coefficients)[N], double x) {
  double sum = coefficients[0];
  for (std::size_t n = 1; n < N; ++n) sum = sum * x + coefficients[n];
  return sum;
}

/// Of a positive normal number, within a few ulp. The library's own may differ from platform to platform.
double logarithm(double x) {
  const auto bits = std::bit_cast<std::uint64_t>(x);
  int exponent = static_cast<int>(bits >> 52) - 1023;
  double m = std::bit_cast<double>((bits & 0x000FFFFFFFFFFFFF) | 0x3FF0000000000000);
  if (m > 1.4142135623730951) m /= 2, ++exponent;
  // ln m = 2 artanh s, |s| < 0.1716: the first term left out is s^24 / 25 < 2e-20.
  static constexpr double odd[] = {1.0 / 23, 1.0 / 21, 1.0 / 19, 1.0 / 17, 1.0 / 15, 1.0 / 13,
                                   1.0 / 11, 1.0 / 9,  1.0 / 7,  1.0 / 5,  1.0 / 3,  1.0};
  const double s = (m - 1) / (m + 1);
  return exponent * 0.69314718055994530942 + 2 * s * polynomial(odd, s * s);
}

// Wichura, "Algorithm AS 241: the percentage points of the normal distribution", Applied Statistics 37
// (1988), PPND16. Its third branch is for probabilities below 1.4e-11 and cannot be reached from 32 bits.
constexpr double centre = 0.425;

double less_half(std::uint32_t word) {
  return (word + 0.5) * 0x1p-32 - 0.5;  // exact
}

/// For |q| <= centre.
inline double central_quantile(double q) {
  static constexpr double a[] = {2.5090809287301226727e+3, 3.3430575583588128105e+4, 6.7265770927008700853e+4,
                                 4.5921953931549871457e+4, 1.3731693765509461125e+4, 1.9715909503065514427e+3,
                                 1.3314166789178437745e+2, 3.3871328727963666080e+0};
  static constexpr double b[] = {
      5.2264952788528545610e+3, 2.8729085735721942674e+4, 3.9307895800092710610e+4, 2.1213794301586595867e+4,
      5.3941960214247511077e+3, 6.8718700749205790830e+2, 4.2313330701600911252e+1, 1.0};
  const double r = 0.180625 - q * q;
  return q * polynomial(a, r) / polynomial(b, r);
}

/// For the others: from the root of -ln(1/2 - |q|).
inline double outer_quantile(double q, double root) {
  static constexpr double c[] = {7.74545014278341407640e-4, 2.27238449892691845833e-2,
                                 2.41780725177450611770e-1, 1.27045825245236838258e+0,
                                 3.64784832476320460504e+0, 5.76949722146069140550e+0,
                                 4.63033784615654529590e+0, 1.42343711074968357734e+0};
  static constexpr double d[] = {1.05075007164441684324e-9, 5.47593808499534494600e-4,
                                 1.51986665636164571966e-2, 1.48103976427480074590e-1,
                                 6.89767334985100004550e-1, 1.67638483018380384940e+0,
                                 2.05319162663775882187e+0, 1.0};
  const double r = root - 1.6;
  return std::copysign(polynomial(c, r) / polynomial(d, r), q);
}

inline double log_of_tail(double q) {
  return -logarithm(0.5 - std::abs(q));
}

// The same for many: several at a time. Most are central; the others are set apart, so that they need no
// branches.
constexpr Index together = 256;
using Numbers = std::array<double, together>;

ATTEST_VECTORISED
void central_quantiles(const double* q, Index count, double* out) {
  for (Index n = 0; n < count; ++n) out[n] = central_quantile(q[n]);
}
ATTEST_VECTORISED
void logs_of_tails(const double* q, Index count, double* out) {
  for (Index n = 0; n < count; ++n) out[n] = log_of_tail(q[n]);
}
ATTEST_VECTORISED
void outer_quantiles(const double* q, const double* root, Index count, double* out) {
  for (Index n = 0; n < count; ++n) out[n] = outer_quantile(q[n], root[n]);
}

/// count: at most `together`.
void quantiles(const double* q, Index count, double* out) {
  central_quantiles(q, count, out);
  Numbers outer, root;
  std::array<Index, together> place;
  Index outers = 0;
  for (Index n = 0; n < count; ++n) {
    place[outers] = n, outer[outers] = q[n];
    outers += std::abs(q[n]) > centre;
  }
  logs_of_tails(outer.data(), outers, root.data());
  for (Index n = 0; n < outers; ++n) root[n] = std::sqrt(root[n]);
  outer_quantiles(outer.data(), root.data(), outers, outer.data());
  for (Index n = 0; n < outers; ++n) out[place[n]] = outer[n];
}

/// philox() of blocks first, first + 1, ..., four words each.
ATTEST_VECTORISED
void philox_blocks(Index first, Index count, std::uint32_t name, PhiloxKey key, std::uint32_t* out) {
  constexpr Index most = together / 4 + 1;
  std::array<std::uint32_t, most> c0, c1, c2, c3;
  for (Index n = 0; n < count; ++n) {
    const auto bits = static_cast<std::uint64_t>(first + n);
    c0[n] = static_cast<std::uint32_t>(bits), c1[n] = static_cast<std::uint32_t>(bits >> 32);
    c2[n] = name, c3[n] = 0;
  }
  for (int round = 0; round < philox_rounds; ++round) {
    for (Index n = 0; n < count; ++n) {
      const PhiloxCounter c = philox_round({c0[n], c1[n], c2[n], c3[n]}, key);
      c0[n] = c[0], c1[n] = c[1], c2[n] = c[2], c3[n] = c[3];
    }
    key = next_key(key);
  }
  for (Index n = 0; n < count; ++n)
    out[4 * n] = c0[n], out[4 * n + 1] = c1[n], out[4 * n + 2] = c2[n], out[4 * n + 3] = c3[n];
}

}  // namespace

double normal_quantile(std::uint32_t word) {
  const double q = less_half(word);
  return std::abs(q) <= centre ? central_quantile(q) : outer_quantile(q, std::sqrt(log_of_tail(q)));
}

RandomStream::RandomStream(std::uint64_t seed, std::string_view name)
    : key_{static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)}, name_(2166136261) {
  for (const char c : name) name_ = (name_ ^ static_cast<unsigned char>(c)) * 16777619;  // FNV-1a
}

template <class Take>
void RandomStream::for_words(Index first, std::span<double> out, Take take) const {
  std::array<std::uint32_t, together + 4> words;
  for (Index done = 0; done < std::ssize(out); done += together) {
    const Index at = first + done, count = std::min(together, std::ssize(out) - done), skipped = at % 4;
    philox_blocks(at / 4, (skipped + count + 3) / 4, name_, key_, words.data());
    take(words.data() + skipped, count, out.data() + done);
  }
}

void RandomStream::normals(Index first, std::span<double> out) const {
  for_words(first, out, [](const std::uint32_t* words, Index count, double* to) {
    Numbers q;
    for (Index n = 0; n < count; ++n) q[n] = less_half(words[n]);
    quantiles(q.data(), count, to);
  });
}

void RandomStream::uniforms(Index first, std::span<double> out) const {
  for_words(first, out, [](const std::uint32_t* words, Index count, double* to) {
    for (Index n = 0; n < count; ++n) to[n] = (words[n] + 0.5) * 0x1p-32;
  });
}

}  // namespace attest
