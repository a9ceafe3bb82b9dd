// Vectors on their way between registers and memory that is too large for the caches.
#pragma once

#include <immintrin.h>

#include "tiled/simd.hpp"

namespace attest::tiled::ATTEST_TILED_LEVEL {

/// The first `count` of a vector's elements in memory; what is missing reads as 0.
template <class Real>
ATTEST_ALWAYS_INLINE Vector<Real> load_part(const Real* p, Index count) {
  alignas(vector_bytes) Real part[lanes<Real>] = {};
  for (Index n = 0; n < count; ++n) part[n] = p[n];
  return load(part);
}
template <class Real>
ATTEST_ALWAYS_INLINE void store_part(Real* p, Vector<Real> x, Index count) {
  alignas(vector_bytes) Real part[lanes<Real>];
  store(part, x);
  for (Index n = 0; n < count; ++n) p[n] = part[n];
}

/// Past the caches; p is a multiple of vector_bytes.
template <class Real>
ATTEST_ALWAYS_INLINE void stream(Real* p, Vector<Real> x) {
#if ATTEST_TILED_VECTOR_BYTES == 64
  _mm512_stream_si512(reinterpret_cast<__m512i*>(p), (__m512i)x);
#elif ATTEST_TILED_VECTOR_BYTES == 32
  _mm256_stream_si256(reinterpret_cast<__m256i*>(p), (__m256i)x);
#else
  _mm_stream_si128(reinterpret_cast<__m128i*>(p), (__m128i)x);
#endif
}
template <bool streams, class Real>
ATTEST_ALWAYS_INLINE void put(Real* p, Vector<Real> x) {
  if constexpr (streams) {
    stream(p, x);
  } else {
    store(p, x);
  }
}
/// What was streamed becomes visible to other threads before anything that is stored later.
template <bool streams>
ATTEST_ALWAYS_INLINE void end_streams() {
  if constexpr (streams) _mm_sfence();
}
template <class Real>
ATTEST_ALWAYS_INLINE bool is_aligned(const Real* p) {
  return reinterpret_cast<std::uintptr_t>(p) % vector_bytes == 0;
}
template <class Real>
ATTEST_ALWAYS_INLINE bool is_whole_vectors(Index count) {
  return count % lanes<Real> == 0;
}

/// Fetches the line that lies `bytes` beyond x, which may be any address, into the first or the second cache.
/// Processors fetch ahead by themselves, but not across the end of a page.
template <int cache, class Real>
ATTEST_ALWAYS_INLINE void prefetch(const Real* x, Index bytes) {
  __builtin_prefetch(reinterpret_cast<const char*>(x) + bytes, 0, 4 - cache);
}

}  // namespace attest::tiled::ATTEST_TILED_LEVEL
