// Judging cases in memory, and the kernels that tests run on them.
#pragma once

#include <omp.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "core/invalid_case.hpp"
#include "tests/faults/fault.hpp"
#include "verify/text.hpp"
#include "verify/verify_case.hpp"

namespace attest::emulate {

/// In one thread: these cases are too small to share. test_bounds_backward.cpp compares numbers of threads.
inline CaseFindings judged(const Case& c) {
  const int threads = omp_get_max_threads();
  omp_set_num_threads(1);
  Progress progress;
  const CaseFindings findings = verify_case(c, progress);
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

struct NamedKernel {
  std::string name;
  Kernel kernel;
};

/// Kernels that keep the contract of the element type, as different from each other as possible. Sums are
/// those of tensor cores where operands have 16 bits.
inline std::vector<NamedKernel> honest_kernels(DType element) {
  const bool has_tensor_core = format_of(element).bits <= 16;
  const Adder matrix{has_tensor_core ? Adder::Kind::tensor_core : Adder::Kind::blocked};
  std::vector<NamedKernel> kernels;
  const auto add = [&](const std::string& name, auto change) {
    NamedKernel& k = kernels.emplace_back(NamedKernel{name, {}});
    k.kernel.p_dtype = element;
    change(k.kernel);
  };
  add("deferred normalisation, tile 64", [&](Kernel& k) {
    k.tile = 64;
    k.qk = k.pv = matrix;
  });
  add("deferred normalisation, tile 16, last tile first", [&](Kernel& k) {
    k.tile = 16;
    k.reversed = true;
    k.qk = k.pv = matrix;
  });
  add("normalised every tile, sequential sums", [&](Kernel& k) { k.algorithm = Algorithm::flash1; });
  add("whole rows, blocked sums, dS from stored P, delta before o is stored", [&](Kernel& k) {
    k.algorithm = Algorithm::standard;
    k.qk.kind = k.pv.kind = Adder::Kind::blocked;
    k.ds_from_stored_p = true, k.delta_of = DeltaOf::computed_o;
  });
  add("split keys, scaled dS, gradients per head", [&](Kernel& k) {
    k.tile = 16;
    k.splits = 3;
    k.qk = k.pv = matrix;
    k.ds_is_scaled = k.stores_gradients_per_head = true;
  });
  return kernels;
}

/// Largest ratios of one output over many cases.
struct Worst {
  double ratio = 0, rigorous = 0;
  void take(const OutputFindings& o) {
    ratio = std::max(ratio, o.worst_ratio);
    rigorous = std::max(rigorous, o.worst_rigorous_ratio);
  }
};

/// Setups that have every feature at least once, small.
inline std::vector<Setup> setups_with_features(DType element) {
  std::vector<Setup> setups;
  const auto add = [&](auto change) {
    Setup& s = setups.emplace_back();
    s.element = element;
    s.width = s.v_width = 24;
    s.spec.scale = 0.2;
    s.queries = 40;
    s.keys = 65;
    s.seed = setups.size();
    change(s);
  };
  add([](Setup& s) { s.spec.causal = Causal::top_left; });
  add([](Setup& s) { s.spec.causal = Causal::bottom_right; });
  add([](Setup& s) {  // rows 0 to 24 are empty
    s.spec.causal = Causal::bottom_right;
    std::swap(s.queries, s.keys);
  });
  add([](Setup& s) { s.spec.window_left = 9, s.spec.window_right = 4; });
  add([](Setup& s) { s.spec.softcap = 1.5; });
  add([](Setup& s) { s.spec.softcap = 30, s.has_alibi = true; });
  add([](Setup& s) { s.has_alibi = true; });
  add([](Setup& s) { s.has_sink = true; });
  add([](Setup& s) { s.has_mask = true; });
  add([](Setup& s) { s.has_mask = s.has_sink = true; });
  add([](Setup& s) { s.bias_shape = {1, 2, 40, 65}; });
  add([](Setup& s) { s.bias_shape = {1, 1, 1, 65}; });
  add([](Setup& s) { s.bias_shape = {1, 1, 40, 65}; });
  add([](Setup& s) { s.q_heads = 4; });
  add([](Setup& s) { s.q_heads = 3, s.kv_heads = 1, s.v_width = 40; });
  add([](Setup& s) { s.spec.scale = -0.2, s.spec.window_left = 20; });
  add([](Setup& s) {
    s.q_heads = 4, s.has_alibi = s.has_mask = true, s.spec.causal = Causal::bottom_right,
    s.spec.window_left = 30;
  });
  return setups;
}

}  // namespace attest::emulate
