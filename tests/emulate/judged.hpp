// Judging cases in memory.
#pragma once

#include <omp.h>

#include <algorithm>
#include <string>
#include <string_view>

#include "core/invalid_case.hpp"
#include "verify/text.hpp"
#include "verify/verdict/verify_case.hpp"

namespace attest::emulate {

/// In one thread: these cases are too small to share. test_bounds_backward.cpp compares numbers of threads.
inline CaseFindings judged(const Case& c, const Wanted& wanted = {}) {
  const int threads = omp_get_max_threads();
  omp_set_num_threads(1);
  Progress progress;
  const CaseFindings findings = verify_case(c, progress, wanted);
  omp_set_num_threads(threads);
  return findings;
}

inline const OutputFindings& output(const CaseFindings& findings, std::string_view name) {
  return *std::find_if(findings.outputs.begin(), findings.outputs.end(),
                       [&](const OutputFindings& o) { return o.name == name; });
}

/// "fail: o 1.2 of 0.3 at [0, 1, 2, 3], lse ...": verdict, ratios to both bounds, worst elements.
inline std::string summary(const CaseFindings& findings) {
  std::string text{name_of(findings.verdict)};
  for (const OutputFindings& o : findings.outputs) {
    text +=
        ", " + o.name + " " + ratio_text(o.worst_ratio) + " of " + ratio_text(o.worst_rigorous_ratio) + " at";
    for (const Index n : o.at) text += " " + std::to_string(n);
    for (const Statistic& x : o.statistics)
      if (x.exceeds()) text += ", " + x.name + " " + exact_text(x.value) + " of " + exact_text(x.limit);
  }
  for (const std::string& reason : findings.reasons) text += ", " + reason;
  return text;
}

/// What a failure is called first; why there is none otherwise.
inline std::string first_cause(const Case& c) {
  const CaseFindings findings = judged(c);
  if (findings.verdict != Verdict::fail) return "no failure: " + summary(findings);
  return findings.diagnosis.empty() ? "none" : findings.diagnosis[0].cause;
}

/// What is wrong with a case that cannot be judged.
inline std::string message_of(const Case& c) {
  try {
    judged(c);
  } catch (const InvalidCase& e) {
    return e.what();
  }
  return "no complaint";
}

/// Largest ratios of one output over many cases.
struct Worst {
  double ratio = 0, rigorous = 0;
  void take(const OutputFindings& o) {
    ratio = std::max(ratio, o.worst_ratio);
    rigorous = std::max(rigorous, o.worst_rigorous_ratio);
  }
};

}  // namespace attest::emulate
