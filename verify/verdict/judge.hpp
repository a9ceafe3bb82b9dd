// Whether a pass counts: wrong answers must not have passed on the same case.
#pragma once

#include <span>

#include "verify/findings.hpp"
#include "verify/op.hpp"

namespace attest {

/// Sets the verdict of the case and of its outputs. A failed output fails the case. Otherwise the case is
/// inconclusive, with a reason, if zeros would pass for one of its outputs, or if a decoy that differs from
/// the right answer would pass for every output that it changes. Subtle decoys only add a remark.
void judge(CaseFindings& findings, std::span<const Expected> expected, std::span<const Decoy> decoys);

}  // namespace attest
