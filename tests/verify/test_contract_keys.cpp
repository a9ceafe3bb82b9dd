// Contract keys beside the element types: the matrix unit, and what the row sum adds.
#include <cmath>
#include <string>

#include "tests/catch.hpp"
#include "tests/emulate/honest_attention.hpp"
#include "tests/emulate/judged.hpp"
#include "verify/contract/keys.hpp"

namespace {

using namespace attest;
using namespace attest::emulate;

/// Attention whose row sum adds the weights as P V gets them, rounded to float16.
void sum_stored_weights(Case& c, const Setup& setup) {
  const AttentionInputs in = views_of(c);
  Results r;
  for (Index h = 0; h < setup.q_heads; ++h) {
    for (Index i = 0; i < setup.queries; ++i) {
      std::vector<double> s(setup.keys), o(setup.v_width);
      double m = -HUGE_VAL, l = 0;
      for (Index j = 0; j < setup.keys; ++j) {
        float sum = 0;
        for (Index d = 0; d < setup.width; ++d) {
          sum = std::fma(static_cast<float>(in.q(h, i, d)), static_cast<float>(in.k(h, j, d)), sum);
        }
        s[j] = sum * static_cast<float>(setup.spec.scale);
        m = std::max(m, s[j]);
      }
      for (Index j = 0; j < setup.keys; ++j) {
        const double p = round_to(std::exp(s[j] - m), DType::float16);
        l += p;
        for (Index e = 0; e < setup.v_width; ++e) o[e] += p * in.v(h, j, e);
      }
      for (const double x : o) r.o.push_back(round_to(x / l, DType::float16));
      r.lse.push_back(round_to(m + std::log(l), DType::float32));
    }
  }
  store(c, r, {"o", "lse"}, DType::float16, DType::float16);
}

}  // namespace

TEST_CASE("a row sum of stored weights fails by lse unless the contract says so") {
  Setup setup;
  setup.distribution = GENERATE(Distribution::normal, Distribution::uniform, Distribution::near_uniform,
                                Distribution::repeated_keys);
  Case c = inputs_of(setup, DType::float16);
  c.in.erase("do");
  sum_stored_weights(c, setup);
  const CaseFindings undeclared = judged(c);
  INFO(setup.text() << ": " << summary(undeclared));
  CHECK(undeclared.verdict == Verdict::fail);

  c.contract["row_sum"] = std::string("stored");
  const CaseFindings declared = judged(c);
  INFO(summary(declared));
  CHECK(declared.verdict != Verdict::fail);  // nearly uniform weights are inconclusive
  CHECK(declared.contract.find("row sum of stored weights") != std::string::npos);

  // The key does not excuse more than it says.
  for (double& x : c.out.at("lse").values) x += 0x1p-9;
  CHECK(judged(c).verdict == Verdict::fail);
}

TEST_CASE("a dump may say how weights are stored, and fp8 weights of long rows have bounds of use then") {
  Setup setup;
  setup.queries = 20, setup.keys = 800;
  setup.v_width = 64;
  Kernel kernel = honest_kernels(DType::float16)[0].kernel;
  kernel.p_dtype = DType::float8_e4m3fn;
  kernel.pv.kind = Adder::Kind::sequential;
  Case c = dump_of(setup, kernel, false, {"o", "lse"});
  const CaseFindings open = judged(c);
  CHECK(open.verdict == Verdict::inconclusive);  // normalised, most weights would be stored as 0
  c.contract["weights"] = std::string("relative");
  const CaseFindings relative = judged(c);
  INFO(summary(relative));
  CHECK(relative.verdict == Verdict::pass);
  CHECK(relative.contract.find("weights relative") != std::string::npos);
  CHECK(output(relative, "o").worst_ratio > 3 * output(open, "o").worst_ratio);
  for (double& x : c.out.at("o").values) x = round_to(x, DType::float8_e5m2);
  CHECK(judged(c).verdict == Verdict::fail);

  c.contract["weights"] = std::string("row_maximum");
  CHECK_THROWS_AS(judged(c), InvalidCase);
}

