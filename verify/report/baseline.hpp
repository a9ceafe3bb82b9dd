// Holds a run against an earlier one: has the error grown, though it is still inside the bounds?
// docs/baseline.md.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "verify/findings.hpp"

namespace attest {

/// What an earlier report says of the cases that passed.
class Baseline {
 public:
  Baseline() = default;

  /// A JSON report that this version wrote. Throws InvalidCase, which names the file, if it is anything else.
  static Baseline read(const std::string& path, std::string_view version);

  /// Sets `growth` of every output whose error grew, and the verdict of these and of the case. A case with
  /// other inputs, another contract or other outputs than the baseline's cannot be compared: it is
  /// inconclusive.
  void hold(CaseFindings& findings) const;

  /// Cases of the baseline that belong to one of the files and are not among `judged`: inconclusive.
  std::vector<CaseFindings> missing(std::span<const CaseFindings> judged) const;

  /// The same cases as a report, with `judged` added or in place of those of the same name.
  std::string with(std::span<const CaseFindings> judged, std::string_view version) const;

  const std::vector<CaseFindings>& cases() const { return cases_; }

 private:
  const CaseFindings* find(const CaseFindings& c) const;

  std::string path_;
  std::vector<CaseFindings> cases_;  // without what a comparison does not need
  std::vector<std::string> json_;    // of each of them
};

/// How far spread^2 moves if the same kernel adds up in tiles of another size or order: the standard
/// deviation over kernels, in units of what is predicted. Measured: docs/baseline.md, "Another order".
inline constexpr double order_effect = 0.014;

/// Figures of an output that grew by more than chance and another order of the same operations explain, at a
/// rate of false alarms of 1e-6. Empty if `before` and `now` have no figures in common, and for outputs in
/// float32 and float64, whose errors are those of the order.
std::vector<Growth> growth(const OutputFindings& before, const OutputFindings& now);

}  // namespace attest
