// A second multi-head attention, slow and independent of ref: whole matrices of long double, inputs and
// weights with the biases as one more column, and one output projection a head.
#pragma once

#include <vector>

#include "core/array.hpp"
#include "core/view.hpp"

namespace attest::oracle {

/// One sequence; numbers of rows and columns are those of the views. Optional views are empty.
struct MultiheadProblem {
  View<const double, 2> query, key, value;      // [Sq, M], [Sk, M], [Sk, M]
  View<const double, 2> in_weight, out_weight;  // [3M, M], [M, M]
  View<const double, 1> in_bias, out_bias;      // [3M], [M]; optional
  View<const double, 3> mask;                   // [H, Sq, Sk]; optional
  Index heads;
  double scale;
  /// Row i sees keys j <= i + offset; a large offset is no limit.
  Index causal_offset;
};

struct Multihead {
  Array<long double, 2> y;        // [Sq, M]; rows that see no key have o = 0
  Array<long double, 3> weights;  // [H, Sq, Sk]
  /// |ref - exact| for a reference that adds up in double, in any order: first-order error analysis, doubled.
  Array<long double, 2> y_error;
  Array<long double, 3> weights_error;
};
Multihead multihead_attention(const MultiheadProblem& problem);

}  // namespace attest::oracle
