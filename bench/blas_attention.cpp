// Attention by tiles with OpenBLAS.
#include "bench/blas_attention.hpp"

#include <cblas.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <vector>

namespace attest::bench {
namespace {

/// c[m, n] = factor a[m, k] b + addend c, with b [k, n] or, transposed, [n, k].
void multiply(bool is_transposed, Index m, Index n, Index k, float factor, const float* a, Index lda,
              const float* b, Index ldb, float addend, float* c, Index ldc) {
  cblas_sgemm(CblasRowMajor, CblasNoTrans, is_transposed ? CblasTrans : CblasNoTrans, static_cast<int>(m),
              static_cast<int>(n), static_cast<int>(k), factor, a, static_cast<int>(lda), b,
              static_cast<int>(ldb), addend, c, static_cast<int>(ldc));
}
void multiply(bool is_transposed, Index m, Index n, Index k, double factor, const double* a, Index lda,
              const double* b, Index ldb, double addend, double* c, Index ldc) {
  cblas_dgemm(CblasRowMajor, CblasNoTrans, is_transposed ? CblasTrans : CblasNoTrans, static_cast<int>(m),
              static_cast<int>(n), static_cast<int>(k), factor, a, static_cast<int>(lda), b,
              static_cast<int>(ldb), addend, c, static_cast<int>(ldc));
}

constexpr Index key_tile = 512;  // a multiple of 64, for exp2

Index row_tile(Index length) {
  return length >= 768 ? 256 : length >= 192 ? 64 : 32;
}

/// The weights of one row of scores in base 2, of which the first `seen` of `keys` count, in their place;
/// returns what the row's output so far has to be multiplied with.
template <class Real>
Real soften(const tiled::Kernels<Real>& kernels, Real* s, Index seen, Index keys, Real& m, Real& l) {
  const Index padded = (keys + 63) / 64 * 64;
  std::fill(s + seen, s + padded, -std::numeric_limits<Real>::infinity());
  Real largest = m;
#pragma omp simd reduction(max : largest)
  for (Index j = 0; j < seen; ++j) largest = std::max(largest, s[j]);
#pragma omp simd
  for (Index j = 0; j < padded; ++j) s[j] -= largest;
  kernels.exp2(s, s, padded);
  std::fill(s + seen, s + padded, Real{0});
  Real sum = 0;
#pragma omp simd reduction(+ : sum)
  for (Index j = 0; j < seen; ++j) sum += s[j];
  const Real rescale = std::exp2(m - largest);
  l = l * rescale + sum;
  m = largest;
  return rescale;
}

}  // namespace

template <class Real>
void blas_attention(const Real* q, const Real* k, const Real* v, Real* o, Index heads, Index length,
                    Index width, bool is_causal, tiled::Level level) {
  openblas_set_num_threads(1);
  const tiled::Kernels<Real>& kernels = tiled::kernels_for<Real>(level);
  const Real scale = std::numbers::log2e_v<Real> / std::sqrt(static_cast<Real>(width));
  const Index tile = row_tile(length);
#pragma omp parallel
  {
    std::vector<Real> s(static_cast<std::size_t>(tile * key_tile));
    std::vector<Real> m(static_cast<std::size_t>(tile)), l(m);
#pragma omp for collapse(2) schedule(dynamic, 1)
    for (Index h = 0; h < heads; ++h) {
      for (Index first = 0; first < length; first += tile) {
        const Index rows = std::min(tile, length - first), head = h * length * width;
        Real* const out = o + head + first * width;
        std::fill(m.begin(), m.end(), -std::numeric_limits<Real>::infinity());
        std::fill(l.begin(), l.end(), Real{0});
        const Index end = is_causal ? first + rows : length;
        for (Index key = 0; key < end; key += key_tile) {
          const Index keys = std::min(key_tile, end - key), offset = head + key * width;
          multiply(true, rows, keys, width, scale, q + head + first * width, width, k + offset, width,
                   Real{0}, s.data(), key_tile);
          for (Index i = 0; i < rows; ++i) {
            const Index seen = is_causal ? std::clamp<Index>(first + i + 1 - key, 0, keys) : keys;
            const auto n = static_cast<std::size_t>(i);
            const Real rescale = soften(kernels, &s[n * key_tile], seen, keys, m[n], l[n]);
            for (Index e = 0; key > 0 && e < width; ++e) out[i * width + e] *= rescale;
          }
          multiply(false, rows, width, keys, Real{1}, s.data(), key_tile, v + offset, width,
                   key > 0 ? Real{1} : Real{0}, out, width);
        }
        for (Index i = 0; i < rows; ++i) {
          const Real inverse = 1 / l[static_cast<std::size_t>(i)];
          for (Index e = 0; e < width; ++e) out[i * width + e] *= inverse;
        }
      }
    }
  }
}

template void blas_attention(const float*, const float*, const float*, float*, Index, Index, Index, bool,
                             tiled::Level);
template void blas_attention(const double*, const double*, const double*, double*, Index, Index, Index, bool,
                             tiled::Level);

}  // namespace attest::bench
