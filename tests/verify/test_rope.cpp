// Judging rotary embeddings: honest kernels pass, faults fail, and weak cases are noticed.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "tests/catch.hpp"
#include "tests/emulate/judged.hpp"
#include "tests/emulate/rope.hpp"
#include "tests/support/random.hpp"

namespace {

using namespace attest;
using namespace attest::emulate;

RopeFrequencies scaled(RopeScaling scaling, double theta = 10000) {
  RopeFrequencies f{theta, scaling};
  f.factor = 8;
  if (scaling == RopeScaling::linear || scaling == RopeScaling::ntk) return f;
  f.original_max_position_embeddings = 2048;
  if (scaling == RopeScaling::dynamic_ntk) f.sequence_length = 3000;
  if (scaling == RopeScaling::yarn) f.beta_fast = 32, f.beta_slow = 1;
  if (scaling == RopeScaling::llama3) f.low_freq_factor = 1, f.high_freq_factor = 4;
  return f;
}

std::vector<RopeSetup> setups() {
  std::vector<RopeSetup> all;
  for (const DType element : {DType::float16, DType::bfloat16, DType::float32}) {
    for (const RopeStyle style : {RopeStyle::half, RopeStyle::interleaved}) {
      const auto add = [&](auto change) {
        RopeSetup& s = all.emplace_back();
        s.element = element;
        s.style = style;
        s.seed = all.size();
        change(s);
      };
      add([](RopeSetup&) {});
      add([](RopeSetup& s) { s.position_start = 131000; });
      add([](RopeSetup& s) { s.position_start = 1e7, s.width = 128, s.rotary_dim = 96; });
      add([](RopeSetup& s) { s.position_start = 1e6, s.rule = AngleRule::exact; });
      add([](RopeSetup& s) { s.rotary_dim = 16, s.magnitude = 1e-6; });
      add([](RopeSetup& s) { s.has_outliers = true, s.position_start = 4000; });
      add([](RopeSetup& s) { s.angles = RopeAngles::inv_freq, s.position_start = 1e7; });
      add([](RopeSetup& s) { s.angles = RopeAngles::half_table, s.batch = 3; });
      add([](RopeSetup& s) { s.angles = RopeAngles::full_table, s.table = DType::bfloat16; });
      add([](RopeSetup& s) { s.rows = s.heads = 1, s.position_start = 77; });
      for (const RopeScaling scaling : {RopeScaling::linear, RopeScaling::ntk, RopeScaling::dynamic_ntk,
                                        RopeScaling::yarn, RopeScaling::llama3}) {
        add([&](RopeSetup& s) { s.frequencies = scaled(scaling), s.position_start = 10000; });
      }
    }
  }
  return all;
}

TEST_CASE("honest rope kernels pass, whatever their library and their order of operations", "[sweep]") {
  const RopeKernel kernels[] = {{},
                                {RopePow::negative, true, 0, 0, RopeFault::none},
                                {RopePow::exponential, true, 1, 0, RopeFault::none},
                                {RopePow::reciprocal, false, 2, 0, RopeFault::none},
                                {RopePow::reciprocal, true, 2, 3, RopeFault::none}};
  double worst = 0;
  for (const RopeSetup& setup : setups()) {
    for (const RopeKernel& kernel : kernels) {
      // A kernel that is given inverse frequencies or a table does not make its own.
      if (setup.angles != RopeAngles::theta && kernel.pow != RopePow::reciprocal) continue;
      if (setup.angles == RopeAngles::half_table || setup.angles == RopeAngles::full_table) {
        if (kernel.sincos_ulps > 0) continue;
      }
      const CaseFindings findings = judged(rope_dump(setup, kernel));
      INFO(setup.text() << ", " << static_cast<int>(kernel.pow) << kernel.fused << kernel.sincos_ulps
                        << kernel.inv_freq_ulps << ": " << summary(findings));
      CHECK(findings.verdict == Verdict::pass);
      for (const OutputFindings& o : findings.outputs) {
        CHECK(o.worst_ratio <= 1);
        worst = std::max(worst, o.worst_ratio);
      }
    }
  }
  CHECK(worst > 0.5);  // bounds with much to spare would hide faults
}

/// Does the fault change a bit of the dump?
bool changes(const Case& a, const Case& b) {
  return a.out.at("y").values != b.out.at("y").values || a.out.at("dx").values != b.out.at("dx").values;
}

TEST_CASE("rope kernels with a fault fail", "[sweep]") {
  struct Row {
    const char* name;
    RopeSetup setup;
  };
  RopeSetup near, far, later, partial, yarn, table, given;
  later.position_start = 4096;
  far.position_start = 1e7;
  partial.rotary_dim = 32, partial.position_start = 300, partial.style = RopeStyle::interleaved;
  yarn.frequencies = scaled(RopeScaling::yarn), yarn.position_start = 4096;
  table.angles = RopeAngles::full_table, table.position_start = 4096;
  given.angles = RopeAngles::inv_freq, given.position_start = 1e7;
  const bool prints = std::getenv("ATTEST_PRINT_TABLES");
  for (const DType element : {DType::float16, DType::bfloat16, DType::float32}) {
    for (const auto& [name, base] :
         {Row{"rows 0-63", near}, Row{"rows from 4096", later}, Row{"rows from 1e7", far},
          Row{"R 32 of 64", partial}, Row{"yarn", yarn}, Row{"table", table}, Row{"inv_freq, 1e7", given}}) {
      RopeSetup setup = base;
      setup.element = element;
      const Case right = rope_dump(setup, {});
      REQUIRE(judged(right).verdict == Verdict::pass);
      for (const RopeFault fault : all_rope_faults) {
        RopeKernel kernel;
        kernel.fault = fault;
        const Case wrong = rope_dump(setup, kernel);
        const bool is_visible = changes(right, wrong);
        const CaseFindings findings = judged(wrong, {.diagnosis = element == DType::float16});
        if (prints) {
          std::printf("%-9s %-15s %-24s %s %.3g %.3g\n", std::string(format_of(element).name).c_str(), name,
                      std::string(name_of(fault)).c_str(),
                      is_visible ? std::string(name_of(findings.verdict)).c_str() : "-",
                      findings.outputs[0].worst_ratio, findings.outputs[1].worst_ratio);
        }
        INFO(format_of(element).name << ", " << name << ", " << name_of(fault) << ": " << summary(findings));
        if (is_visible) CHECK(findings.verdict == Verdict::fail);
      }
    }
  }
}

TEST_CASE("last places of inverse frequencies do not excuse a wrong position, even in a single row") {
  for (const double start : {1.0, 1e3, 1e5, 1e6, 1e7}) {
    for (const DType element : {DType::float16, DType::bfloat16, DType::float32}) {
      RopeSetup setup;
      setup.element = element;
      setup.rows = setup.heads = 1;
      setup.position_start = start;
      REQUIRE(judged(rope_dump(setup, {})).verdict == Verdict::pass);
      for (const RopeFault fault : {RopeFault::position_plus_one, RopeFault::position_minus_one}) {
        RopeKernel kernel;
        kernel.fault = fault;
        const CaseFindings findings = judged(rope_dump(setup, kernel));
        INFO(setup.text() << ", " << name_of(fault) << ": " << summary(findings));
        CHECK(findings.verdict == Verdict::fail);
      }
    }
  }
}

TEST_CASE("a kernel that rounds to float16 on the way passes only if its contract says so") {
  RopeSetup setup;
  setup.angles = RopeAngles::full_table;
  setup.table = DType::float16;
  RopeKernel kernel;
  kernel.fault = RopeFault::sum_float16;
  Case c = rope_dump(setup, kernel);
  CHECK(judged(c).verdict == Verdict::fail);
  c.contract["compute_dtype"] = "float16";
  CHECK(judged(c).verdict == Verdict::pass);
  CHECK(judged(c).contract == "computed in float16 (declared)");
}

TEST_CASE("what a dump cannot show is inconclusive") {
  const auto has_reason = [](const CaseFindings& findings, const std::string& reason) {
    return std::find(findings.reasons.begin(), findings.reasons.end(), reason) != findings.reasons.end();
  };
  SECTION("angles so large that double precision leaves them open") {
    RopeSetup setup;
    setup.position_start = 0x1p53 - 100;
    setup.rule = AngleRule::exact;
    const CaseFindings findings = judged(rope_dump(setup, {}));
    CHECK(findings.verdict == Verdict::inconclusive);
    CHECK(has_reason(findings, "positions one too high would pass too"));
  }
  SECTION("position 0 only: nothing turns, but a table one row on would") {
    RopeSetup setup;
    setup.rows = 1;
    CHECK(judged(rope_dump(setup, {})).verdict == Verdict::pass);
  }
}

TEST_CASE("the exact rule takes cosines of exact angles, the float32 rule those of rounded ones") {
  RopeSetup setup;
  setup.position_start = 1e6;
  for (const AngleRule rule : {AngleRule::exact, AngleRule::float32}) {
    setup.rule = rule;
    Case c = rope_dump(setup, {});
    CHECK(judged(c).verdict == Verdict::pass);
    c.spec["angle_dtype"] = rule == AngleRule::exact ? "float32" : "float64";
    CHECK(judged(c).verdict == Verdict::fail);
  }
}

TEST_CASE("double precision kernels are judged in double precision") {
  RopeSetup setup;
  setup.angles = RopeAngles::full_table;
  Case c = rope_dump(setup, {});
  const DType wide = DType::float64;
  test::Random random(5);
  for (auto* tensors : {&c.in, &c.out}) {
    for (auto& [name, t] : *tensors) {
      t.dtype = wide;
      t.type_name = "float64";
      for (double& x : t.values) x += random.symmetric() * 0x1p-30;
    }
  }
  const View<const double, 2> cos{c.in["cos"].values.data(), {64, 64}},
      sin{c.in["sin"].values.data(), {64, 64}};
  for (Index n = 0; n < c.in["x"].size(); ++n) {
    const Index d = n % 64, row = n / 64 % 64, pair = d < 32 ? n + 32 : n - 32, e = d < 32 ? d + 32 : d - 32;
    const std::vector<double>&x = c.in["x"].values, &dy = c.in["dy"].values;
    c.out["y"].values[n] = x[n] * cos(row, d) + (d < 32 ? -x[pair] : x[pair]) * sin(row, d);
    c.out["dx"].values[n] = dy[n] * cos(row, d) + (d < 32 ? dy[pair] : -dy[pair]) * sin(row, e);
  }
  CHECK(judged(c).verdict == Verdict::pass);
  CHECK(judged(c).outputs[0].worst_ratio > 0.3);
  c.out["y"].values[7] *= 1 + 0x1p-48;
  CHECK(judged(c).verdict == Verdict::fail);
}

TEST_CASE("a rope of no rows or no heads passes") {
  for (const bool has_rows : {false, true}) {
    RopeSetup setup;
    (has_rows ? setup.heads : setup.rows) = 0;
    CHECK(judged(rope_dump(setup, {})).verdict == Verdict::pass);
  }
}

}  // namespace
