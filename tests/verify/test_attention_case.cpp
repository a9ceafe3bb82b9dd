// Reading attention cases: layouts, lengths, broadcasting, and the messages about what does not fit.
#include "verify/ops/attention/case.hpp"

#include <cmath>
#include <limits>
#include <numbers>
#include <numeric>

#include "tests/catch.hpp"
#include "tests/emulate/honest_attention.hpp"
#include "tests/emulate/judged.hpp"

namespace {

using namespace attest;
using Catch::Matchers::Equals, test::Mentions;

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

/// Elements are numbered, so that a value says where it stood.
Tensor numbered(std::vector<Index> shape, DType dtype = DType::float64) {
  Tensor t{std::string(format_of(dtype).name), dtype, std::move(shape), {}};
  t.values.resize(t.size());
  std::iota(t.values.begin(), t.values.end(), 0.0);
  return t;
}

Tensor integers(const std::vector<double>& values) {
  return {"int64", std::nullopt, {static_cast<Index>(values.size())}, values};
}

Case case_of(std::map<std::string, Tensor> in, std::map<std::string, Tensor> out = {}) {
  Case c;
  c.file = "dump.h5";
  c.name = "one";
  c.op = "attention";
  c.spec = {{"causal", "none"}, {"scale", 0.5}};
  c.in = std::move(in);
  c.out = std::move(out);
  return c;
}

/// B 2, Hq 4, Hkv 2, Sq 3, Sk 5, D 6, E 7.
Case plain_case() {
  return case_of(
      {{"q", numbered({2, 4, 3, 6})}, {"k", numbered({2, 2, 5, 6})}, {"v", numbered({2, 2, 5, 7})}});
}

std::string message_of(const Case& c) {
  try {
    AttentionCase{c};
  } catch (const InvalidCase& e) {
    return e.what();
  }
  return "no complaint";
}

/// Flat index of [b, h, s, d] with these axes, outermost first.
Index flat(const std::string& axes, const std::map<char, Index>& sizes, std::map<char, Index> at) {
  Index n = 0;
  for (const char axis : axes) n = n * sizes.at(axis) + at.at(axis);
  return n;
}

}  // namespace

TEST_CASE("every layout gives the same views of the same problem") {
  const auto [name, axes, merges] = GENERATE(table<std::string, std::string, bool>({{"bhsd", "bhsd", false},
                                                                                    {"bshd", "bshd", false},
                                                                                    {"sbhd", "sbhd", false},
                                                                                    {"bsm", "bshd", true},
                                                                                    {"sbm", "sbhd", true}}));
  const auto tensor = [&, &axes = axes, &merges = merges](Index h, Index s, Index d) {
    const std::map<char, Index> sizes = {{'b', 2}, {'h', h}, {'s', s}, {'d', d}};
    std::vector<Index> shape;
    for (const char axis : axes) shape.push_back(sizes.at(axis));
    if (merges) shape = {shape[0], shape[1], shape[2] * shape[3]};
    return numbered(shape);
  };
  Case c = case_of({{"q", tensor(4, 3, 6)}, {"k", tensor(2, 5, 6)}, {"v", tensor(2, 5, 7)}},
                   {{"o", tensor(4, 3, 7)}});
  c.spec["layout"] = name;
  if (merges) {
    c.spec["heads_q"] = std::int64_t{4};
    c.spec["heads_kv"] = std::int64_t{2};
  }
  INFO(name);
  const AttentionCase a(c);
  REQUIRE(a.sequences.size() == 2);
  const auto check = [&, &axes = axes](View<const double, 3> view, Index b, Index h, Index s, Index d) {
    REQUIRE(view.extent(0) == h);
    REQUIRE(view.extent(1) == s);
    REQUIRE(view.extent(2) == d);
    for (Index n = 0; n < h * s * d; ++n) {
      const Index ih = n / (s * d), is = n / d % s, id = n % d;
      CHECK(view(ih, is, id) == static_cast<double>(flat(axes, {{'b', 2}, {'h', h}, {'s', s}, {'d', d}},
                                                         {{'b', b}, {'h', ih}, {'s', is}, {'d', id}})));
    }
  };
  for (Index b = 0; b < 2; ++b) {
    check(a.sequences[b].in.q, b, 4, 3, 6);
    check(a.sequences[b].in.k, b, 2, 5, 6);
    check(a.sequences[b].in.v, b, 2, 5, 7);
    check(a.like_o(c.out.at("o").values.data(), a.sequences[b]), b, 4, 3, 7);
  }
}

