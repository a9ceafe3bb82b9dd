// Sums over the keys of one attention row, for every column of V: what the bounds of o are made of.
#pragma once

#include <vector>

#include "verify/bounds/lanes.hpp"
#include "verify/bounds/weights.hpp"

namespace attest::bounds {

struct ValueSums {
  struct Block {  // of `lanes` neighbouring columns
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

  std::vector<Block> blocks;

  void compute(const Weights& w, const Head& head, const Arithmetic& arithmetic);

 private:
  /// One key's coefficients.
  struct Key {
    const double* v;
    double p, store, store_variance, tiny, predicted[3];
    double worst, second_order, variance, scale, coherent;
  };
  static void add_values(Block& block, const Key* keys, Index count, Index column);
  static void add_centred(Block& block, const Key* keys, Index count, Index column);

  std::vector<Key> keys_;
};

}  // namespace attest::bounds
