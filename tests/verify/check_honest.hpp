// What every kernel that keeps its contract must show.
#pragma once

#include <map>
#include <string>

#include "tests/catch.hpp"
#include "tests/emulate/judged.hpp"

namespace attest::emulate {

/// No element exceeds its bound, and the case passes unless its inputs cannot tell.
inline void check_honest(const Case& c, bool must_pass, std::map<std::string, Worst>& worst) {
  const CaseFindings findings = judged(c);
  INFO(summary(findings));
  CHECK(findings.verdict != Verdict::fail);
  if (must_pass) CHECK(findings.verdict == Verdict::pass);
  for (const OutputFindings& o : findings.outputs) {
    CHECK(o.worst_ratio <= 1);
    CHECK(o.worst_rigorous_ratio <= 1);
    worst[o.name].take(o);
  }
}

}  // namespace attest::emulate
