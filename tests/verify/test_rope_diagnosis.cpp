// What is said of rotary embeddings that fail: each planted fault has its name, and not another's.
#include <algorithm>
#include <cmath>
#include <string>
#include <tuple>
#include <utility>

#include "tests/catch.hpp"
#include "tests/emulate/judged.hpp"
#include "tests/emulate/rope.hpp"
#include "tests/emulate/turned_rope.hpp"
#include "verify/bounds/rope_angles.hpp"

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

TEST_CASE("rotary embeddings of other positions and with one product rounded are named") {
  for (const DType element : elements) {
    RopeSetup setup;
    setup.element = element;
    setup.rows = 200;
    const Case right = rope_dump(setup, {});
    const auto changed = [&](auto turned) {
      Case c = right;
      for (const auto& [output, input, sign] : {std::tuple{"y", "x", 1.0}, std::tuple{"dx", "dy", -1.0}}) {
        if (!c.out.contains(output)) continue;
        const std::vector<double>& x = c.in.at(input).values;
        for (Index h = 0; h < 2; ++h) {
          for (Index s = 0; s < 200; ++s) {
            for (Index k = 0; k < 32; ++k) {
              const Index at = (h * 200 + s) * 64 + k;
              const double f = round_to(std::pow(10000, -static_cast<double>(k) / 32), DType::float32);
              const auto [a, b] = turned(s, f, x[at], x[at + 32], sign);
              c.out.at(output).values[at] = round_to(a, element);
              c.out.at(output).values[at + 32] = round_to(b, element);
            }
          }
        }
      }
      return first_cause(c);
    };
    INFO(format_of(element).name);
    CHECK(changed([](Index s, double f, double x, double y, double sign) {
            const double angle = round_to(static_cast<double>(std::min<Index>(s, 127)) * f, DType::float32);
            const double c = std::cos(angle), d = sign * std::sin(angle);
            return std::pair{x * c - y * d, y * c + x * d};
          }) == "positions clamped to 127");
    CHECK(changed([&](Index s, double f, double x, double y, double sign) {
            const double angle = round_to(static_cast<double>(s) * f, DType::float32);
            const double c = std::cos(angle), d = sign * std::sin(angle);
            const double first = round_to(x * c - y * d, element);
            return std::pair{first, y * c + first * d};
          }) == "the second column of a pair, formed of the first as overwritten");
    if (element == DType::bfloat16) continue;
    CHECK(
        changed([](Index s, double f, double x, double y, double sign) {
          const double angle = round_to(static_cast<double>(s) * f, DType::float32);
          const double c = std::cos(angle), d = sign * std::sin(angle);
          return std::pair{x * c - round_to(y * d, DType::float16), round_to(y * c, DType::float16) + x * d};
        }) == "products with the second column of a pair in float16");
  }
}

TEST_CASE("scalings that are applied in part, or twice, are named") {
  constexpr double length_factor = 4, attention_factor = 1.5;
  for (const DType element : elements) {
    RopeSetup setup;
    setup.element = element;
    setup.rows = 500;
    setup.frequencies = {.theta = 10000,
                         .scaling = RopeScaling::yarn,
                         .factor = length_factor,
                         .original_max_position_embeddings = 128,
                         .beta_fast = 32,
                         .beta_slow = 1};
    Case right = rope_dump(setup, {});
    right.spec["attention_factor"] = attention_factor;
    RopeFrequencies plain = setup.frequencies, divided = setup.frequencies;
    plain.scaling = RopeScaling::none, divided.scaling = RopeScaling::linear;
    const auto frequencies = [&](const RopeFrequencies& f) {
      return bounds::pair_frequencies(f, setup.rotary_dim, setup.rule);
    };
    const auto own = frequencies(setup.frequencies), kept = frequencies(plain), all = frequencies(divided);
    // f(k): a frequency; factors of cos and of sin.
    const auto cause = [&](auto f, double of_cos, double of_sin) {
      return first_cause(turned(setup, right, [&](Index s, Index k) {
        const double angle =
            round_to(static_cast<double>(s) * round_to(f(k), DType::float32), DType::float32);
        return std::pair{of_cos * std::cos(angle), of_sin * std::sin(angle)};
      }));
    };
    const auto own_of = [&](Index k) { return own[k].exact.hi; };
    INFO(format_of(element).name);
    CHECK_THAT(cause(own_of, attention_factor, attention_factor), test::Mentions("no failure"));
    CHECK(cause(own_of, attention_factor, 1) == "attention_factor on cos only");
    CHECK(cause(own_of, 1, attention_factor) == "attention_factor on sin only");
    CHECK(cause(own_of, 2.25, 2.25) == "attention_factor applied twice");
    const auto is_between = [&](Index k) {
      return own_of(k) < kept[k].exact.hi && own_of(k) > all[k].exact.hi;
    };
    CHECK(cause([&](Index k) { return is_between(k) ? kept[k].exact.hi : own_of(k); }, 1.5, 1.5) ==
          "frequencies between the limits kept, not interpolated");
    CHECK(cause([&](Index k) { return is_between(k) ? all[k].exact.hi : own_of(k); }, 1.5, 1.5) ==
          "frequencies between the limits divided by the factor, not interpolated");
  }
}

TEST_CASE("tables of another width are named") {
  for (const DType element : elements) {
    RopeSetup setup;
    setup.element = element;
    setup.angles = RopeAngles::half_table;
    setup.rows = 150;
    setup.rotary_dim = 32;
    const Case right = rope_dump(setup, {});
    const Case wrong = turned(setup, right, [](Index s, Index k) {
      const double angle = static_cast<double>(s) * std::pow(10000, -2 * static_cast<double>(k) / 64);
      return std::pair{round_to(std::cos(angle), DType::float32), round_to(std::sin(angle), DType::float32)};
    });
    INFO(format_of(element).name);
    CHECK(first_cause(wrong) == "cos and sin of theta^(-2k/64), not theta^(-2k/32)");
    CHECK(first_cause(turned(setup, right, [&](Index s, Index k) {
            const double angle = static_cast<double>(s % 64) * std::pow(10000, -static_cast<double>(k) / 16);
            return std::pair{round_to(std::cos(angle), DType::float32),
                             round_to(std::sin(angle), DType::float32)};
          })) == "positions modulo 64");
  }
}

TEST_CASE("a sine with the wrong sign for one column of a pair is named") {
  for (const DType element : elements) {
    RopeSetup setup;
    setup.element = element;
    setup.angles = RopeAngles::half_table;
    const Case right = rope_dump(setup, {});
    const Case wrong = turned(setup, right, [&](Index row, Index k) {
      return std::pair{right.in.at("cos").values[row * 32 + k], -right.in.at("sin").values[row * 32 + k]};
    });
    for (const char* output : {"y", "dx"}) {
      for (const bool of_first : {true, false}) {
        Case c = right;
        for (Index at = 0; at < 2 * 64 * 64; ++at)
          if ((at % 64 < 32) == of_first) c.out.at(output).values[at] = wrong.out.at(output).values[at];
        INFO(format_of(element).name << " " << output);
        CHECK(first_cause(c) == std::string("sin with the wrong sign for the ") +
                                    (of_first ? "first" : "second") + " column of a pair");
      }
    }
  }
}
