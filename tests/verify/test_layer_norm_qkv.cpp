// layer_norm_qkv judged: honest kernels pass, planted faults do not.
#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "core/array.hpp"
#include "core/invalid_case.hpp"
#include "tests/catch.hpp"
#include "tests/emulate/judged.hpp"
#include "tests/emulate/layer_norm_qkv.hpp"
#include "tests/emulate/norm.hpp"
#include "tests/emulate/tensors.hpp"
#include "tests/oracle/norm.hpp"
#include "tests/support/random.hpp"

namespace {

using namespace attest;
using namespace attest::emulate;

struct QkvSetup {
  DType element = DType::float16;
  DType stored = DType::float16;
  Index batch = 2, tokens = 9, heads = 3, width = 48;
  NormValues values = NormValues::normal;
  bool heads_outside = true;
  bool has_norm_parameters = true, has_qkv_bias = true;
  bool repeats_weights = false;  // all rows of qkv_weight are alike
  double eps = 1e-5;
  std::uint64_t seed = 1;

  std::string text() const {
    return std::string(format_of(element).name) + " stored in " + std::string(format_of(stored).name) + ", " +
           name_of(values) + ", width " + std::to_string(width) + ", seed " + std::to_string(seed);
  }
};

/// x, weights and biases, without outputs.
Case qkv_inputs(const QkvSetup& setup) {
  const Index m = setup.width;
  NormSetup norm;
  norm.is_centred = true;
  norm.element = norm.weight = setup.element;
  norm.shape = {setup.batch, setup.tokens, m};
  norm.values = setup.values;
  norm.has_weight = norm.has_bias = setup.has_norm_parameters;
  norm.eps = setup.eps;
  norm.seed = setup.seed;
  Case c = norm_inputs(norm);
  c.in.erase("dy");

  test::Random random(setup.seed + 1000);
  Tensor weight = tensor_of(setup.element, {3 * m, m}), bias = tensor_of(setup.element, {3 * m});
  for (Index n = 0; n < weight.size(); ++n) {
    const bool repeats = setup.repeats_weights && n % m > 0;
    weight.values[n] = repeats ? weight.values[n - 1]
                               : round_to(normal(random) / std::sqrt(static_cast<double>(m)), setup.element);
  }
  for (double& b : bias.values) b = round_to(0.3 * normal(random), setup.element);
  c.op = "layer_norm_qkv";
  c.spec = {{"eps", setup.eps},
            {"heads", std::int64_t{setup.heads}},
            {"layout", std::string(setup.heads_outside ? "bhsd" : "bshd")}};
  if (setup.stored != setup.element) {
    c.contract["intermediate_dtype"] = std::string(format_of(setup.stored).name);
  }
  c.in.emplace("qkv_weight", weight);
  if (setup.has_qkv_bias) c.in.emplace("qkv_bias", bias);
  return c;
}

Case qkv_dump(const QkvSetup& setup, const QkvKernel& kernel) {
  return emulate::qkv_dump(qkv_inputs(setup), setup.stored, kernel);
}

std::string complaints(const CaseFindings& findings) {
  const bool fails = std::any_of(findings.outputs.begin(), findings.outputs.end(),
                                 [](const OutputFindings& o) { return o.verdict == Verdict::fail; });
  return fails ? summary(findings) : "";
}

}  // namespace