TEST_CASE("a dump may say that operands are converted to tf32") {
  for (const Distribution distribution : {Distribution::normal, Distribution::uniform}) {
    for (const Index keys : {70, 400}) {
      Setup setup;
      setup.element = DType::float32;
      setup.distribution = distribution;
      setup.keys = keys;
      Kernel kernel = honest_kernels(DType::float32)[0].kernel;
      kernel.mistakes.products_in_tf32 = true;
      Case c = dump_of(setup, kernel, true, {"o", "lse", "dq", "dk", "dv"});
      CHECK(first_cause(c) == "products in tf32");
      c.contract["matrix_unit"] = std::string("tf32");
      const CaseFindings declared = judged(c);
      INFO(setup.text() << ": " << summary(declared));
      CHECK(declared.verdict == Verdict::pass);
      CHECK(declared.contract.find("float32 (of tf32)") != std::string::npos);
      Case coarse = c;
      for (double& x : coarse.out.at("o").values) x = round_to(x, DType::float8_e4m3fn);
      CHECK(judged(coarse).verdict == Verdict::fail);
      c.spec["scale"] = std::get<double>(c.spec.at("scale")) * 1.02;
      CHECK(judged(c).verdict == Verdict::fail);
    }
  }
}

TEST_CASE("products of float32 may be three of tf32, unless every addition is to be rounded") {
  const auto dumped = [](Distribution distribution, Index keys, const char* unit) {
    Setup setup = plain_setup(DType::float32, 40, keys, 2, 2);
    setup.distribution = distribution;
    Kernel kernel = honest_kernels(DType::float32)[0].kernel;
    const bool is_hopper = std::string_view(unit) == "hopper";
    kernel.qk =
        kernel.pv = {Adder::Kind::tensor_core, is_hopper ? 8 : 4, is_hopper ? 2 : 1, DType::float64, true};
    Case c = dump_of(setup, kernel, true, {"o", "lse", "dq", "dk", "dv"});
    c.contract["matrix_unit"] = std::string(unit);
    return c;
  };
  for (const Distribution distribution :
       {Distribution::normal, Distribution::uniform, Distribution::large, Distribution::outlier}) {
    for (const char* unit : {"ampere", "hopper"}) {
      const CaseFindings findings = judged(dumped(distribution, 70, unit));
      INFO(unit << ": " << summary(findings));
      CHECK(findings.verdict != Verdict::fail);
      CHECK(findings.contract.find("float32 (tf32 in three products)") != std::string::npos);
    }
  }
  CHECK(judged(dumped(Distribution::normal, 400, "none")).verdict == Verdict::fail);
}

TEST_CASE("what a narrow accumulator loses of small terms is no fault") {
  for (const Distribution distribution : {Distribution::unit, Distribution::uniform}) {
    Setup setup = plain_setup(DType::float16, 40, 400, 2, 2);
    setup.distribution = distribution;
    Kernel kernel = honest_kernels(DType::float16)[0].kernel;
    kernel.pv = {Adder::Kind::blocked, 1, 0, DType::float16};
    Case c = dump_of(setup, kernel, false, {"o"});
    c.contract["pv_accumulate"] = std::string("float16");
    const CaseFindings findings = judged(c);
    INFO(setup.text() << ": " << summary(findings));
    CHECK(findings.verdict != Verdict::fail);
    for (double& x : c.out.at("o").values) x *= 1.5;
    CHECK(judged(c).verdict == Verdict::fail);
  }
}

TEST_CASE("a dump may say what splits of the keys store their o in") {
  for (const DType element : {DType::float16, DType::bfloat16}) {
    for (const Index keys : {100, 700}) {
      Setup setup;
      setup.element = element;
      setup.keys = keys;
      Kernel kernel = honest_kernels(element)[0].kernel;
      kernel.p_dtype = DType::float32;
      kernel.splits = 3;
      kernel.mistakes.split_output = element;
      Case c = dump_of(setup, kernel, false, {"o", "lse"});
      const std::string name(format_of(element).name);
      CHECK(judged(c).verdict == Verdict::fail);
      c.contract["split_dtype"] = name;
      const CaseFindings declared = judged(c);
      INFO(setup.text() << ": " << summary(declared));
      CHECK(declared.verdict == Verdict::pass);
      CHECK(declared.contract.find("o of splits stored in " + name) != std::string::npos);
      for (double& x : c.out.at("o").values) x *= 1 + 4 * unit_roundoff(element);
      CHECK(judged(c).verdict == Verdict::fail);
    }
  }
}

