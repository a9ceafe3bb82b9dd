// Judging a large case by rows and keys drawn by chance: which, what parts of the tensors they need, and how
// likely they are to meet a fault. docs/rows.md.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "verify/case.hpp"
#include "verify/op.hpp"

namespace attest {

/// How many rows of each head are judged, and as many keys.
struct RowsWanted {
  std::optional<Index> count;  // of each head; nothing: as many as a minute allows
  bool all = false;
  std::uint64_t seed = 1;
};

/// One share of a case: a key/value head of a batch entry, and all query heads that read it.
struct RowPart {
  Index b, head;
  std::vector<Index> rows;       // of the sequence, ascending
  std::vector<Index> keys = {};  // of k, ascending: those whose dk and dv are judged
};

/// Rows of one of the query heads of a part, for sums over all rows.
struct RowBlock {
  Index head;  // of those that read the key/value head
  std::vector<Index> rows;
};

class RowSample {
 public:
  /// Of a case whose tensors may lack their values. Nothing if all of it is to be judged: it is small, its op
  /// or layout cannot be judged by rows, or no output has rows, or some have none and no number of rows is
  /// wanted.
  static std::optional<RowSample> of(const Op& op, const Case& c, const RowsWanted& wanted);

  const std::vector<RowPart>& parts() const { return parts_; }

  /// What the part has of tensor "in/name" or "out/name"; nothing for an output that has no rows.
  std::optional<Selection> selection(const RowPart& part, const std::string& path) const;
  /// What its keys need of it for a block of rows; nothing for what they do not need.
  std::optional<Selection> selection(const RowPart& part, const RowBlock& block,
                                     const std::string& path) const;
  /// Where the part's judged elements of an output are.
  Selection place(const RowPart& part, const std::string& output) const;

  /// Makes the tensors that selection() chose a case of their own.
  Case finished(Case selected, const RowPart& part) const;
  Case finished(Case selected, const RowPart& part, const RowBlock& block) const;

  /// The rows of a sequence, and the query heads that read a key/value head.
  Index sequence() const { return sequence_; }
  Index group() const { return q_heads_ / kv_heads_; }
  /// dk or dv is judged, of the parts' keys.
  bool judges_keys() const;

  /// The part's rows with others in place of those that are drawn from the same stretches.
  RowPart with_rows(RowPart part, const std::vector<Index>& rows) const;

  /// How many rows and keys are judged, and how likely it is that they meet faults of some sizes.
  std::string text() const;

  /// Outputs that are not judged, and why: a sentence each, or none.
  std::vector<std::string> not_judged() const;

 private:
  RowSample(const Op& op, const Case& c) : op_(op), case_(c) {}

  bool is_judged_by_keys(const std::string& output) const;
  std::optional<std::string> lacks(const std::string& gradient) const;
  template <class Pick>
  Selection picked(const std::string& path, const Pick& pick) const;

  const Op& op_;
  const Case& case_;
  Index batch_ = 1, q_heads_ = 1, kv_heads_ = 1, sequence_ = 1, keys_ = 1, past_ = 0, count_ = 1;
  std::uint64_t seed_ = 1;
  bool is_chosen_ = false;  // the number of rows, by us
  std::vector<RowPart> parts_;
};

/// The probability that `drawn` of `rows` rows or keys, one in each of as many equal stretches, meet one of
/// `faulty` rows: at least this, wherever the faulty rows are.
double meeting_probability(double faulty, double rows, double drawn);

}  // namespace attest
