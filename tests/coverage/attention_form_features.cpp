// Features of attention: layouts, outputs beside o, and element types.
#include "tests/coverage/attention_arithmetic.hpp"
#include "tests/coverage/attention_features.hpp"

namespace attest::coverage {
namespace {

Tensor rounded(const Tensor& tensor, DType dtype) {
  Tensor t = blank(dtype, tensor.shape);
  for (const double x : tensor.values) t.values.push_back(round_to(x, dtype));
  return t;
}

}  // namespace

void AttentionFeatures::add_layouts() {
  const AttentionExtents n{2, 4, 2, 9, 11, 8, 6};
  const auto causal = [](Case& c) { c.spec["causal"] = "bottom_right"; };
  for (const char* layout : {"bshd", "sbhd", "bsm", "sbm"}) {
    add(std::string("layout = ") + layout, causal, n, layout);
  }
  add(
      "layout = bshd, lse in its order",
      [](Case& c) {
        c.out["lse"].shape = {2, 9, 4};
      },
      n, "bshd");
  add(
      "layout = bshd, as many heads as rows",
      [](Case& c) {
        c.out["m"] = blank(DType::float32, {2, 4, 4, 3});
      },
      {2, 4, 2, 4, 11, 8, 6}, "bshd");
  add(
      "layout = sbm, lse in its order",
      [](Case& c) {
        c.out["lse"].shape = {9, 2, 4};
      },
      n, "sbm");
  add(
      "layout = sbhd with past keys",
      [this](Case& c) {
        set_past(c, {3, 2, 2, 8}, {3, 2, 2, 6});
      },
      n, "sbhd");
  add(
      "layout = bsm with past keys and key lengths",
      [this](Case& c) {
        set_past(c, {2, 3, 16}, {2, 3, 12});
        c.in["kv_lengths"] = integers({2}, {10, 14});
      },
      n, "bsm");
  const auto pack = [](Case& c) {
    c.in["cu_seqlens_q"] = integers({5}, {0, 4, 4, 9, 13});
    c.in["cu_seqlens_k"] = integers({5}, {0, 6, 9, 11, 11});
    c.out["lse"].shape = {4, 13};
  };
  const AttentionExtents packed{1, 4, 2, 13, 11, 8, 6};
  add("layout = thd, sequences of 4, 0, 5 and 4 rows", pack, packed, "thd");
  add(
      "layout = thd, causal, ALiBi, lse in its order",
      [&](Case& c) {
        pack(c);
        c.spec["causal"] = "bottom_right";
        c.out["lse"].shape = {13, 4};
        set_slopes(c, {4, 4});
      },
      packed, "thd");
}

void AttentionFeatures::add_statistics() {
  add("lse in base 2", [](Case& c) { c.spec["lse_base"] = "2"; });
  add("row maximum and row sum", [](Case& c) { c.out["m"] = c.out["l"] = c.out["lse"]; });
  add("row maximum and row sum in 8 copies", [](Case& c) {
    c.out["m"] = c.out["l"] = blank(DType::float32, {2, 3, 9, 8});
  });
  add("row maximum and row sum with a sink", [this](Case& c) {
    set_sink(c, 3);
    c.out["m"] = c.out["l"] = c.out["lse"];
  });
  add("scores and weights", [this](Case& c) {
    c.out["s"] = blank(DType::float32, {2, 3, 9, 11});
    c.out["p"] = blank(element_, {2, 3, 9, 11});
    c.spec["causal"] = "top_left";
    c.in["kv_lengths"] = integers({2}, {8, 11});
  });
  const auto empty_statistics = [this](Case& c, const char* empty_row) {
    set_mask_with_empty_row(c);
    c.spec["empty_row"] = empty_row;
    c.out["m"] = c.out["l"] = c.out["lse"];
    c.out["s"] = blank(DType::float32, {2, 3, 9, 11});
    c.out["p"] = blank(element_, {2, 3, 9, 11});
  };
  for (const char* empty_row : {"zero", "nan", "mean_v"}) {
    add(std::string("statistics, scores and weights of empty rows, ") + empty_row,
        [=](Case& c) { empty_statistics(c, empty_row); });
  }
  add("scores and weights with past keys", [this](Case& c) {
    set_past(c, {2, 3, 4, 8});
    c.out["s"] = blank(DType::float32, {2, 3, 9, 15});
    c.out["p"] = blank(element_, {2, 3, 9, 15});
  });
  add("forward only", [](Case& c) {
    c.in.erase("do");
    for (const char* name : {"dq", "dk", "dv"}) c.out.erase(name);
  });
}

void AttentionFeatures::add_types() {
  add("q, k and v in float8_e4m3fn", [this](Case& c) {
    for (const char* name : {"q", "k", "v"}) {
      Tensor& t = c.in.at(name);
      t = rounded(t, DType::float8_e4m3fn);
    }
    c.contract["p_dtype"] = std::string(format_of(element_).name);
  });
  add("everything in float64", [](Case& c) {
    for (auto* tensors : {&c.in, &c.out}) {
      for (auto& [name, t] : *tensors) t = rounded(t, DType::float64);
    }
  });
  for (const DeclaredArithmetic& x : attention_arithmetic()) add(x.name, x);
  const auto declared = [this](const std::string& name, const char* key, const Attribute& value) {
    add(name, [=](Case& c) { c.contract[key] = value; });
  };
  declared("half of q stored before the first product", "q_factor", 0.5);  // exactly
  declared("half of k stored before the backward pass", "backward_k_factor", 0.5);
  add("a softcap with tanh within 1e-4", [](Case& c) {
    c.spec["softcap"] = 1.5;
    c.contract["tanh_error"] = 1e-4;
  });
}

}  // namespace attest::coverage
