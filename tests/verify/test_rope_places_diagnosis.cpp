// What is said of rotary embeddings whose rows and pairs turn by other angles than their own.
#include <algorithm>
#include <cmath>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "tests/catch.hpp"
#include "tests/emulate/judged.hpp"
#include "tests/emulate/packed.hpp"
#include "tests/emulate/rope.hpp"
#include "tests/emulate/turned_rope.hpp"
#include "verify/bounds/rope_angles.hpp"

namespace {

using namespace attest;
using namespace attest::emulate;

constexpr DType elements[] = {DType::float16, DType::bfloat16, DType::float32};

/// First cause where pair k of row b S + s has the angle position(row) * frequency(k), in float32.
template <class Position, class Frequency>
std::string cause_of_angles(const RopeSetup& setup, const Position& position, const Frequency& frequency) {
  return first_cause(turned(setup, rope_dump(setup, {}), [&](Index row, Index k) {
    const double angle = in_float(in_float(position(row)) * in_float(frequency(k)));
    return std::pair{std::cos(angle), std::sin(angle)};
  }));
}

/// The frequencies as they should be.
std::vector<double> frequencies_of(const RopeSetup& setup) {
  std::vector<double> all;
  for (const auto& f : bounds::pair_frequencies(setup.frequencies, setup.rotary_dim, setup.rule))
    all.push_back(f.exact.hi);
  return all;
}

}  // namespace

TEST_CASE("inverse frequencies by repeated multiplication have a name") {
  RopeSetup setup;
  setup.element = DType::float32;
  setup.width = setup.rotary_dim = 128;
  setup.position_start = 30000;
  std::vector<double> frequencies = {1};
  // As a device may have it: a unit in the last place off.
  const double step = std::nextafter(static_cast<float>(std::pow(10000, -1.0 / 64)), 0.0F);
  while (frequencies.size() < 64) frequencies.push_back(in_float(frequencies.back() * step));
  CHECK(cause_of_angles(
            setup, [](Index row) { return 30000.0 + static_cast<double>(row); },
            [&](Index k) { return frequencies[k]; }) ==
        "inverse frequencies by repeated multiplication with theta^(-2/R) in float32");
}

TEST_CASE("positions that are divided without remainder have a name") {
  for (const DType element : elements) {
    RopeSetup setup{.element = element};
    setup.frequencies = {10000, RopeScaling::linear, 4};
    INFO(setup.text());
    const std::vector<double> own = frequencies_of(setup);
    const auto cause = [&](auto whole) {
      return cause_of_angles(
          setup, [&](Index row) { return 4 * whole(static_cast<double>(row) / 4); },
          [&](Index k) { return own[k]; });
    };
    CHECK(cause([](double p) { return std::floor(p); }) ==
          "positions divided by the factor, cut off to whole numbers");
    CHECK(cause([](double p) { return std::nearbyint(p); }) ==
          "positions divided by the factor, rounded to whole numbers");
  }
}

TEST_CASE("interpolated frequencies with the weights exchanged have a name") {
  for (const DType element : elements) {
    RopeSetup setup{.element = element, .rows = 150};
    setup.frequencies = {.theta = 10000,
                         .scaling = RopeScaling::llama3,
                         .factor = 8,
                         .original_max_position_embeddings = 64,
                         .low_freq_factor = 1,
                         .high_freq_factor = 4};
    INFO(setup.text());
    const std::vector<double> own = frequencies_of(setup);
    CHECK(cause_of_angles(
              setup, [](Index row) { return static_cast<double>(row); },
              [&](Index k) {
                const double kept = std::pow(10000, -static_cast<double>(k) / 32), divided = kept / 8;
                const bool is_between = own[k] < kept * (1 - 1e-6) && own[k] > divided * (1 + 1e-6);
                return is_between ? kept + divided - own[k] : own[k];
              }) == "frequencies between the limits interpolated with the weights of both ends exchanged");
  }
}

TEST_CASE("rows at other positions are named with their place") {
  for (const DType element : elements) {
    for (const RopeAngles angles : {RopeAngles::theta, RopeAngles::half_table}) {
      RopeSetup setup{.angles = angles, .element = element, .batch = 2, .heads = 1, .rows = 100, .width = 80};
      INFO(setup.text() << (angles == RopeAngles::theta ? ", angles" : ", a table"));
      const std::vector<double> own = frequencies_of(setup);
      const Case right = rope_dump(setup, {});
      // position(b, s)
      const auto cause = [&](auto position) {
        return first_cause(turned(setup, right, [&](Index row, Index k) {
          const Index p = position(row / 100, row % 100);
          if (angles == RopeAngles::half_table)
            return std::pair{right.in.at("cos").values[p * 32 + k], right.in.at("sin").values[p * 32 + k]};
          const double angle = in_float(static_cast<double>(p) * in_float(own[k]));
          return std::pair{std::cos(angle), std::sin(angle)};
        }));
      };
      CHECK(cause([](Index, Index s) { return s < 64 ? s : s - 37; }) ==
            "positions 37 too low, in rows from 64 on");
      CHECK(cause([](Index b, Index s) { return b == 1 && s >= 10 && s < 20 ? Index{5} : s; }) ==
            "position 5 for each row, in rows 10..19 of batch entry 1");
      CHECK(cause([](Index, Index s) { return s % 4 == 3 ? 99 - s : s; }) ==
            "positions in the order of the rows reversed, in every 4th row from 3 on");
      CHECK(cause([](Index, Index s) { return s == 31   ? 77
                                              : s == 60 ? 2
                                                        : s; }) ==
            "other positions: row 31 at 77, not 31, row 60 at 2, not 60, row 131 at 77, not 31, and so on");
    }
  }
}

