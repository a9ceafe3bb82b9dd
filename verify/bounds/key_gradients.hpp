// dk and dv of the keys of one head, with their bounds, from query rows that come in blocks.
#pragma once

#include <cstdint>
#include <vector>

#include "verify/bounds/contraction.hpp"
#include "verify/bounds/expected_view.hpp"
#include "verify/bounds/head.hpp"

namespace attest::bounds {

/// Gradients of the keys or values of one head, summed over the query heads that share it. A device may run
/// all of them through one accumulator, or store each head's share in the element type and add these up.
/// Equation (19).
class GroupSums {
 public:
  GroupSums(const Arithmetic& arithmetic, double scale, Index keys, Index width, Index group);

  /// Terms of query rows, in the order of these. A key belongs to one thread.
  void add(Index key, Index count, const Factor* factors, const double* vectors);

  /// After the last of the `rows` rows of a query head.
  void finish_head(Index rows, bool rows_repeat, DType dtype);

  /// Element d of a key, after the last head; all heads had `rows` rows together.
  Estimate result(Index key, Index d, Index rows, bool rows_repeat) const;

 private:
  const Arithmetic& arithmetic_;
  double scale_;
  Index keys_, width_, group_;
  Contraction all_heads_, one_head_;
  std::vector<Estimate> shares_;  // without their value
};

/// Both of them. The same bits however the rows are cut into blocks.
class KeyGradients {
 public:
  /// dk, dv: [Hkv, keys, D or E]; either may be empty, and then is not computed.
  KeyGradients(const AttentionSpec& spec, const Contract& contract, Index group, const ExpectedView<3>& dk,
               const ExpectedView<3>& dv);
  KeyGradients(const KeyGradients&) = delete;
  KeyGradients& operator=(const KeyGradients&) = delete;

  Index keys() const { return dk_ ? dk_.extent(1) : dv_ ? dv_.extent(1) : 0; }
  ExpectedView<3> dk() const { return dk_; }
  ExpectedView<3> dv() const { return dv_; }
  GroupSums& dk_sums() { return dk_sums_; }
  GroupSums& dv_sums() { return dv_sums_; }

  /// Counts the next rows of a query head, q as Head has its rows, whose terms dk_sums() and dv_sums() take.
  void count_rows(const Lanes& q, Index rows, Index width);
  void finish_head();
  /// Writes what all of them come to for key/value head g.
  void finish(Index g);

 private:
  void write(const ExpectedView<3>& output, const GroupSums& sums, Index g) const;

  const Arithmetic arithmetic_;
  const ExpectedView<3> dk_, dv_;
  GroupSums dk_sums_, dv_sums_;
  RepeatedRows repeated_;     // of q, in the present query head
  bool rows_repeat_ = false;  // in any of them
  Index rows_ = 0, rows_of_head_ = 0;
};

}  // namespace attest::bounds