TEST_CASE("kernels that keep the contract of layer_norm_qkv stay within its bounds") {
  Worst worst;
  const auto check = [&](const QkvSetup& setup) {
    for (const Adder::Kind kind : {Adder::Kind::sequential, Adder::Kind::blocked, Adder::Kind::tensor_core}) {
      if (kind == Adder::Kind::tensor_core && format_of(setup.stored).bits > 16) continue;
      QkvKernel kernel;
      kernel.product.kind = kind;
      kernel.norm.sum =
          kind == Adder::Kind::sequential ? NormKernel::Sum::sequential : NormKernel::Sum::lanes;
      if (kind == Adder::Kind::blocked) kernel.norm.moments = NormKernel::Moments::welford;
      const CaseFindings findings = judged(qkv_dump(setup, kernel));
      INFO(setup.text());
      CHECK(complaints(findings) == "");
      for (const OutputFindings& o : findings.outputs) worst.take(o);
    }
  };
  for (const DType element : {DType::float16, DType::bfloat16, DType::float32}) {
    QkvSetup setup;
    setup.element = setup.stored = element;
    for (const NormValues values : all_norm_values) {
      setup.values = values;
      ++setup.seed;
      setup.heads_outside = setup.seed % 2 == 0;
      setup.has_norm_parameters = setup.seed % 3 != 0;
      setup.has_qkv_bias = setup.seed % 5 != 0;
      check(setup);
      setup.repeats_weights = true;
      check(setup);
      setup.repeats_weights = false;
    }
    setup.values = NormValues::normal;
    setup.stored = DType::float32;
    check(setup);
    setup.width = 384;
    setup.tokens = 3;
    setup.stored = element;
    check(setup);
    setup = {};
    setup.batch = setup.tokens = setup.heads = 1;
    setup.width = 2;
    check(setup);
  }
  INFO(worst.ratio << " of the probable, " << worst.rigorous << " of the rigorous bound");
  CHECK(worst.ratio > 0.5);
}

TEST_CASE("planted faults of layer_norm_qkv fail") {
  struct {
    const char* name;
    void (*plant)(QkvKernel& k);
    NormValues values;
  } const faults[] = {
      {"eps outside the root", [](QkvKernel& k) { k.norm.mistakes.eps_outside = true; }, NormValues::small},
      {"no eps", [](QkvKernel& k) { k.norm.mistakes.no_eps = true; }, NormValues::small},
      {"variance over N - 1", [](QkvKernel& k) { k.norm.mistakes.over_n_minus_1 = true; },
       NormValues::normal},
      {"sums in float16", [](QkvKernel& k) { k.norm.mistakes.sum_dtype = DType::float16; },
       NormValues::normal},
      {"rstd in bfloat16", [](QkvKernel& k) { k.norm.mistakes.rstd_in_bfloat16 = true; }, NormValues::normal},
      {"no weight", [](QkvKernel& k) { k.norm.mistakes.no_weight = true; }, NormValues::normal},
      {"rms_norm", [](QkvKernel& k) { k.norm.mistakes.is_other_op = true; }, NormValues::normal},
      {"intermediate not rounded", [](QkvKernel& k) { k.stores = false; }, NormValues::normal},
      {"product in bfloat16",
       [](QkvKernel& k) {
         k.product = {Adder::Kind::blocked, 16, 2, DType::bfloat16};
       },
       NormValues::normal},
      {"product in float16",
       [](QkvKernel& k) {
         k.product = {Adder::Kind::blocked, 16, 2, DType::float16};
       },
       NormValues::normal},
      {"q and k exchanged", [](QkvKernel& k) { k.exchanges_q_and_k = true; }, NormValues::normal},
      {"no qkv_bias", [](QkvKernel& k) { k.forgets_bias = true; }, NormValues::normal},
      {"q scaled", [](QkvKernel& k) { k.scales_q = true; }, NormValues::normal},
      {"16 columns dropped in one token", [](QkvKernel& k) { k.drops_a_block = true; }, NormValues::normal},
      {"heads inside", [](QkvKernel& k) { k.moves_heads = true; }, NormValues::normal},
  };
  for (const DType element : {DType::float16, DType::bfloat16}) {
    for (const auto& fault : faults) {
      QkvSetup setup;
      setup.element = setup.stored = element;
      setup.tokens = 30;
      setup.width = 96;
      setup.values = fault.values;
      QkvKernel kernel;
      fault.plant(kernel);
      const CaseFindings findings = judged(qkv_dump(setup, kernel));
      INFO(fault.name << ": " << setup.text() << ": " << summary(findings));
      CHECK(findings.verdict == Verdict::fail);
    }
  }
}