TEST_CASE("positions of 64 bits that are read as if they had 32 have a name") {
  for (const DType element : elements) {
    RopeSetup setup{.element = element};
    INFO(setup.text());
    const std::vector<double> own = frequencies_of(setup);
    CHECK(cause_of_angles(
              setup, [](Index row) { return row % 2 == 0 ? static_cast<double>(row) / 2 : 0; },
              [&](Index k) { return own[k]; }) ==
          "positions of 64 bits read as if they had 32: half of them, and zeros between");
  }
}

TEST_CASE("first rows of packed sequences that count as the last of those before have a name") {
  for (const DType element : elements) {
    RopeSetup setup{.element = element, .heads = 1};
    INFO(setup.text());
    const std::vector<double> own = frequencies_of(setup);
    const std::vector<double> starts = {0, 10, 30, 64};
    const auto dump = [&](bool is_faulty) {
      Case c = turned(setup, rope_dump(setup, {}), [&](Index row, Index k) {
        double start = 0;
        for (const double s : starts) {
          const double n = static_cast<double>(row);
          if (is_faulty ? s < n : s <= n) start = s;
        }
        const double angle = in_float((static_cast<double>(row) - start) * in_float(own[k]));
        return std::pair{std::cos(angle), std::sin(angle)};
      });
      c.spec["layout"] = std::string("thd");
      c.in["cu_seqlens"] = {"int32", {}, {4}, starts};
      for (auto* tensors : {&c.in, &c.out})
        for (auto& [name, tensor] : *tensors)
          if (tensor.shape.size() == 4) tensor.shape = {64, 1, 64};
      return c;
    };
    CHECK_THAT(first_cause(dump(false)), test::Mentions("no failure"));
    CHECK(first_cause(dump(true)) ==
          "the position after that of the row before, in the first row of every sequence but the first");
  }
}

TEST_CASE("cosines and sines of other pairs are named") {
  for (const DType element : elements) {
    for (const RopeStyle style : {RopeStyle::half, RopeStyle::interleaved}) {
      RopeSetup setup{.style = style, .angles = RopeAngles::half_table, .element = element, .heads = 1};
      INFO(setup.text());
      const Case right = rope_dump(setup, {});
      const auto cause = [&](auto of_cos, auto of_sin) {
        return first_cause(turned(setup, right, [&](Index row, Index k) {
          return std::pair{right.in.at("cos").values[row * 32 + of_cos(k)],
                           right.in.at("sin").values[row * 32 + of_sin(k)]};
        }));
      };
      const auto own = [](Index k) { return k; };
      CHECK(cause([](Index k) { return k % 16; }, own) == "cos of pair k modulo 16, not k");
      CHECK(cause(own, [](Index k) { return k % 8; }) == "sin of pair k modulo 8, not k");
      const auto halved = [](Index k) { return k / 2; };
      CHECK(cause(halved, halved) == "cos and sin of pair k / 2 without remainder, not k");
      const auto next = [](Index k) { return std::min<Index>(k + 1, 31); };
      CHECK(cause(next, next) == "cos and sin of pair k + 1, not k");
    }
  }
}

TEST_CASE("columns that do not turn and are not copied, or make pairs, are named") {
  for (const DType element : elements) {
    RopeSetup setup{.element = element, .width = 100};
    INFO(setup.text());
    const Case right = rope_dump(setup, {});
    Case c = right;
    for (const auto& [output, input, sign] : {std::tuple{"y", "x", 1.0}, std::tuple{"dx", "dy", -1.0}})
      for (Index n = 0; n < 128 * 100; ++n)
        if (n % 100 >= 96) c.out.at(output).values[n] = c.in.at(input).values[(7 * n + 31) % 12800];
    CHECK(first_cause(c) == "columns that do not turn are not copied from x, in columns from 96 on");
    c = right;
    const std::vector<double> own = frequencies_of(setup);
    for (const auto& [output, input, sign] : {std::tuple{"y", "x", 1.0}, std::tuple{"dx", "dy", -1.0}}) {
      for (Index row = 0; row < 128; ++row) {
        for (Index k = 0; k < 32; ++k) {
          const double angle = in_float(static_cast<double>(row % 64) * in_float(own[k]));
          const double cos = std::cos(angle), sin = sign * std::sin(angle);
          const double a = c.in.at(input).values[row * 100 + k],
                       b = c.in.at(input).values[row * 100 + k + 50];
          c.out.at(output).values[row * 100 + k] = round_to(a * cos - b * sin, element);
          if (k + 50 < 64) c.out.at(output).values[row * 100 + k + 50] = round_to(b * cos + a * sin, element);
        }
      }
    }
    CHECK(first_cause(c) == "pairs of columns k and k + D/2, not k + R/2");
  }
}

