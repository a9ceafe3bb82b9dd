// What is said of packed sequences that are not kept apart.
#include "tests/catch.hpp"
#include "tests/emulate/judged.hpp"

namespace {

using namespace attest;
using namespace attest::emulate;

/// [1, H, S, ...] as [S, H, ...].
Tensor packed(const Tensor& t) {
  Tensor result = t;
  const Index heads = t.shape[1], rows = t.shape[2], width = t.shape.size() == 4 ? t.shape[3] : 1;
  result.shape = {rows, heads};
  if (t.shape.size() == 4) result.shape.push_back(width);
  for (Index h = 0; h < heads; ++h)
    for (Index i = 0; i < rows; ++i)
      for (Index e = 0; e < width; ++e)
        result.values[(i * heads + h) * width + e] = t.values[(h * rows + i) * width + e];
  return result;
}

}  // namespace

TEST_CASE("packed sequences that see each other's keys are named") {
  for (const Causal causal : {Causal::none, Causal::top_left, Causal::bottom_right}) {
    Setup setup;
    setup.q_heads = 2, setup.kv_heads = 1;
    setup.queries = setup.keys = 80;
    setup.spec.causal = causal;
    const Case whole = dump_of(setup, honest_kernels(DType::float16)[0].kernel, false, {"o", "lse"});
    Case c = whole;
    for (auto* tensors : {&c.in, &c.out})
      for (auto& [name, tensor] : *tensors) tensor = packed(tensor);
    c.spec["layout"] = "thd";
    Tensor starts{"int64", {}, {2}, {0, 80}};
    c.in["cu_seqlens_q"] = c.in["cu_seqlens_k"] = starts;
    CHECK(judged(c).verdict == Verdict::pass);
    starts.shape = {4}, starts.values = {0, 32, 32, 80};
    c.in["cu_seqlens_q"] = c.in["cu_seqlens_k"] = starts;
    CHECK(first_cause(c) == "packed sequences not kept apart: keys of the others take weight");
  }
}
