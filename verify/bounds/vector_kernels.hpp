// The inner loops of the bounds, written with vectors, compiled once per instruction set level and chosen at
// run time.
#pragma once

#include <span>

#include "verify/bounds/lanes.hpp"

namespace attest::bounds {

/// Of products t = a[d] b[d, j], for every key j: sums over d.
struct ProductArrays {
  double* sum;         // of t
  double* magnitude;   // of |t|
  double* squares;     // of t^2
  double* prefix;      // of the squares of the running sums
  double* prefix_sum;  // of the running sums
};

/// Sums over the keys of one attention row, for `lanes` neighbouring columns of V.
struct alignas(64) ValueBlock {
  // with x = v
  double o[lanes];               // sum p x
  double magnitude[lanes];       // sum p |x|
  double squares[lanes];         // sum p^2 x^2
  double prefix[lanes];          // sum of the squares of the running sums of o
  double prefix_sum[lanes];      // sum of these running sums
  double store[lanes];           // sum of the weights' rounding bounds times |x|
  double store_variance[lanes];  // sum of their variances times x^2
  double tiny[lanes];            // sum of p x over weights that may vanish
  double predicted[3][lanes];    // sums of predicted rounding errors times x
  // with x = v - o: a common error of all weights cancels in the normalisation
  double worst[lanes];         // sum p (e^delta - 1) |x|
  double spread[lanes];        // sum p |x|
  double second_order[lanes];  // sum p variance |x|
  double variance[lanes];      // sum p^2 variance x^2
  double scale[lanes];         // sum p tangent x
  double coherent[lanes];      // sum p sqrt(variance) |x|
};

/// Keys of one attention row in the sums with x = v: entries of the arrays of Weights, and each key's row of
/// V.
struct ValueKeys {
  const double* const* v;
  const double *p, *store, *store_variance,
      *predicted[3];  // p alone where nothing is rounded: all others null
  double vanishing;   // weights below this are tiny
};
/// And in those with x = v - o.
struct CentredKeys {
  const double* const* v;
  const double *p, *growth, *variance, *tangent, *spread;  // spread null: coherent is not needed
};

/// Ways to store a factor of which a contract leaves the choice to the kernel.
inline constexpr int store_variants = 4;

/// A number that the device computed before it multiplies a vector with it. All 0 where there is none.
struct Factor {
  double value = 0;                        // exact
  double worst = 0;                        // rigorous bound of its error, its store included
  double variance = 0;                     // of the part of its error that averages out
  double systematic = 0;                   // the part that does not
  double spread = 0;                       // the square root of the variance
  double rest = 0;                         // the variance if the rounding of its store were known
  double predicted[store_variants] = {0};  // that rounding's error, for each way to store it
};

/// Sums of factors times vectors x, for `lanes` neighbouring elements; t = value x.
struct alignas(64) TermBlock {
  double value[lanes], magnitude[lanes], squares[lanes], prefix[lanes], prefix_sum[lanes];  // of t
  double worst[lanes], systematic[lanes], spread[lanes];                                    // times |x|
  double variance[lanes], rest[lanes];                                                      // times x^2
  double predicted[store_variants][lanes];                                                  // times x
};

/// Arrays of doubles are padded to multiples of `lanes`. The bits of results depend on whether the level has
/// fused multiply-adds, and on nothing else.
struct VectorKernels {
  /// y = e^x, at least 2^-1022, and e^x - 1 for x >= 0, to 4 2^-53 relative; both infinite for x > 709.
  void (*exp)(const double* x, double* y, Index n);
  void (*expm1)(const double* x, double* y, Index n);

  /// For keys [first, last) and those that share a group of `lanes` with them; d < n, b: [keys / lanes, n,
  /// lanes].
  void (*product_sums)(const double* a, Index n, const double* b, Index first, Index last,
                       const ProductArrays& sums);

  /// Add `count` keys to the sums with x = v, and to those with x = v - o.
  void (*add_values)(ValueBlock* sums, Index blocks, const ValueKeys& keys, Index count);
  void (*add_centred)(ValueBlock* sums, Index blocks, const CentredKeys& keys, Index count);

  /// Add `count` terms; vector n is vectors[n * blocks * lanes] ...
  void (*add_terms)(TermBlock* sums, Index blocks, const Factor* factors, const double* vectors, Index count);
};

/// Those that the machine can run, and the fastest of them, which is the last.
std::span<const VectorKernels* const> available_vector_kernels();
const VectorKernels& vector_kernels();

}  // namespace attest::bounds
