// The vector kernels of one instruction set level. This file is compiled once for each: see tiled/simd.hpp.
// Contraction to fused multiply-adds is on: the sums only bound or describe errors, except for o and the
// gradients, whose certified error counts one rounding or two alike.
#include "tiled/simd.hpp"
#include "verify/bounds/vector_kernels.hpp"

namespace attest::bounds::ATTEST_TILED_LEVEL {
namespace {

namespace simd = tiled::ATTEST_TILED_LEVEL;
using simd::load, simd::store, simd::broadcast;
using V = simd::Vector<double>;
constexpr Index w = simd::lanes<double>;  // a divisor of bounds::lanes

ATTEST_ALWAYS_INLINE V magnitude(V x) {
  return (V)((simd::Integers<double>)x & 0x7fffffffffffffff);
}

/// e^x = power (1 + f p) with |f| <= 1/2: Cody and Waite's reduction, whose first product is exact.
ATTEST_ALWAYS_INLINE simd::Exp2Parts<double> exp_parts(V x) {
  constexpr double shift = 0x1.8p52 + 1023, log2_e = 0x1.71547652b82fep0;
  constexpr double ln2_high = 0x1.62e42fefa38p-1, ln2_low = 0x1.ef35793c7673p-45;
  const V shifted = x * log2_e + shift;
  const V power = (V)((simd::Integers<double>)shifted << 52);
  const V n = shifted - shift;
  const V f = ((x - n * ln2_high) - n * ln2_low) * log2_e;
  using P = simd::Exp2Polynomial<double>;
  V p = broadcast(P::c[P::terms - 1]);
#pragma GCC unroll 16
  for (int k = P::terms - 2; k >= 0; --k) p = p * f + P::c[k];
  return {power, f, p};
}

void exp(const double* x, double* y, Index n) {
  const V lowest = broadcast(-0x1.6232bdd7abcd4p9), infinite = broadcast(simd::infinity<double>);
  for (Index i = 0; i < n; i += w) {
    const V z = load(x + i);
    const auto [power, f, p] = exp_parts(z < lowest ? lowest : z);
    const V result = (p * f + 1.0) * power;
    store(y + i, z > 709.0 ? infinite : result);
  }
}

void expm1(const double* x, double* y, Index n) {
  const V infinite = broadcast(simd::infinity<double>);
  for (Index i = 0; i < n; i += w) {
    const V z = load(x + i);
    const auto [power, f, p] = exp_parts(z);
    const V result = p * f * power + (power - 1.0);
    store(y + i, z > 709.0 ? infinite : result);
  }
}

/// Sums for `vectors` vectors of keys, in registers.
struct Products {
  V sum{}, magnitude{}, squares{}, prefix{}, prefix_sum{};

