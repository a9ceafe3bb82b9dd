// The rope problem of a case: its exact values and bounds, the check of ours and wrong answers.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "core/array.hpp"
#include "verify/op.hpp"
#include "verify/ops/rope/case.hpp"
#include "verify/ops/rope/sample.hpp"

namespace attest {

/// y from x, or dx from dy.
struct RopeDirection {
  std::string output, input;
  bool backward;
};
inline const RopeDirection rope_directions[] = {{"y", "x", false}, {"dx", "dy", true}};

/// What ref is asked for in one row: the right answer, or a wrong one.
struct RopeQuestion {
  RopeSpec spec;
  Index table_shift = 0;  // rows, of a table
  double position_shift = 0;
  double sin_sign = 1;
  bool turns = true;
};

class RopeProblem : public Problem {
 public:
  explicit RopeProblem(const Case& c);

  std::string contract() const override;
  std::vector<Expected> expect(const ProgressFunction& progress) override;
  void recheck(std::span<const Expected> expected) const override;
  std::vector<Decoy> decoys(std::span<const Expected> expected) const override;
  std::vector<Decoy> alternatives(std::span<const Expected> expected) const override;
  std::vector<DiagnosisEntry> explanations(std::span<const Expected> expected) const override;

 private:
  using Rows = std::vector<Index>;

  /// The whole call by other options or arithmetic.
  std::vector<Decoy> other_rules(const Expected& expected, const RopeDirection& direction) const;
  std::vector<Decoy> misreadings(const RopeSample& sample, const RopeDirection& direction) const;
  /// Of a table that was made with other exponents than the one that was dumped.
  std::vector<Decoy> other_tables(const RopeSample& sample, const RopeDirection& direction) const;

  /// Wrong rows at other positions, which are fitted to them; nothing if they stand nowhere.
  std::vector<Decoy> rows_elsewhere(const Expected& expected, const RopeDirection& direction) const;
  /// Other rows, heads or batch entries of the input, and other orders of the axes.
  std::vector<Decoy> other_reads(const Expected& expected, const RopeDirection& direction) const;
  /// Pairs that turn by the cosine or sine of others, and pairs of other columns.
  std::vector<Decoy> pairs_elsewhere(const Expected& expected, const RopeDirection& direction) const;
  /// Inverse frequencies as fitted to the pairs that are wrong.
  std::vector<Decoy> frequencies_found(const Expected& expected, const RopeDirection& direction) const;
  /// Those that are what a right kernel computes.
  void drop_right_answers(const Expected& expected, const RopeDirection& direction,
                          std::vector<Decoy>& answers) const;
  std::vector<DiagnosisEntry> columns_not_copied(const Expected& expected,
                                                 const RopeDirection& direction) const;
  /// Cosines and sines that are slightly off.
  std::vector<DiagnosisEntry> approximations(const Expected& expected, const RopeDirection& direction) const;
  /// Inverse frequencies by other arithmetic than the spec's.
  std::vector<Decoy> other_frequencies(const Expected& expected, const RopeSample& sample,
                                       const RopeDirection& direction) const;

  bounds::RopeArithmetic arithmetic(const RopeDirection& direction) const;
  Rows sample() const;
  /// cos and sin of one row as ref has them, [1, W].
  void table_row(const bounds::CandidateChoice& choice, const RopeQuestion& question, Index row,
                 Array<double, 2>& cos, Array<double, 2>& sin) const;
  /// Calls take(flat index of column 0, answer[D]) for every head of a row.
  void answer(const RopeDirection& direction, const bounds::CandidateChoice& choice,
              const RopeQuestion& question, Index row,
              const std::function<void(Index, const std::vector<double>&)>& take) const;
  double largest_coefficient(Index row) const;
  double reference_error(Index row, Index k) const;
  void recheck_frequencies() const;
  bool tells_positions_apart(Index row, Index k) const;

  const Case& case_;
  RopeCase rope_;
  DType compute_;
  double angle_error_, sincos_error_;                       // as declared, or 0
  Array<long double, 1> inv_freq_;                          // ref's; empty for a table
  std::map<std::string, bounds::CandidateChoice> choices_;  // by output
};

}  // namespace attest