TEST_CASE("the faults of layer_norm_qkv have names") {
  for (const DType element : {DType::float16, DType::bfloat16}) {
    QkvSetup setup;
    setup.element = setup.stored = element;
    setup.tokens = 30;
    setup.width = 90;
    const auto cause_of = [&](auto plant) {
      QkvKernel kernel;
      plant(kernel);
      return first_cause(qkv_dump(setup, kernel));
    };
    INFO(format_of(element).name);
    CHECK(cause_of([](QkvKernel& k) { k.scales_q = true; }) == "q times 1/sqrt(D)");
    CHECK(cause_of([](QkvKernel& k) { k.moves_heads = true; }) == "layout = bshd");
    CHECK(cause_of([](QkvKernel& k) { k.weights = DType::float8_e4m3fn; }) == "qkv_weight in float8_e4m3fn");
    CHECK(cause_of([](QkvKernel& k) { k.norm.mistakes.over_padded_width = true; }) ==
          "mean and variance over a padded width of 96");
    CHECK(cause_of([](QkvKernel& k) { k.norm.mistakes.rstd_in_bfloat16 = true; }) == "rstd in bfloat16");
    setup.stored = DType::float8_e4m3fn;
    Case c = qkv_dump(setup, {});
    c.contract.erase("intermediate_dtype");
    CHECK(first_cause(c) == "the normalised x stored in float8_e4m3fn: contract key intermediate_dtype");
    setup.stored = element;
    setup.values = NormValues::small;
    c = qkv_dump(setup, {});
    c.spec["eps"] = 1e-6;
    CHECK(first_cause(c) == "eps = 1e-05");
  }
}

TEST_CASE("heads of layer_norm_qkv that are those of others, and sums in 16 bits, are named") {
  for (const DType element : {DType::float16, DType::bfloat16}) {
    QkvSetup setup;
    setup.element = setup.stored = element;
    setup.tokens = 30;
    setup.width = 96;
    setup.heads = 4;
    INFO(format_of(element).name);
    Case c = qkv_dump(setup, {});
    Tensor& v = c.out.at("v");
    const Index head = setup.tokens * setup.width / setup.heads;
    for (Index b = 0; b < setup.batch; ++b)
      for (Index n = 0; n < head; ++n) v.values[(4 * b + 3) * head + n] = v.values[(4 * b + 2) * head + n];
    CHECK(first_cause(c) == "v of the head before in the last head");

    c = qkv_dump(setup, {});
    Tensor &weight = c.in.at("qkv_weight"), given = weight;
    for (Index third = 0; third < 3; ++third)
      for (Index m = 0; m < 96; ++m)
        for (Index j = 0; j < 96; ++j)
          weight.values[(third * 96 + m % 24 * 4 + m / 24) * 96 + j] =
              given.values[(third * 96 + m) * 96 + j];
    if (setup.has_qkv_bias) {
      const Tensor bias = c.in.at("qkv_bias");
      for (Index o = 0; o < 288; ++o)
        c.in.at("qkv_bias").values[o / 96 * 96 + o % 96 % 24 * 4 + o % 96 / 24] = bias.values[o];
    }
    CHECK(first_cause(c) == "rows of qkv_weight counted as [3, D, H]");
  }
}

TEST_CASE("biases of another third, columns counted twice and a stale rstd of layer_norm_qkv are named") {
  for (const DType element : {DType::float16, DType::bfloat16, DType::float32}) {
    QkvSetup setup;
    setup.element = setup.stored = element;
    setup.tokens = 30, setup.width = 96, setup.heads = 4;
    INFO(format_of(element).name);
    const Case right = qkv_dump(setup, {});
    const auto in = [&](const char* name, Index at) { return right.in.at(name).values[at]; };
    const Index rows = setup.batch * setup.tokens, m = setup.width, d = m / setup.heads;
    std::vector<double> mean(rows), rstd(rows);
    for (Index i = 0; i < rows; ++i) {
      double squares = 0;
      for (Index j = 0; j < m; ++j) mean[i] += in("x", i * m + j) / 96;
      for (Index j = 0; j < m; ++j) squares += std::pow(in("x", i * m + j) - mean[i], 2) / 96;
      rstd[i] = 1 / std::sqrt(squares + setup.eps);
    }
    // q, k and v with the bias of third of_bias[t], rstd of a token and the weight of a column in the product
    const auto cause = [&](const std::array<Index, 3>& of_bias, auto row_of, auto times) {
      Case c = right;
      for (Index i = 0; i < rows; ++i) {
        for (Index o = 0; o < 3 * m; ++o) {
          double sum = in("qkv_bias", of_bias[o / m] * m + o % m);
          for (Index j = 0; j < m; ++j) {
            const double h = (in("x", i * m + j) - mean[i]) * rstd[row_of(i, j)];
            sum += times(j) * in("qkv_weight", o * m + j) *
                   round_to(h * in("weight", j) + in("bias", j), setup.stored);
          }
          Tensor& t = c.out.at(o / m == 0 ? "q" : o / m == 1 ? "k" : "v");
          const Index b = i / setup.tokens, h = o % m / d;
          t.values[((b * setup.heads + h) * setup.tokens + i % setup.tokens) * d + o % d] =
              round_to(sum, element);
        }
      }
      return first_cause(c);
    };
    const auto own = [](Index i, Index) { return i; };
    const auto once = [](Index) { return 1; };
    CHECK(cause({0, 0, 2}, own, once) == "qkv_bias of q in k");
    CHECK(cause({0, 1, 2}, own, [](Index j) { return j >= 48 && j < 64 ? 2 : 1; }) ==
          "columns 48..63 twice in the product");
    CHECK(cause(
              {0, 1, 2}, [](Index i, Index j) { return i >= 20 && j >= 64 ? i - 20 : i; }, once) ==
          "rstd of the token 20 before in columns 64..95 of the norm");
  }
}

