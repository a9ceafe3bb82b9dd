// The softmax problem of a case: rows along one axis, whatever the rank.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ref/softmax.hpp"
#include "verify/op.hpp"

namespace attest {

struct SoftmaxRow;
struct SoftmaxVariant;

class SoftmaxProblem : public Problem {
 public:
  /// Throws InvalidCase where spec, shapes or values do not fit together. The case must outlive this object.
  explicit SoftmaxProblem(const Case& c);

  std::string contract() const override;
  std::vector<std::string> remarks() const override;
  std::vector<Expected> expect(const ProgressFunction& progress) override;
  void recheck(std::span<const Expected> expected) const override;
  std::vector<Decoy> decoys(std::span<const Expected> expected) const override;
  std::vector<Decoy> alternatives(std::span<const Expected> expected) const override;
  std::vector<DiagnosisEntry> explanations(std::span<const Expected> expected) const override;

 private:
  /// How wrong answers differ from the right ones.
  struct Variant {
    ref::SoftmaxSpec spec;
    double base = 0;                          // of the exponential, as its logarithm; 0: e
    bool ignores_mask = false;                // scores that are absent count as 0
    bool is_uniform = false;                  // equal weights
    bool drops_sum = false;                   // dx = y dy
    double lse_factor = 1, lse_offset_m = 0;  // lse = factor (lse - offset m)
  };

  void read_spec();
  void read_shapes();
  void check_values() const;
  const Tensor& given() const;  // x

  Index rows() const { return outer_ * inner_; }
  /// [outer, N, inner] over an array that is shaped like x.
  template <class T>
  View<T, 3> like_x(T* data) const {
    return {data, {outer_, n_, inner_}};
  }
  /// [outer, R, inner] over an array that is shaped like lse: x without its axis, or R copies there.
  template <class T>
  View<T, 3> like_rows(T* data, const Tensor& tensor) const {
    return {data, {outer_, rows() > 0 ? tensor.size() / rows() : 0, inner_}};
  }
  View<const double, 3> mask() const;
  static View<const double, 1> column(View<const double, 3> view, Index o, Index i) {
    return view ? View<const double, 1>{&view(o, 0, i), {view.extent(1)}, {view.stride(1)}}
                : View<const double, 1>{};
  }
  /// Evenly spread rows, and as many of those with a wrong element.
  std::vector<Index> telling_rows(std::span<const Expected> expected, Index wanted) const;
  /// Columns that a row sum, or that of a gradient, has lost.
  std::vector<DiagnosisEntry> lost_columns(std::span<const Expected> expected) const;
  /// An exp whose errors follow the fraction of its exponent.
  std::vector<DiagnosisEntry> coarse_exp(std::span<const Expected> expected) const;
  /// Softmax along the other axes of x, for y.
  std::vector<Decoy> other_axes() const;
  /// Row sums, or sums of dy y, that lack columns, hold parts of other rows, or round parts.
  std::vector<Decoy> partial_sums(const std::vector<Index>& some_rows) const;
  /// Maxima and row sums of threads that are merged wrongly.
  std::vector<Decoy> merged_sums(const std::vector<Index>& some_rows) const;
  /// Row sums of threads that rescale or round them wrongly.
  std::vector<Decoy> thread_sums(const std::vector<Index>& some_rows) const;
  /// x or masks of other rows.
  std::vector<Decoy> other_reads(const std::vector<Index>& some_rows) const;
  std::vector<Decoy> rows_of_mask(const std::vector<Index>& some_rows) const;
  std::vector<Decoy> rows_of_x(const std::vector<Index>& some_rows) const;

  /// One row of x, mask (empty if there is none), dy (likewise) or an output that is shaped like x.
  std::vector<double> row_of(View<const double, 3> tensor, Index row) const;
  std::vector<double> row_of_output(const std::string& output, Index row) const;
  SoftmaxRow computed(const SoftmaxVariant& variant, Index row, double sum = 0) const;
  /// A row sum relative to the row's maximum, and how far rounding may have moved it.
  struct RowSum {
    double value, tolerance;
  };
  /// Scores of a row, masked ones -inf.
  std::vector<double> scores_of(Index row) const;
  /// What a wrong row's outputs imply that its sum was; nothing for rows that are right, or special.
  std::optional<RowSum> implied_sum(const SoftmaxRow& right, Index row) const;
  /// Are m, l and lse of a row, as far as they were dumped, these? And y?
  bool has_statistics_of(const SoftmaxRow& candidate, Index row) const;
  bool has_weights_of(const SoftmaxRow& candidate, Index row) const;
  /// The same of the sum of dy y that dx implies in some chunks of 32 columns (all if none are named), and
  /// the right one.
  struct Dot {
    double right, value, tolerance;
  };
  std::optional<Dot> implied_dot(const SoftmaxRow& right, Index row, const std::vector<bool>& chunks) const;
  /// Sums, or parts of them, that are those of rows before or further on.
  std::vector<Decoy> parts_of_other_rows(const std::vector<Index>& some_rows) const;
  std::vector<Decoy> dots_of_other_rows(const std::vector<Index>& some_rows) const;
  /// What a kernel would have written that computes these rows so; rows with l = 0 are left out.
  std::vector<Decoy> answers(const std::string& name, std::string_view only, bool is_of_whole_call,
                             const std::vector<Index>& some_rows,
                             const std::function<SoftmaxRow(Index)>& computed_row) const;

  /// What ref says of a sample of rows: one entry per output that the case holds.
  std::vector<Decoy> sampled_answers(const std::string& name, const Variant& variant) const;
  /// Is the row one whose result the contract's format makes special: overflow, or a lost sum?
  bool may_be_special(Index o, Index i) const;

  const Case& case_;
  ref::SoftmaxSpec spec_{};
  DType compute_ = DType::float32;
  Index outer_ = 1, n_ = 1, inner_ = 1;
  std::vector<double> mask_;  // broadcast to the shape of x; empty if there is none
};

}  // namespace attest