TEST_CASE("lse may lie as libraries return it or like o") {
  Case c =
      case_of({{"q", numbered({2, 3, 4, 6})}, {"k", numbered({2, 5, 2, 6})}, {"v", numbered({2, 5, 2, 7})}});
  c.spec["layout"] = "bshd";
  c.out["lse"] = numbered({2, 4, 3});
  const AttentionCase by_head(c);
  CHECK(by_head.like_rows(c.out["lse"].values.data(), c.out["lse"], by_head.sequences[1])(2, 1, 0) ==
        1 * 12 + 2 * 3 + 1);
  c.out["lse"] = numbered({2, 3, 4});
  const AttentionCase by_row(c);
  CHECK(by_row.like_rows(c.out["lse"].values.data(), c.out["lse"], by_row.sequences[1])(2, 1, 0) ==
        1 * 12 + 1 * 4 + 2);
  c.out["lse"] = numbered({4, 2, 3});
  CHECK_THAT(message_of(c), Mentions("dump.h5: /one/out/lse has shape [4, 2, 3]; [2, 4, 3] is expected: by "
                                     "spec layout, in/q has Hq = 4 heads of Sq = 3 rows"));
}

TEST_CASE("m and l may be repeated along a last axis, lse may not") {
  Case c = plain_case();
  c.out["m"] = numbered({2, 4, 3, 8});
  const AttentionCase a(c);
  const View<double, 3> m = a.like_rows(c.out["m"].values.data(), c.out["m"], a.sequences[1]);
  CHECK(m.extent(2) == 8);
  CHECK(m(3, 2, 7) == 2 * 4 * 3 * 8 - 1);
  c.out["lse"] = numbered({2, 4, 3, 8});
  CHECK_THAT(message_of(c), Mentions("/one/out/lse has shape [2, 4, 3, 8]; [2, 4, 3] is expected"));
}

TEST_CASE("every copy of m and l is judged") {
  emulate::Setup setup;
  const emulate::Kernel kernel = emulate::honest_kernels(setup.element)[0].kernel;
  Case c = emulate::dump_of(setup, kernel, false);
  for (const std::string name : {"m", "l"}) {
    Tensor& t = c.out.at(name);
    std::vector<double> copies;
    for (const double x : t.values) copies.insert(copies.end(), 4, x);
    t.values = copies;
    t.shape.push_back(4);
  }
  CHECK(emulate::judged(c).verdict == Verdict::pass);
  c.out.at("l").values[5] *= 1.01;
  const CaseFindings findings = emulate::judged(c);
  CHECK(findings.verdict == Verdict::fail);
  CHECK(emulate::output(findings, "l").at == std::vector<Index>{0, 0, 1, 1});
  CHECK(emulate::output(findings, "m").verdict == Verdict::pass);
}

TEST_CASE("lse in base 2 passes where the spec says so") {
  emulate::Setup setup;
  setup.has_mask = true;  // an empty row stays -inf
  const emulate::Kernel kernel = emulate::honest_kernels(setup.element)[0].kernel;
  Case c = emulate::dump_of(setup, kernel, true);
  for (double& x : c.out.at("lse").values) x = round_to(x * std::numbers::log2e, DType::float32);
  CHECK(emulate::judged(c).verdict == Verdict::fail);
  c.spec["lse_base"] = "2";
  CHECK(emulate::judged(c).verdict == Verdict::pass);
  c.spec["lse_empty"] = "+inf";
  CHECK(emulate::judged(c).verdict == Verdict::fail);
  for (double& x : c.out.at("lse").values) x = std::abs(x) == infinity ? infinity : x;
  CHECK(emulate::judged(c).verdict == Verdict::pass);
}

TEST_CASE("keys from kv_lengths on are absent and may hold anything") {
  Case c = plain_case();
  c.in["kv_lengths"] = integers({4, 0});
  Tensor& k = c.in["k"];
  for (Index g = 0; g < 2; ++g) {
    for (Index d = 0; d < 6; ++d) {
      k.values[(g * 5 + 4) * 6 + d] = not_a_number;
      for (Index j = 0; j < 5; ++j) k.values[((2 + g) * 5 + j) * 6 + d] = infinity;
    }
  }
  const AttentionCase a(c);
  CHECK(a.sequences[0].in.keys() == 4);
  CHECK(a.sequences[1].in.keys() == 0);
  CHECK(a.sequences[1].in.queries() == 3);

  c.in["kv_lengths"] = integers({5, 0});
  CHECK_THAT(message_of(c), Mentions("/one/in/k holds NaN at [0, 0, 4, 0]; finite values are expected"));
  c.in["kv_lengths"] = integers({4, 6});
  CHECK_THAT(message_of(c), Mentions("/one/in/kv_lengths[1] is 6; 0 to 5 keys are expected"));
  c.in["kv_lengths"] = integers({4});
  CHECK_THAT(message_of(c), Mentions("in/kv_lengths has B = 1, but in/q has B = 2"));
}

