// What the kernels of double-double attention read and write, and the table of them that an instruction set
// level offers. No inline functions here: see simd.hpp.
#pragma once

#include "tiled/problem.hpp"

namespace attest::tiled {

/// hi + lo; what is null is not written, and is 0 where it is read.
struct WideMatrix {
  Matrix<double> hi, lo;
};
struct WideColumn {
  Column<double> hi, lo;
};

struct PreciseForwardHead {
  WideMatrix o;          // [Sq, E]
  WideColumn lse, m, l;  // [Sq]
  Matrix<double> o_error;
  Column<double> row_error;
};

/// Rows of a query head that the backward pass reads or leaves for itself.
struct PreciseRows {
  Matrix<const double> o_hi, o_lo, d_o;  // [Sq, E]
  Column<const double> lse_hi, lse_lo;   // [Sq]
  WideColumn delta;                      // [Sq]: do . o, with the sum of its terms' sizes
  Column<double> delta_magnitude;
};

struct PreciseQueryGradients {
  WideMatrix dq, ds;  // [Sq, D], [Sq, Sk]
  Matrix<double> dq_error, ds_error;
  WideColumn sink_term;  // [Sq]: -exp(sink - lse) delta
  Column<double> sink_error;
};

struct PreciseKeyGradients {
  WideMatrix dk, dv;  // [Sk, D], [Sk, E]
  Matrix<double> dk_error, dv_error;
};

struct PreciseKernels {
  Index panel;                         // rows of queries or of keys that a call takes at most
  Index (*scratch)(Index d, Index e);  // doubles, aligned to 64 bytes, for any of the functions
  void (*forward)(const Head<double>&, const PreciseForwardHead&, Index first_row, Index rows,
                  double* scratch);
  void (*backward_queries)(const Head<double>&, const PreciseRows&, const PreciseQueryGradients&,
                           Index first_row, Index rows, double* scratch);
  /// The heads share k and v.
  void (*backward_keys)(const Head<double>* heads, const PreciseRows* rows, Index head_count,
                        const PreciseKeyGradients&, Index first_key, Index keys, double* scratch);

  // For tests: on pairs of arrays of n elements, a multiple of 64.
  void (*exp)(const double* x_hi, const double* x_lo, double* y_hi, double* y_lo, Index n);
  void (*log)(const double* x_hi, const double* x_lo, double* y_hi, double* y_lo, Index n);
  void (*tanh)(const double* x_hi, const double* x_lo, double* y_hi, double* y_lo, Index n);
};

}  // namespace attest::tiled