  ATTEST_ALWAYS_INLINE void add(V t) {
    sum += t;
    magnitude += bounds::ATTEST_TILED_LEVEL::magnitude(t);
    squares += t * t;
    prefix += sum * sum;
    prefix_sum += sum;
  }
  ATTEST_ALWAYS_INLINE void write(const ProductArrays& to, Index j) const {
    store(to.sum + j, sum);
    store(to.magnitude + j, magnitude);
    store(to.squares + j, squares);
    store(to.prefix + j, prefix);
    store(to.prefix_sum + j, prefix_sum);
  }
};

/// Two vectors at a time hide the latency of the sums. Key j is lane j % lanes of block j / lanes.
template <int vectors>
ATTEST_ALWAYS_INLINE void product_sums_of(const double* a, Index n, const double* b, Index j,
                                          const ProductArrays& to) {
  const double* source[vectors];
  Products sums[vectors];
  for (int x = 0; x < vectors; ++x) {
    const Index key = j + x * w;
    source[x] = b + key / lanes * lanes * n + key % lanes;
  }
  for (Index d = 0; d < n; ++d) {
#pragma GCC unroll 2
    for (int x = 0; x < vectors; ++x) sums[x].add(a[d] * load(source[x] + d * lanes));
  }
  for (int x = 0; x < vectors; ++x) sums[x].write(to, j + x * w);
}

void product_sums(const double* a, Index n, const double* b, Index first, Index last,
                  const ProductArrays& sums) {
  Index j = first / lanes * lanes;
  last = padded(last);
  for (; j + w < last; j += 2 * w) product_sums_of<2>(a, n, b, j, sums);
  for (; j < last; j += w) product_sums_of<1>(a, n, b, j, sums);
}

/// Calls f(block, column in the block, column) for each vector of columns.
template <class F>
ATTEST_ALWAYS_INLINE void for_columns(Index blocks, const F& f) {
  for (Index b = 0; b < blocks; ++b) {
    for (Index e = 0; e < lanes; e += w) f(b, e, b * lanes + e);
  }
}

template <bool is_rounded>
void add_values_of(ValueBlock* blocks, Index count_of_blocks, const ValueKeys& keys, Index count) {
  for_columns(count_of_blocks, [&](Index b, Index e, Index column) ATTEST_INLINE_LAMBDA {
    ValueBlock& s = blocks[b];
    V o = load(s.o + e), prefix = load(s.prefix + e), prefix_sum = load(s.prefix_sum + e),
      size = load(s.magnitude + e), squares = load(s.squares + e), stored = load(s.store + e),
      store_variance = load(s.store_variance + e),
      predicted[3] = {load(s.predicted[0] + e), load(s.predicted[1] + e), load(s.predicted[2] + e)};
    for (Index n = 0; n < count; ++n) {
      const V x = load(keys.v[n] + column), t = keys.p[n] * x;
      o += t;
      prefix += o * o;
      prefix_sum += o;
      size += magnitude(t);
      squares += t * t;
      if constexpr (is_rounded) {
        stored += keys.store[n] * magnitude(x);
        store_variance += keys.store_variance[n] * (x * x);
        for (int k = 0; k < 3; ++k) predicted[k] += keys.predicted[k][n] * x;
      }
    }
    store(s.o + e, o);
    store(s.prefix + e, prefix);
    store(s.prefix_sum + e, prefix_sum);
    store(s.magnitude + e, size);
    store(s.squares + e, squares);
    store(s.store + e, stored);
    store(s.store_variance + e, store_variance);
    for (int k = 0; k < 3; ++k) store(s.predicted[k] + e, predicted[k]);
  });
}

void add_tiny(ValueBlock* blocks, Index count_of_blocks, const double* v, double p) {
  for_columns(count_of_blocks, [&](Index b, Index e, Index column) ATTEST_INLINE_LAMBDA {
    store(blocks[b].tiny + e, load(blocks[b].tiny + e) + p * load(v + column));
  });
}

void add_values(ValueBlock* blocks, Index count_of_blocks, const ValueKeys& keys, Index count) {
  (keys.store ? add_values_of<true> : add_values_of<false>)(blocks, count_of_blocks, keys, count);
  for (Index n = 0; n < count; ++n) {
    if (keys.p[n] < keys.vanishing) add_tiny(blocks, count_of_blocks, keys.v[n], keys.p[n]);
  }
}

template <bool with_coherent>
void add_centred_of(ValueBlock* blocks, Index count_of_blocks, const CentredKeys& keys, Index count) {
  for_columns(count_of_blocks, [&](Index b, Index e, Index column) ATTEST_INLINE_LAMBDA {
    ValueBlock& s = blocks[b];
    const V o = load(s.o + e);
    V worst = load(s.worst + e), spread = load(s.spread + e), second_order = load(s.second_order + e),
      variance = load(s.variance + e), scale = load(s.scale + e), coherent = load(s.coherent + e);
    for (Index n = 0; n < count; ++n) {
      const V t = keys.p[n] * (load(keys.v[n] + column) - o), size = magnitude(t);
      worst += keys.growth[n] * size;
      spread += size;
      second_order += keys.variance[n] * size;
      variance += keys.variance[n] * (t * t);
      scale += keys.tangent[n] * t;
      if constexpr (with_coherent) coherent += keys.spread[n] * size;
    }
    store(s.worst + e, worst);
    store(s.spread + e, spread);
    store(s.second_order + e, second_order);
    store(s.variance + e, variance);
    store(s.scale + e, scale);
    store(s.coherent + e, coherent);
  });
}

void add_centred(ValueBlock* blocks, Index count_of_blocks, const CentredKeys& keys, Index count) {
  (keys.spread ? add_centred_of<true> : add_centred_of<false>)(blocks, count_of_blocks, keys, count);
}

void add_terms(TermBlock* blocks, Index count_of_blocks, const Factor* factors, const double* vectors,
               Index count) {
  const Index stride = count_of_blocks * lanes;
  for_columns(count_of_blocks, [&](Index b, Index e, Index column) ATTEST_INLINE_LAMBDA {
    TermBlock& s = blocks[b];
    V value = load(s.value + e), size = load(s.magnitude + e), squares = load(s.squares + e),
      prefix = load(s.prefix + e), prefix_sum = load(s.prefix_sum + e), worst = load(s.worst + e),
      variance = load(s.variance + e), systematic = load(s.systematic + e), spread = load(s.spread + e),
      rest = load(s.rest + e), predicted[store_variants];
    for (int k = 0; k < store_variants; ++k) predicted[k] = load(s.predicted[k] + e);
    for (Index n = 0; n < count; ++n) {
      const Factor& f = factors[n];
      const V x = load(vectors + n * stride + column), x_size = magnitude(x), square = x * x, t = f.value * x;
      value += t;
      size += magnitude(t);
      squares += t * t;
      prefix += value * value;
      prefix_sum += value;
      worst += f.worst * x_size;
      variance += f.variance * square;
      rest += f.rest * square;
      systematic += f.systematic * x_size;
      spread += f.spread * x_size;
      for (int k = 0; k < store_variants; ++k) predicted[k] += f.predicted[k] * x;
    }
    store(s.value + e, value);
    store(s.magnitude + e, size);
    store(s.squares + e, squares);
    store(s.prefix + e, prefix);
    store(s.prefix_sum + e, prefix_sum);
    store(s.worst + e, worst);
    store(s.variance + e, variance);
    store(s.rest + e, rest);
    store(s.systematic + e, systematic);
    store(s.spread + e, spread);
    for (int k = 0; k < store_variants; ++k) store(s.predicted[k] + e, predicted[k]);
  });
}

}  // namespace

extern const VectorKernels kernels;
constinit const VectorKernels kernels = {exp, expm1, product_sums, add_values, add_centred, add_terms};

}  // namespace attest::bounds::ATTEST_TILED_LEVEL