TEST_CASE("rows and heads that hold those of others are named") {
  for (const DType element : elements) {
    const RopeSetup setup{.element = element, .heads = 4, .rows = 40};
    INFO(setup.text());
    const Case right = rope_dump(setup, {});
    // y of vector n is that of vector of(n) of what is turned, in rows from 8 on.
    const auto cause = [&](const Case& turned_from, auto of) {
      Case c = right;
      for (Index n = 0; n < 4 * 40; ++n)
        for (Index d = 0; d < 64 && n % 40 >= 8; ++d)
          c.out.at("y").values[n * 64 + d] = turned_from.out.at("y").values[of(n) * 64 + d];
      return first_cause(c);
    };
    CHECK(cause(right, [](Index n) { return n - 1; }) == "y of the row before");
    CHECK(cause(right, [](Index n) { return n / 80 * 40 + n % 40; }) ==
          "x of head h / 2 without remainder, not h");
    Case shifted = right;
    for (Index at = 64; at < 4 * 40 * 64; ++at)
      shifted.in.at("x").values[at] = right.in.at("x").values[at - 64];
    shifted = rope_dump(shifted, setup, {});
    CHECK(cause(shifted, [](Index n) { return n; }) == "x of the row before");
  }
}

TEST_CASE("positions of another order of rows and heads are named") {
  for (const DType element : elements) {
    const RopeSetup setup{.element = element, .heads = 1, .rows = 80};
    INFO(setup.text());
    const std::vector<double> own = frequencies_of(setup);
    Case c = turned(setup, rope_dump(setup, {}), [&](Index row, Index k) {
      const double angle = in_float(static_cast<double>(row / 2) * in_float(own[k]));
      return std::pair{std::cos(angle), std::sin(angle)};
    });
    for (auto* tensors : {&c.in, &c.out})
      for (auto& [name, tensor] : *tensors) tensor.shape = {1, 2, 40, 64};
    CHECK(first_cause(c) == "positions counted as if the layout were bshd");
  }
}

TEST_CASE("inverse frequencies with another factor are named by it, others by their values") {
  for (const DType element : elements) {
    const RopeSetup setup{.element = element, .heads = 1, .rows = 150};
    INFO(setup.text());
    const std::vector<double> own = frequencies_of(setup);
    const auto cause = [&](auto factor) {
      return cause_of_angles(
          setup, [](Index row) { return static_cast<double>(row); },
          [&](Index k) { return factor(k) * own[k]; });
    };
    CHECK(cause([](Index) { return 1.5; }) == "inverse frequencies times 1.5");
    CHECK(cause([](Index) { return 1.0 / 3; }) == "inverse frequencies divided by 3");
    CHECK(cause([](Index k) { return k >= 4 && k < 8 ? 0.25 : 1; }) ==
          "inverse frequencies of pairs 4..7 divided by 4");
    CHECK(cause([](Index k) { return k == 5   ? 0.7
                                     : k == 9 ? 1.2
                                              : 1; }) ==
          "other inverse frequencies: that of pair 5 is about 0.166, not 0.237, of pair 9 is about 0.09, not "
          "0.075");
  }
}

TEST_CASE("packed sequences whose positions run on have one name") {
  for (const DType element : elements) {
    for (const RopeAngles angles : {RopeAngles::theta, RopeAngles::half_table}) {
      const RopeSetup setup{.angles = angles, .element = element, .rows = 40};
      Case c = rope_dump(setup, {});
      for (auto* tensors : {&c.in, &c.out})
        for (auto& [name, tensor] : *tensors)
          if (tensor.shape.size() == 4) tensor = packed(tensor);
      c.spec.erase("position_start");
      c.in.erase("positions");
      c.spec["layout"] = std::string("thd");
      c.in["cu_seqlens"] = {"int64", {}, {2}, {0, 40}};
      INFO(setup.text() << (angles == RopeAngles::theta ? ", angles" : ", a table"));
      CHECK(judged(c).verdict == Verdict::pass);
      c.in["cu_seqlens"] = {"int64", {}, {5}, {0, 10, 10, 25, 40}};
      const CaseFindings findings = judged(c);
      CHECK(findings.verdict == Verdict::fail);
      CHECK(findings.diagnosis.front().cause == "positions that run on from one sequence to the next");
      CHECK(findings.diagnosis.size() == 1);
    }
  }
}
