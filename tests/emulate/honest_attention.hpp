// Attention kernels that are right, and cases for them that have every feature.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "tests/emulate/cases.hpp"

namespace attest::emulate {

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

/// One of 64 columns without options.
inline Setup plain_setup(DType element, Index queries, Index keys, Index q_heads, Index kv_heads) {
  Setup setup;
  setup.element = element;
  setup.queries = queries, setup.keys = keys;
  setup.width = setup.v_width = 64;
  setup.q_heads = q_heads, setup.kv_heads = kv_heads;
  return setup;
}

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