TEST_CASE("poisoned absent keys do not change a verdict") {
  emulate::Setup setup;
  setup.queries = 33;
  setup.keys = 50;
  const emulate::Kernel kernel = emulate::honest_kernels(setup.element)[0].kernel;
  Case c = emulate::dump_of(setup, kernel, true);
  // Ten more keys behind the fifty, all NaN; their gradients are 0.
  for (const std::string name : {"k", "v"}) {
    for (Tensor* t : {&c.in.at(name), &c.out.at("d" + name)}) {
      const double fill = t == &c.in.at(name) ? not_a_number : 0;
      std::vector<double> longer;
      const auto head = static_cast<std::ptrdiff_t>(50 * setup.width);
      for (auto at = t->values.begin(); at != t->values.end(); at += head) {
        longer.insert(longer.end(), at, at + head);
        longer.insert(longer.end(), 10 * setup.width, fill);
      }
      t->values = longer;
      t->shape[2] = 60;
    }
  }
  c.in["kv_lengths"] = integers({50});
  CHECK(emulate::judged(c).verdict == Verdict::pass);
  c.out.at("dk").values[55 * setup.width] = 0x1p-20;
  CHECK(emulate::judged(c).verdict == Verdict::fail);
}

TEST_CASE("the past stands before the new keys") {
  Case c = plain_case();
  c.in["past_k"] = numbered({2, 2, 3, 6});
  c.in["past_v"] = numbered({2, 2, 3, 7});
  const AttentionCase a(c);
  const AttentionInputs& in = a.sequences[1].in;
  CHECK(in.past == 3);
  CHECK(in.keys() == 8);
  CHECK(in.k(1, 2, 5) == 2 * 2 * 3 * 6 - 1);
  CHECK(in.k(1, 3, 0) == 3 * 5 * 6);
  CHECK(in.v(1, 7, 6) == 2 * 2 * 5 * 7 - 1);

  c.in["kv_lengths"] = integers({2, 7});
  const AttentionCase shorter(c);
  CHECK(shorter.sequences[0].in.past == 2);
  CHECK(shorter.sequences[0].in.keys() == 2);
  CHECK(shorter.sequences[1].in.keys() == 7);

  c.in.erase("past_v");
  CHECK_THAT(message_of(c), Mentions("in/past_k and in/past_v must be given together"));
  c.in["past_v"] = numbered({2, 2, 4, 7});
  CHECK_THAT(message_of(c), Mentions("in/past_v has Sp = 4, but in/past_k has Sp = 3"));
}

TEST_CASE("packed sequences begin where cu_seqlens says") {
  Case c = case_of({{"q", numbered({6, 4, 2})}, {"k", numbered({9, 2, 2})}, {"v", numbered({9, 2, 3})}},
                   {{"lse", numbered({4, 6})}});
  c.spec["layout"] = "thd";
  CHECK_THAT(message_of(c), Mentions("/one/in/cu_seqlens_q is missing; layout thd needs it"));
  c.in["cu_seqlens_q"] = integers({0, 4, 4, 6});
  c.in["cu_seqlens_k"] = integers({0, 2, 7, 9});
  const AttentionCase a(c);
  REQUIRE(a.sequences.size() == 3);
  CHECK(a.sequences[1].in.queries() == 0);
  CHECK(a.sequences[1].in.keys() == 5);
  const AttentionInputs& last = a.sequences[2].in;
  CHECK(last.queries() == 2);
  CHECK(last.q(3, 1, 1) == 6 * 4 * 2 - 1);
  CHECK(last.k(1, 0, 0) == 7 * 2 * 2 + 2);
  CHECK(a.like_rows(c.out["lse"].values.data(), c.out["lse"], a.sequences[2])(1, 0, 0) == 1 * 6 + 4);

  for (const auto& starts : {std::vector<double>{1, 4, 4, 6}, {0, 4, 3, 6}, {0, 4, 4, 5}, {0, 4, 4, 7}}) {
    c.in["cu_seqlens_q"] = integers(starts);
    CHECK_THAT(message_of(c),
               Mentions("/one/in/cu_seqlens_q must be [B + 1] integers that start with 0, never "
                        "decrease and end with the 6 packed rows"));
  }
  c.in["cu_seqlens_q"] = integers({0, 4, 6});
  CHECK_THAT(message_of(c),
             Mentions("in/cu_seqlens_k has 4 entries, in/cu_seqlens_q has 3; they must be equal"));
  c.in["cu_seqlens_q"] = integers({0, 4, 4, 6});
  c.in["kv_lengths"] = integers({1, 1, 1});
  CHECK_THAT(message_of(c), Mentions("/one/in/kv_lengths cannot be given in layout thd"));
}

