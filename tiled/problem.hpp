// One query head of an attention problem, and the table of functions that an instruction set level offers for
// it. No inline functions here but templates that are always inlined: see simd.hpp.
#pragma once

#include "core/attention.hpp"

namespace attest::tiled {

/// A matrix of any layout. data is null if it was not given.
template <class Real>
struct Matrix {
  Real* data;
  Index columns, row_stride, column_stride;

  __attribute__((always_inline)) Real* at(Index i, Index j) const {
    return data + i * row_stride + j * column_stride;
  }
};

template <class Real>
struct Column {
  Real* data;
  Index stride;

  __attribute__((always_inline)) Real* at(Index i) const { return data + i * stride; }
};

template <class Real>
struct Head {
  AttentionSpec spec;
  Index queries, keys;
  Index first_diagonal;     // of query row 0
  Matrix<const Real> q;     // [Sq, D]
  Matrix<const Real> k;     // [Sk, D]
  Matrix<const Real> v;     // [Sk, E]
  Matrix<const Real> mask;  // [Sq, Sk]; optional
  Matrix<const Real> bias;  // [Sq, Sk]; optional
  const Real* alibi_slope;  // optional
  const Real* sink;         // optional
};

/// Where the forward pass writes; what is null is not written.
template <class Real>
struct ForwardHead {
  Matrix<Real> o;          // [Sq, E]
  Column<Real> lse, m, l;  // [Sq]
};

/// O is divided by the row sums once, at the end (FlashAttention-2), or is kept normalised after every tile
/// of keys (FlashAttention-1).
enum class Normalisation { deferred, per_step };

/// Rows [first_row, first_row + rows) against one of `parts` shares of the keys that they see.
struct RowTask {
  Index first_row, rows;
  Index part = 0, parts = 1;
  Normalisation normalisation = Normalisation::deferred;
};

/// What the backward pass reads and writes; gradients that are null are not written.
template <class Real>
struct BackwardHead {
  Matrix<const Real> o, d_o;  // [Sq, E]
  Column<const Real> lse;     // [Sq]
  Matrix<Real> dq;            // [Sq, D]
  Matrix<Real> ds;            // [Sq, Sk]
  Column<Real> delta;         // [Sq]
};

/// Rows of one task and how many tasks a head has. The last task takes the rows that are left.
struct RowTiles {
  Index rows, count;
};

template <class Real>
struct Kernels {
  RowTiles (*forward_tiles)(const Head<Real>&);
  Index (*forward_scratch)(const Head<Real>&);  // elements, aligned to 64 bytes
  Index (*forward_parts)(const Head<Real>&, Index heads);
  void (*forward)(const Head<Real>&, const ForwardHead<Real>&, const RowTask&, Real* scratch);
  void (*write_empty_row)(const Head<Real>&, const ForwardHead<Real>&, Index row);

  RowTiles (*backward_tiles)(const Head<Real>&);
  Index (*backward_scratch)(const Head<Real>&);
  void (*backward)(const Head<Real>&, const BackwardHead<Real>&, Index first_row, Index rows, Real* dk,
                   Real* dv, Real* scratch);
  Index (*padded_columns)(const Matrix<const Real>&);  // of dk and dv: [Sk, padded columns]
  void (*add_part)(const Real* sum, Index rows, bool is_first, Real factor, const Matrix<Real>& out);

  // For tests: the elementary functions, on n elements, a multiple of 64.
  void (*exp2)(const Real* x, Real* y, Index n);
  void (*log2)(const Real* x, Real* y, Index n);
  void (*tanh)(const Real* x, Real* y, Index n);
  // For benchmarks: multiplies and adds in registers only, 2 * steps * returned value operations.
  Index (*multiply_add)(Index steps);
};

}  // namespace attest::tiled