TEST_CASE("kernels that keep a contract of their own pass on every distribution") {
  struct Kept {
    const char *key, *value;
    DType element;
    std::function<void(Kernel&, Setup&)> in_kernel;
  };
  const auto tf32 = [](bool cuts_off) {
    return Kept{"matrix_unit", "tf32", DType::float32, [=](Kernel& k, Setup&) {
                  k.mistakes.products_in_tf32 = true;
                  k.mistakes.tf32_cuts_off = cuts_off;
                }};
  };
  const auto split = [](DType element, const char* name, int splits) {
    return Kept{"split_dtype", name, element, [=](Kernel& k, Setup&) {
                  k.splits = splits;
                  k.mistakes.split_output = element;
                }};
  };
  const auto approximate = [](const char* key, DType element) {
    return Kept{key, "", element, [=](Kernel& k, Setup& s) {
                  const bool is_tanh = std::string_view(key) == "tanh_error";
                  s.spec.softcap = is_tanh ? 4 : 0;
                  k.mistakes.tanh_error = is_tanh ? 1e-3 : 0;
                  k.mistakes.exp_error = k.mistakes.exp_error_of_backward = is_tanh ? 0 : 1e-3;
                }};
  };
  for (const Kept& kept :
       {tf32(false), tf32(true), split(DType::float16, "float16", 2), split(DType::float16, "float16", 7),
        split(DType::bfloat16, "bfloat16", 3), approximate("exp_error", DType::float16),
        approximate("exp_error", DType::float32), approximate("tanh_error", DType::bfloat16),
        approximate("tanh_error", DType::float32)}) {
    for (const Distribution distribution : all_distributions) {
      for (const Causal causal : {Causal::none, Causal::bottom_right}) {
        for (const Index keys : {70, 300}) {
          Setup setup;
          setup.element = kept.element;
          setup.distribution = distribution;
          setup.spec.causal = causal;
          setup.keys = keys;
          setup.seed = static_cast<std::uint64_t>(keys);
          Kernel kernel = honest_kernels(kept.element)[0].kernel;
          kept.in_kernel(kernel, setup);
          const bool has_gradients = std::string_view(kept.key) != "split_dtype";
          Case c = dump_of(setup, kernel, has_gradients,
                           has_gradients ? std::vector<std::string>{"o", "lse", "dq", "dk", "dv"}
                                         : std::vector<std::string>{"o", "lse"});
          c.contract[kept.key] = *kept.value ? Attribute(std::string(kept.value)) : Attribute(1e-3);
          const CaseFindings findings = judged(c);
          INFO(kept.key << ' ' << kept.value << ", " << setup.text() << ": " << summary(findings));
          CHECK(findings.verdict != Verdict::fail);
        }
      }
    }
  }
}

TEST_CASE("a dump may say how far exp and tanh are off") {
  for (const DType element : {DType::float16, DType::bfloat16}) {
    for (const double softcap : {3.0, 30.0}) {
      for (const double error : {0x1p-13, 0x1p-11}) {
        Setup setup;
        setup.element = element;
        setup.keys = 300;
        setup.spec.softcap = softcap;
        Kernel kernel = honest_kernels(element)[0].kernel;
        kernel.mistakes.tanh_error = error;
        Case c = dump_of(setup, kernel, true, {"o", "lse", "dq", "dk", "dv"});
        INFO(format_of(element).name << ", softcap " << softcap << ", error " << error);
        CHECK(judged(c).verdict == Verdict::fail);
        c.contract["tanh_error"] = error;
        const CaseFindings declared = judged(c);
        INFO(summary(declared));
        CHECK(declared.verdict == Verdict::pass);
        CHECK(declared.contract.find("tanh within ") != std::string::npos);
        c.contract["tanh_error"] = error / 64;
        CHECK(judged(c).verdict == Verdict::fail);
      }
    }
  }
  Setup setup;
  setup.keys = 300;
  Kernel kernel = honest_kernels(DType::float16)[0].kernel;
  kernel.mistakes.exp_error = kernel.mistakes.exp_error_of_backward = 1e-4;
  Case c = dump_of(setup, kernel, true, {"o", "lse", "dq", "dk", "dv"});
  CHECK(judged(c).verdict == Verdict::fail);
  c.contract["exp_error"] = 1e-4;
  const CaseFindings declared = judged(c);
  INFO(summary(declared));
  CHECK(declared.verdict == Verdict::pass);
  for (const double error : {0.0, -1e-4, 1.0}) {
    c.contract["exp_error"] = error;
    CHECK_THROWS_WITH(judged(c),
                      attest::test::Mentions("exp_error") && attest::test::Mentions("above 0 and below 1"));
  }
}

