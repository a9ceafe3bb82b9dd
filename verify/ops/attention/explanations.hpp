// What a faulty attention kernel may have done, fitted to the errors of its rows.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/contract.hpp"
#include "verify/diagnosis/diagnose.hpp"
#include "verify/findings.hpp"
#include "verify/ops/attention/rows.hpp"
#include "verify/ops/weighted_sums.hpp"

namespace attest {

/// Keys split among workers, and what these write before it is merged in a narrower format, or merged in
/// another base.
std::vector<DiagnosisEntry> wrong_merge(std::span<const AttentionRow> rows, const Contract& contract);

/// A scale that is off by the same factor everywhere.
std::vector<DiagnosisEntry> wrong_scale(std::span<const AttentionRow> rows);

/// An lse that is off by the same number or factor in all rows, where o is right.
std::vector<DiagnosisEntry> wrong_lse(std::span<const AttentionRow> rows);

/// A softcap or a sink that the dump does not declare, or a softcap of another number.
std::vector<DiagnosisEntry> undeclared_options(std::span<const AttentionRow> rows);

/// Sinks of other numbers than the declared ones.
std::vector<DiagnosisEntry> wrong_sinks(std::span<const AttentionRow> rows);

/// A window or a causal diagonal that ends elsewhere than declared, in the forward pass and in dq.
std::vector<DiagnosisEntry> wrong_reach(std::span<const AttentionRow> rows);
struct SavedForBackward;
std::vector<DiagnosisEntry> wrong_reach_of_gradients(const AttentionCase& attention,
                                                     std::span<const SavedForBackward> saved,
                                                     const Expected& dq);

/// ALiBi of other distances than the declared ones.
std::vector<DiagnosisEntry> wrong_alibi(const AttentionCase& attention, std::span<const AttentionRow> rows);

/// ALiBi of other slopes than the declared ones.
std::vector<DiagnosisEntry> wrong_alibi_slopes(std::span<const AttentionRow> rows);

/// Keys of zeros that take weight, in each batch entry as many as it has.
std::vector<DiagnosisEntry> keys_of_zeros(const AttentionCase& attention, std::span<const AttentionRow> rows);

/// Pages of keys that are read in place of others.
std::vector<DiagnosisEntry> wrong_pages(std::span<const AttentionRow> rows);

/// Rows of o that are divided by the row sum of another row, or of part of the keys.
std::vector<DiagnosisEntry> wrong_row_sums(std::span<const AttentionRow> rows);

/// Rows of K or V of some keys that are those of another tile of keys.
std::vector<DiagnosisEntry> stale_rows(std::span<const AttentionRow> rows);

/// Rows that see keys which they should not, or miss some, each row others.
std::vector<DiagnosisEntry> wrong_visibility(const AttentionCase& attention,
                                             std::span<const AttentionRow> rows);

/// Rows of in/mask, in/bias or q that are read in place of a row's own.
std::vector<DiagnosisEntry> wrong_row_reads(const AttentionCase& attention,
                                            std::span<const AttentionRow> rows);

/// K or V of a row read from another batch entry, head or address.
std::vector<DiagnosisEntry> wrong_key_reads(const AttentionCase& attention,
                                            std::span<const AttentionRow> rows);

/// Keys that are missing, counted more than once or weighted wrongly, and rows of K or V that are not those
/// of their key.
std::vector<DiagnosisEntry> wrong_keys(std::span<const AttentionRow> rows);

/// Rows of o, dq, dk or dv that hold what belongs into other rows.
std::vector<DiagnosisEntry> misplaced_rows(const AttentionCase& attention, const Expected& expected);

/// A fault with a number that is fitted has a freedom that others do not have.
inline constexpr double preference_for_constants = 0.9, least_explained_if_fitted = 0.95;

/// A fault has to explain so much more than one that is simpler.
inline constexpr double least_gain = 0.03;

/// Of independent candidates the one, with the name of its fault, that explains most of the errors; of those
/// as good, the first.
template <class Candidate, class Explained>
std::vector<DiagnosisEntry> likeliest(const std::vector<Candidate>& candidates, const Explained& explained) {
  if (candidates.empty()) return {};
  std::vector<double> shares(candidates.size());
#pragma omp parallel for schedule(dynamic, 1)
  for (std::size_t n = 0; n < candidates.size(); ++n) shares[n] = explained(candidates[n]);
  std::size_t best = 0;
  for (std::size_t n = 1; n < candidates.size(); ++n)
    if (shares[n] > shares[best] + least_gain) best = n;
  const double most = shares[best];
  return {{candidates[best].fault, most,
           "a kernel that does so would make " + percent(most) +
               " of the errors beyond what the contract explains"}};
}

/// Where errors that follow no known pattern come from: before the weights, after them, or their sum.
std::vector<DiagnosisEntry> unknown_noise(std::span<const AttentionRow> rows, bool o_fails, bool lse_fails);

/// An element is beyond its bound, or a statistic beyond its limit.
bool has_failed(const Expected& e);

/// Terms of dq, dk and dv that are missing or counted twice, and the narrow arithmetic of their sums.
std::vector<DiagnosisEntry> wrong_gradients(const AttentionCase& attention,
                                            std::span<const SavedForBackward> saved, const Contract& contract,
                                            std::span<const Expected> expected);

/// Where errors of gradients that follow no known pattern come from.
std::vector<DiagnosisEntry> unknown_noise_of_gradients(const Contract& contract,
                                                       std::span<const Expected> expected);

/// Of a failed case, the likeliest first. saved: empty without gradients.
std::vector<DiagnosisEntry> explain_attention(const AttentionCase& attention,
                                              std::span<const SavedForBackward> saved,
                                              const std::optional<WeightStore>& store,
                                              const Contract& contract, DType element,
                                              std::span<const Expected> expected);

/// Sums of squares of (dumped - answer) / sigma, over elements, for the exact answer and for another.
struct Fit {
  double exact = 0, other = 0, distance = 0;  // distance: of the two answers
  double elements = 0;

  /// replayed_in: the type in which answers are stored that are exact before; none if stored operands are not
  /// known.
  void add(double got, double want, double answer, double sigma, std::optional<DType> replayed_in = {});
  Fit operator+(const Fit& other) const;

  /// Are the two answers far enough from each other?
  bool tells() const;

  /// Share of the errors that the other answer explains. What a kernel that keeps the contract errs anyhow
  /// needs no explanation.
  double explained() const;
  /// This output speaks against an answer that others speak for.
  bool denies() const;
  /// By which factor the distance between the answers has to be multiplied to fit best; 0 if it is too small.
  double slope() const;
};

}  // namespace attest
