// One key/value head laid out for the bounds' inner loops, and the sums over products that both passes need.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "core/attention.hpp"
#include "verify/bounds/arithmetic.hpp"
#include "verify/bounds/vector_kernels.hpp"

namespace attest::bounds {

enum class Pass { forward, backward, scores_only };

/// Contiguous copies of the keys and values of one head, each in the order in which a loop of the pass reads
/// it, the others empty. Rows are padded with zeros to a multiple of `lanes`.
struct Head {
  Head(const AttentionInputs& in, Index kv_head, Pass pass);

  Index keys, qk_width, v_width;
  Lanes k_columns;            // by column, `lanes` keys at a time: [Sk / lanes, D, lanes]
  Lanes v;                    // forward: [Sk, E]
  Lanes k;                    // backward: [Sk, D]
  Lanes v_columns;            // backward: [Sk / lanes, E, lanes]
  std::vector<double> v_max;  // [E]: largest |v| of each column
  bool keys_repeat;  // more than an eighth of the keys have a twin: their score errors are the same, not
                     // independent

  const double* k_row(Index j) const { return &k[j * padded(qk_width)]; }
  const double* v_row(Index j) const { return &v[j * padded(v_width)]; }
};

/// Rows of which many may have a twin.
class RepeatedRows {
 public:
  void add(const double* row, Index width);
  /// Do more than an eighth of them have one?
  bool are_many() const;

 private:
  std::vector<std::uint64_t>
      marks_;  // of the rows: the same for the same numbers, and hardly ever for others
};

/// For every key j of [first, last): sums over d of t = a[d] b[d, j].
struct ProductSums {
  Lanes sum;         // of t
  Lanes magnitude;   // of |t|
  Lanes squares;     // of t^2
  Lanes prefix;      // of the squares of the running sums
  Lanes prefix_sum;  // of the running sums

  /// b is [keys / lanes, n, lanes], as in Head.
  void compute(const double* a, Index n, const double* b, Index keys, Index first, Index last);
  /// Variance and mean of the accumulation error of entry j, and the mean square of its running sums.
  double variance(Index j, Index n, const SumError& error) const {
    return error.variance(running(j, n), squares[j]);
  }
  double truncation(Index j, Index n, const SumError& error) const;
  double running(Index j, Index n) const;
};

struct HeadErrors;
struct InheritedProducts;

/// Scores of one query row and their errors, for the keys of [first, last); s = -inf where masked.
struct ScoreRow {
  Index first, last;
  Lanes s;         // the scores
  Lanes slope;     // d s / d (scale q.k), 1 without softcap
  Lanes tangent;   // d s / d ln(scale): scale q.k slope
  Lanes error;     // rigorous bound of the error of s
  Lanes variance;  // of the rounding noise of s
  Lanes slope_error;
  Lanes drift;             // systematic error that q and k bring along, with its sign
  double inherited_worst;  // the largest error that they bring along; both 0 where they are exact
  double capped = 0;       // largest magnitude that the softcap gave; 0 without
  ProductSums products;

  bool is_masked(Index j) const {
    return j < first || j >= last || s[j] == -std::numeric_limits<double>::infinity();
  }

  /// Row i of query head h; one object has rows of one spec.
  void compute(const AttentionSpec& spec, const AttentionInputs& in, const Head& head,
               const Arithmetic& arithmetic, Index h, Index i);

  /// The same in three steps, of which the second is for several rows: they read K together.
  void locate(const AttentionSpec& spec, const AttentionInputs& in, const Head& head, Index h, Index i);
  static void multiply(std::span<ScoreRow* const> rows, const Head& head);
  void bound(const AttentionSpec& spec, const AttentionInputs& in, const Head& head,
             const Arithmetic& arithmetic, const HeadErrors* errors = nullptr);

 private:
  Index head_index, row;
  std::vector<double> q;

  void scale_products(double scale, const Arithmetic& arithmetic, Index terms, Index width);
  void inherit(const InheritedProducts& inherited, double scale, const Arithmetic& arithmetic, Index width);
  void apply_softcap(double softcap, const Arithmetic& arithmetic);
  void store(int times, const Arithmetic& arithmetic);

  std::vector<double> inherited_error;  // rigorous bounds of what q and k bring along
};

}  // namespace attest::bounds