TEST_CASE("the exact q, k and v of layer_norm_qkv are the oracle's") {
  QkvSetup setup;
  setup.element = setup.stored = DType::float64;
  Case c = qkv_dump(setup, {});
  const auto view = [&](const char* name) { return c.in.at(name).values.data(); };
  const Index count = setup.batch * setup.tokens, m = setup.width;
  const NormInputs in{{view("x"), {count, m}}, {view("weight"), {m}}, {view("bias"), {m}}};
  const auto exact = oracle::norm_projection({true, setup.eps, 0, {}}, in, {view("qkv_weight"), {3 * m, m}},
                                             {view("qkv_bias"), {3 * m}});
  for (Index i = 0; i < count; ++i) {
    for (Index o = 0; o < 3 * m; ++o) {
      const Index d = m / setup.heads, h = o % m / d, b = i / setup.tokens, s = i % setup.tokens;
      c.out.at(o < m       ? "q"
               : o < 2 * m ? "k"
                           : "v")
          .values[((b * setup.heads + h) * setup.tokens + s) * d + o % d] = static_cast<double>(exact(i, o));
    }
  }
  const CaseFindings findings = judged(c);
  INFO(summary(findings));
  CHECK(findings.verdict == Verdict::pass);
}

TEST_CASE("malformed cases of layer_norm_qkv are named") {
  using attest::test::Mentions;
  const auto message = [&](auto change) -> std::string {
    Case c = qkv_dump({}, {});
    change(c);
    try {
      judged(c);
    } catch (const InvalidCase& e) {
      return e.what();
    }
    return "no complaint";
  };
  CHECK(message([](Case&) {}) == "no complaint");
  CHECK_THAT(message([](Case& c) { c.spec.erase("heads"); }), Mentions("heads is missing"));
  CHECK_THAT(message([](Case& c) { c.spec["heads"] = std::int64_t{5}; }),
             Mentions("heads is 5; a divisor of M = 48"));
  CHECK_THAT(message([](Case& c) { c.spec["heads"] = std::int64_t{6}; }), Mentions("H = 3"));
  CHECK_THAT(message([](Case& c) { c.spec["layout"] = std::string("sbhd"); }),
             Mentions("accepted: bhsd, bshd"));
  CHECK_THAT(message([](Case& c) { c.spec["layout"] = std::string("bshd"); }), Mentions("/out/"));
  CHECK_THAT(
      message([](Case& c) { std::swap(c.in.at("qkv_weight").shape[0], c.in.at("qkv_weight").shape[1]); }),
      Mentions("in/qkv_weight has 3M = 48"));
  CHECK_THAT(
      message([](Case& c) { c.in.at("qkv_bias").values[3] = std::numeric_limits<double>::quiet_NaN(); }),
      Mentions("in/qkv_bias holds NaN at [3]"));
  CHECK_THAT(message([](Case& c) { c.contract["p_dtype"] = std::string("float16"); }),
             Mentions("p_dtype is not known"));
}