TEST_CASE("masks and biases broadcast as NumPy does") {
  for (const std::string name : {"mask", "bias"}) {
    for (const std::vector<Index>& shape : std::vector<std::vector<Index>>{
             {}, {5}, {1}, {3, 5}, {3, 1}, {4, 1, 5}, {2, 1, 1, 5}, {2, 4, 3, 5}, {1, 1, 1, 1}}) {
      Case c = plain_case();
      Tensor t = numbered(shape);
      if (name == "mask") {
        for (double& x : t.values) x = static_cast<double>(static_cast<Index>(x) % 2);
      }
      c.in[name] = t;
      const AttentionCase a(c);
      std::vector<Index> full(4 - shape.size(), 1);
      full.insert(full.end(), shape.begin(), shape.end());
      for (Index n = 0; n < 2 * 4 * 3 * 5; ++n) {
        const Index at[] = {n / 60, n / 15 % 4, n / 5 % 3, n % 5};
        Index place = 0;
        for (int r = 0; r < 4; ++r) place = place * full[r] + (full[r] > 1 ? at[r] : 0);
        const AttentionInputs& in = a.sequences[at[0]].in;
        CHECK((name == "mask" ? in.mask : in.bias)(at[1], at[2], at[3]) == t.values[place]);
      }
    }
    Case c = plain_case();
    for (const std::vector<Index>& shape :
         std::vector<std::vector<Index>>{{4}, {2, 5}, {5, 3}, {1, 2, 4, 3, 5}}) {
      c.in[name] = numbered(shape);
      CHECK_THAT(message_of(c),
                 Mentions("/one/in/" + name + " has shape " + shape_text(shape) +
                          ", which does not broadcast to [B, Hq, Sq, Sp + Sk] = [2, 4, 3, 5]"));
    }
  }
}

TEST_CASE("values that no score can be made of are named with their place") {
  Case c = plain_case();
  c.in["q"].values[((1 * 4 + 2) * 3 + 1) * 6 + 4] = not_a_number;
  CHECK_THAT(message_of(c),
             Equals("dump.h5: /one/in/q holds NaN at [1, 2, 1, 4]; finite values are expected"));
  c = plain_case();
  c.in["v"].values.back() = -infinity;
  CHECK_THAT(message_of(c), Mentions("/one/in/v holds an infinity at [1, 1, 4, 6]"));
  c = plain_case();
  c.in["bias"] = numbered({3, 5});
  c.in["bias"].values[7] = -infinity;
  CHECK(message_of(c) == "no complaint");
  c.in["bias"].values[7] = infinity;
  CHECK_THAT(message_of(c), Mentions("/one/in/bias holds inf at [1, 2]; finite values or -inf are expected"));
  c = plain_case();
  c.in["sink"] = numbered({4});
  c.in["sink"].values[3] = -infinity;
  CHECK_THAT(message_of(c), Mentions("/one/in/sink holds -inf at [3]; finite values are expected"));
  c = plain_case();
  c.in["mask"] = numbered({3, 5});
  CHECK_THAT(message_of(c), Mentions("/one/in/mask holds 2 at [0, 2]; 0 or 1 is expected"));
}