TEST_CASE("kernels pass under the contract that says how they store weights, and no other need be sound") {
  for (const DType element : {DType::float16, DType::bfloat16, DType::float8_e4m3fn}) {
    for (const Index keys : {70, 400}) {
      for (const Distribution distribution : {Distribution::normal, Distribution::uniform}) {
        Setup setup;
        setup.keys = keys;
        setup.distribution = distribution;
        for (const NamedKernel& honest : honest_kernels(DType::float16)) {
          Kernel kernel = honest.kernel;
          kernel.p_dtype = element;
          Case c = dump_of(setup, kernel, true, {"o", "lse", "dq", "dk", "dv"});
          const bool is_normalised = kernel.algorithm == Algorithm::standard;
          c.contract["weights"] = std::string(is_normalised ? "normalised" : "relative");
          const CaseFindings findings = judged(c);
          INFO(honest.name << ", " << setup.text() << ": " << summary(findings));
          CHECK(findings.verdict != Verdict::fail);
        }
      }
    }
  }
}

TEST_CASE("a matrix unit says how products of narrow operands are added up") {
  using enum MatrixUnit;
  const auto block = [](MatrixUnit unit, DType operands) {
    return accumulator(DType::float32, operands, unit).block;
  };
  CHECK(block(volta, DType::float16) == 4);
  CHECK(block(ampere, DType::bfloat16) == 8);
  CHECK(block(hopper, DType::bfloat16) == 16);
  CHECK(block(hopper, DType::float8_e4m3fn) == 32);
  for (const DType operands : {DType::float16, DType::float8_e5m2}) CHECK(block(none, operands) == 0);
  for (const MatrixUnit unit : {volta, none}) CHECK(block(unit, DType::float32) == 0);
  for (const MatrixUnit unit : {ampere, hopper})
    CHECK(accumulator(DType::float32, DType::float32, unit).tf32 == Tf32::three);
  CHECK(block(tf32, DType::float16) == 8);
  CHECK(accumulator(DType::float32, DType::float32, tf32).tf32 == Tf32::one);
  CHECK(accumulator(DType::float64, DType::float32, tf32).tf32 == Tf32::none);
  // Weights kept in float32 are converted, whatever q has.
  for (const char* p : {"float32", "float16"}) {
    Case c;
    c.contract = {{"matrix_unit", std::string("tf32")}, {"p_dtype", std::string(p)}};
    ContractReader keys(c);
    CHECK((read_contract(keys, DType::float16).pv.tf32 == Tf32::one) == (p == std::string("float32")));
  }
}

TEST_CASE("bounds follow the matrix unit that a dump names") {
  Setup setup;
  setup.element = DType::float16;
  setup.distribution = Distribution::uniform;
  double previous = HUGE_VAL, of_volta = 0;
  for (const char* unit : {"volta", "ampere", "hopper", "none"}) {
    Case c = inputs_of(setup, DType::float16);
    c.in.erase("do");
    c.contract["matrix_unit"] = std::string(unit);
    sum_stored_weights(c, setup);
    c.contract["row_sum"] = std::string("stored");
    const std::vector<Expected> expected = find_op(c).read(c)->expect([](double) {});
    double worst = 0;
    for (const Expected& e : expected) {
      for (const double x : e.rigorous) worst += x;
    }
    INFO(unit);
    CHECK(worst <= previous);  // a unit that rounds every addition may be as good as Hopper's
    previous = worst;
    if (unit == std::string("volta")) of_volta = worst;
  }
  CHECK(previous < of_volta);
  Case c = inputs_of(setup, DType::float16);
  c.contract["matrix_unit"] = std::string("pascal");
  CHECK_THROWS_AS(find_op(c).read(c), InvalidCase);
}
