// What is said of packed sequences that are not kept apart.
#include "tests/catch.hpp"
#include "tests/emulate/honest_attention.hpp"
#include "tests/emulate/judged.hpp"
#include "tests/emulate/packed.hpp"

namespace {

using namespace attest;
using namespace attest::emulate;

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

TEST_CASE("packed sequences of very different lengths are diagnosed, whichever comes first") {
  for (const bool long_first : {true, false}) {
    Setup setup;
    setup.queries = 2, setup.keys = 9017;
    Case c = dump_of(setup, honest_kernels(DType::float16)[0].kernel, false, {"o"});
    for (auto* tensors : {&c.in, &c.out})
      for (auto& [name, tensor] : *tensors) tensor = packed(tensor);
    c.spec["layout"] = "thd";
    c.in["cu_seqlens_q"] = {"int64", {}, {3}, {0, 1, 2}};
    c.in["cu_seqlens_k"] = {"int64", {}, {3}, {0, long_first ? 9000. : 17., 9017}};
    const CaseFindings findings = judged(c);
    CHECK(findings.verdict == Verdict::fail);
    CHECK_FALSE(findings.diagnosis.empty());
  }
}

TEST_CASE("packed sequences whose keys begin elsewhere are named") {
  struct Misread {
    std::string cause;
    Index first[2], last[2];  // of the keys of two sequences, [0, 40) and [40, 80), as the kernel reads them
  };
  for (const Misread& misread :
       {Misread{"keys of packed sequences begin one too early", {0, 39}, {40, 80}},
        Misread{"keys of packed sequences begin one too late", {1, 41}, {40, 80}},
        Misread{"keys of packed sequences end one too late", {0, 40}, {41, 80}},
        Misread{"keys of another packed sequence: the one after", {40, 40}, {80, 80}}}) {
    for (const Causal causal : {Causal::none, Causal::bottom_right}) {
      Setup setup;
      setup.q_heads = 2, setup.kv_heads = 1;
      setup.queries = setup.keys = 80;
      setup.spec.causal = causal;
      const Kernel kernel = honest_kernels(DType::float16)[0].kernel;
      Case c = inputs_of(setup, kernel.p_dtype);
      c.in.erase("do");
      Case answer = c;
      store(answer, run(kernel, setup.spec, views_of(c), {}, setup.element), {"o", "lse"}, setup.element,
            kernel.p_dtype);
      for (Index s = 0; s < 2; ++s) {
        AttentionInputs in = views_of(c);
        in.q = in.q.narrowed(1, 40 * s, 40);
        const Index first = misread.first[s], keys = misread.last[s] - first;
        in.k = in.k.narrowed(1, first, keys);
        in.v = in.v.narrowed(1, first, keys);
        const Results part = run(kernel, setup.spec, in, {}, setup.element);
        for (Index h = 0; h < 2; ++h) {
          std::copy_n(&part.o[h * 40 * 32], 40 * 32, &answer.out.at("o").values[(h * 80 + 40 * s) * 32]);
          std::copy_n(&part.lse[h * 40], 40, &answer.out.at("lse").values[h * 80 + 40 * s]);
        }
      }
      for (auto* tensors : {&answer.in, &answer.out})
        for (auto& [name, tensor] : *tensors) tensor = packed(tensor);
      answer.spec["layout"] = "thd";
      answer.in["cu_seqlens_q"] = answer.in["cu_seqlens_k"] = {"int64", {}, {3}, {0, 40, 80}};
      CHECK(first_cause(answer) == misread.cause);
    }
  }
}

TEST_CASE("o of sequences of unequal lengths that is off by a factor is not taken for some keys") {
  Setup setup;
  setup.queries = 32, setup.keys = 68;
  const Kernel kernel = honest_kernels(DType::float16)[0].kernel;
  Case c = inputs_of(setup, kernel.p_dtype);
  c.in.erase("do");
  store(c, run(kernel, setup.spec, views_of(c), {}, setup.element), {"o", "lse"}, setup.element,
        kernel.p_dtype);
  const Index first_key[] = {0, 20, 68}, heads = setup.q_heads, width = setup.v_width;
  for (Index s = 0; s < 2; ++s) {
    AttentionInputs in = views_of(c);
    in.q = in.q.narrowed(1, 16 * s, 16);
    const Index keys = first_key[s + 1] - first_key[s];
    in.k = in.k.narrowed(1, first_key[s], keys);
    in.v = in.v.narrowed(1, first_key[s], keys);
    const Results part = run(kernel, setup.spec, in, {}, setup.element);
    for (Index h = 0; h < heads; ++h) {
      std::copy_n(&part.lse[h * 16], 16, &c.out.at("lse").values[h * 32 + 16 * s]);
      for (Index n = 0; n < 16 * width; ++n)
        c.out.at("o").values[(h * 32 + 16 * s) * width + n] =
            round_to(1.25 * part.o[h * 16 * width + n], setup.element);
    }
  }
  for (auto* tensors : {&c.in, &c.out})
    for (auto& [name, tensor] : *tensors) tensor = packed(tensor);
  c.spec["layout"] = "thd";
  c.in["cu_seqlens_q"] = {"int64", {}, {3}, {0, 16, 32}};
  c.in["cu_seqlens_k"] = {"int64", {}, {3}, {0, 20, 68}};
  CHECK(first_cause(c) == "o multiplied by 1.25");
}
