// Rows of attention that another reading of the inputs gives: what a kernel may have read in place of what it
// should.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "verify/ops/attention/explanations.hpp"

namespace attest {

/// One way to read the inputs: what a row is formed from, or nothing if that is not there.
struct Reading {
  std::string name;  // behind what is read: "in/mask of row 0"
  std::function<std::optional<AttentionInputs>(const AttentionRow&)> inputs;
};

/// Are nearly all of o, and lse, what they would be with these inputs?
bool gives(const AttentionInputs& in, const AttentionRow& row);

/// Of all rows a few, evenly spread.
std::vector<AttentionRow> few_of(std::span<const AttentionRow> rows);

/// The first reading that gives nearly all rows for which there is one.
std::vector<DiagnosisEntry> first_reading(std::span<const AttentionRow> rows,
                                          std::span<const Reading> readings);

/// What each row reads, where this differs: some reading gives it. Names: "that of row 3 of head 1".
std::vector<DiagnosisEntry> readings_of_each(const AttentionCase& attention,
                                             std::span<const AttentionRow> rows,
                                             std::span<const Reading> readings, const std::string& what);

/// Which of the sequences it is.
Index sequence_of(const AttentionCase& attention, const AttentionRow& row);
/// More than one sequence, one after another in the same tensors.
bool is_packed(const AttentionCase& attention);

/// "batch entry", or "sequence" of packed ones.
std::string entry_text(const AttentionCase& attention);
/// " of batch entry 1", or nothing if there is but one.
std::string of_entry_text(const AttentionCase& attention, Index n);

}  // namespace attest