TEST_CASE("shapes that do not fit are named with both tensors") {
  Case c = plain_case();
  c.in["k"] = numbered({2, 3, 5, 6});
  c.in["v"] = numbered({2, 3, 5, 7});
  CHECK_THAT(
      message_of(c),
      Mentions("dump.h5: /one/in/k has Hkv = 3 heads, /in/q has Hq = 4; Hq must be a multiple of Hkv"));
  c = plain_case();
  c.in["k"] = numbered({2, 2, 5, 8});
  CHECK_THAT(message_of(c), Mentions("/one/in/k has D = 8, but in/q has D = 6"));
  c.in["k"] = numbered({2, 5, 6});
  CHECK_THAT(message_of(c), Mentions("/one/in/k has shape [2, 5, 6]; [B Hkv Sk D] is expected"));
  c = plain_case();
  c.in["v"] = numbered({2, 2, 4, 7});
  CHECK_THAT(message_of(c), Mentions("/one/in/v has Sk = 4, but in/k has Sk = 5"));
  c = plain_case();
  c.out["o"] = numbered({2, 4, 3, 6});
  CHECK_THAT(message_of(c), Mentions("/one/out/o has E = 6, but in/v has E = 7"));
  c = plain_case();
  c.out["p"] = numbered({2, 4, 3, 4});
  CHECK_THAT(message_of(c),
             Mentions("/one/out/p has shape [2, 4, 3, 4]; [B, Hq, Sq, Sp + Sk] = [2, 4, 3, 5] is expected"));
  c = plain_case();
  c.in["alibi_slopes"] = numbered({2, 3});
  CHECK_THAT(message_of(c), Mentions("/one/in/alibi_slopes has Hq = 3, but in/q has Hq = 4"));
}

TEST_CASE("gradients need what they are gradients of") {
  Case c = plain_case();
  c.out["dq"] = numbered({2, 4, 3, 6});
  CHECK_THAT(message_of(c), Mentions("/one/out/dq is given, but in/do is missing"));
  c.in["do"] = numbered({2, 4, 3, 7});
  CHECK(message_of(c) == "no complaint");
  c.out["dbias"] = numbered({3, 5});
  CHECK_THAT(message_of(c), Mentions("/one/out/dbias is given, but in/bias is missing"));
  c.in["bias"] = numbered({1, 5});
  CHECK_THAT(message_of(c),
             Mentions("/one/out/dbias has shape [3, 5], in/bias has [1, 5]; they must be equal"));
  c.out.erase("dbias");
  c.out["dsink"] = numbered({4});
  CHECK_THAT(message_of(c), Mentions("/one/out/dsink is given, but in/sink is missing"));
}

TEST_CASE("keys of the spec are checked, with what is accepted") {
  const auto with = [](const std::string& key, const Attribute& value) {
    Case c = plain_case();
    c.spec[key] = value;
    return message_of(c);
  };
  CHECK_THAT(with("causal", "yes"), Equals("dump.h5: /one/spec attribute causal is \"yes\"; accepted: none, "
                                           "top_left, bottom_right"));
  CHECK_THAT(with("scale", not_a_number),
             Mentions("spec attribute scale is nan; a finite number is expected"));
  CHECK_THAT(with("window_left", std::int64_t{-2}),
             Mentions("window_left is -2; -1 (all keys) or more is expected"));
  CHECK_THAT(with("window_right", 1.5),
             Mentions("window_right is 1.5; a whole number of no more than 2^53 is expected"));
  CHECK_THAT(with("softcap", -1.0), Mentions("softcap is -1; 0 (off) or more is expected"));
  CHECK_THAT(with("alibi", "position"), Mentions("in/alibi_slopes is missing; alibi = position"));
  CHECK_THAT(with("layout", "bdhs"), Mentions("accepted: bhsd, bshd, sbhd, bsm, sbm, thd"));
  CHECK_THAT(with("lse_base", "10"), Mentions("accepted: e, 2"));
  CHECK_THAT(with("softmax_scale", 1.0),
             Mentions("spec attribute softmax_scale is not known; accepted: alibi, causal"));
  CHECK_THAT(with("layout", "bsm"), Mentions("spec attribute heads_q is missing; layouts bsm and sbm merge"));
  CHECK(with("scale", std::int64_t{1}) == "no complaint");

  Case c = plain_case();
  c.spec.erase("scale");
  CHECK_THAT(message_of(c), Equals("dump.h5: /one/spec attribute scale is missing; there are: causal"));
  c = case_of({{"q", numbered({2, 3, 25})}, {"k", numbered({2, 5, 12})}, {"v", numbered({2, 5, 14})}});
  c.spec["layout"] = "bsm";
  c.spec["heads_q"] = std::int64_t{4}, c.spec["heads_kv"] = std::int64_t{2};
  CHECK_THAT(message_of(c), Mentions("/one/in/q has a last axis of 25, which is no multiple of Hq = 4"));
}
