// What is said of rotary embeddings that fail: each planted fault has its name, and not another's.
#include <string>

#include "tests/catch.hpp"
#include "tests/emulate/judged.hpp"
#include "tests/emulate/rope.hpp"

namespace {

using namespace attest;
using namespace attest::emulate;

constexpr DType elements[] = {DType::float16, DType::bfloat16, DType::float32};

}  // namespace

TEST_CASE("the faults of a rotary embedding have names") {
  for (const DType element : elements) {
    for (const RopeStyle style : {RopeStyle::half, RopeStyle::interleaved}) {
      RopeSetup setup;
      setup.element = element;
      setup.style = style;
      setup.position_start = 300;
      const auto cause_of = [&](RopeFault fault) {
        RopeKernel kernel;
        kernel.fault = fault;
        return first_cause(rope_dump(setup, kernel));
      };
      INFO(setup.text());
      CHECK(cause_of(RopeFault::table_bfloat16) == "cos and sin in bfloat16");
      CHECK(cause_of(RopeFault::table_float16) == "cos and sin in float16");
      CHECK(cause_of(RopeFault::inv_freq_bfloat16) == "inverse frequencies in bfloat16");
      setup.position_start = 3000;
      CHECK(cause_of(RopeFault::position_bfloat16) == "positions in bfloat16");
      setup.rotary_dim = 32;
      CHECK(cause_of(RopeFault::rotary_dim_ignored) == "rotary_dim = 64");
      setup.rotary_dim = 64;
      setup.frequencies = {10000, RopeScaling::linear, 4};
      CHECK(cause_of(RopeFault::scaling_ignored) == "scaling = none");
    }
  }
}

TEST_CASE("another base is named by its value, whatever it is") {
  for (const DType element : elements) {
    for (const double start : {0.0, 3000.0}) {
      for (const auto& [theta, name] :
           {std::pair{500000.0, "theta = 500000"}, std::pair{1e6, "theta = 1000000"},
            std::pair{10500.0, "theta = 10500"}, std::pair{100.0, "theta = 100"}}) {
        RopeSetup setup;
        setup.element = element;
        setup.position_start = start;
        setup.frequencies.theta = theta;
        Case c = rope_dump(setup, {});
        c.spec["theta"] = 10000.0;
        INFO(setup.text());
        CHECK(first_cause(c) == name);
      }
    }
  }
}

TEST_CASE("positions that start elsewhere are named") {
  RopeSetup setup;
  Case c = rope_dump(setup, {});
  c.spec["position_start"] = std::int64_t{500};
  CHECK(first_cause(c) == "positions that start at 0");
}

TEST_CASE(
    "products that are rounded are named by the contract that would allow them where a table is given") {
  for (const DType element : {DType::float16, DType::bfloat16}) {
    RopeSetup setup;
    setup.element = setup.table = element;
    setup.angles = RopeAngles::half_table;
    Case c = rope_dump(setup, {});
    // The tensors of an eager kernel: each product, then their sum.
    const auto& x = c.in.at("x").values;
    const auto &cos = c.in.at("cos").values, &sin = c.in.at("sin").values;
    for (Index row = 0; row < setup.heads * setup.rows; ++row) {
      for (Index k = 0; k < 32; ++k) {
        const double a = x[row * 64 + k], b = x[row * 64 + k + 32];
        const double n = cos[row % setup.rows * 32 + k], s = sin[row % setup.rows * 32 + k];
        const auto rounded = [&](double value) { return round_to(value, element); };
        c.out.at("y").values[row * 64 + k] = rounded(rounded(a * n) + rounded(-b * s));
        c.out.at("y").values[row * 64 + k + 32] = rounded(rounded(b * n) + rounded(a * s));
      }
    }
    CHECK(first_cause(c) ==
          "every operation in " + std::string(format_of(element).name) + ": contract key compute_dtype");
    c.contract["compute_dtype"] = std::string(format_of(element).name);
    CHECK(judged(c).verdict == Verdict::pass);
  }
}

TEST_CASE("few wrong elements of a rotary embedding do not look like its arithmetic") {
  for (const DType element : elements) {
    RopeSetup setup;
    setup.element = element;
    Case c = rope_dump(setup, {});
    for (const Index at : {70, 1207, 5303}) c.out.at("y").values[at] *= 1 + 64 * unit_roundoff(element);
    INFO(setup.text());
    CHECK(first_cause(c) == "none");
  }
}
