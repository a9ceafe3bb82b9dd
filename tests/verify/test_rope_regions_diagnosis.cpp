// What is said of rotary embeddings of which a part is right, or that err by no more than roundings: where an
// answer holds, and none that changes nothing.
#include <cmath>
#include <string>
#include <utility>
#include <vector>

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

TEST_CASE("a rotation that is missing in a part of the heads or columns is named with the place") {
  for (const DType element : {DType::float16, DType::float32}) {
    RopeSetup setup{.element = element, .heads = 4, .rows = 32};
    INFO(setup.text());
    const Case right = rope_dump(setup, {});
    // is_left(h, d): the element is as it was.
    const auto cause = [&](auto is_left) {
      Case c = right;
      for (const auto& [output, input] : {std::pair{"y", "x"}, std::pair{"dx", "dy"}})
        for (Index at = 0; at < std::ssize(c.out.at(output).values); ++at)
          if (is_left(at / 64 / setup.rows % 4, at % 64))
            c.out.at(output).values[at] = c.in.at(input).values[at];
      return first_cause(c);
    };
    CHECK(cause([](Index h, Index) { return h == 0; }) == "no rotation, in head 0");
    CHECK(cause([](Index h, Index d) { return h == 2 && d < 32; }) ==
          "no rotation, in columns 0..31 of head 2");
  }
}

TEST_CASE("positions that are wrong in some rows are not said to be wrong in all") {
  for (const DType element : elements) {
    RopeSetup setup{.element = element};
    INFO(setup.text());
    const auto cause = [&](auto position) {
      return first_cause(turned(setup, rope_dump(setup, {}), [&](Index row, Index k) {
        const double f = in_float(std::pow(10000, -static_cast<double>(k) / 32));
        const double angle = in_float(static_cast<double>(position(row)) * f);
        return std::pair{std::cos(angle), std::sin(angle)};
      }));
    };
    CHECK(cause([](Index row) { return row / 2 * 2; }) ==
          "positions 1 too low, in every second row from 1 on");
    CHECK(cause([](Index row) { return row % 8 == 7 ? row - 1 : row; }) ==
          "positions 1 too low, in every 8th row from 7 on");
  }
}

TEST_CASE("angles by repeated multiplication have their name under yarn, and nothing that changes nothing") {
  for (const Index heads : {1, 2}) {
    RopeSetup setup{.element = DType::float32, .heads = heads, .rows = 60, .position_start = 1000};
    setup.frequencies = {.theta = 10000,
                         .scaling = RopeScaling::yarn,
                         .factor = 4,
                         .original_max_position_embeddings = 64,
                         .beta_fast = 32,
                         .beta_slow = 1};
    INFO(setup.text());
    const auto frequencies = bounds::pair_frequencies(setup.frequencies, 64, setup.rule);
    const double step = in_float(std::pow(10000, -1.0 / 32));
    CHECK(first_cause(turned(setup, rope_dump(setup, {}), [&](Index row, Index k) {
            double angle = 1000 + static_cast<double>(row % 60);
            for (Index n = 0; n < k; ++n) angle = in_float(angle * step);
            angle *= frequencies[k].exact.hi * std::pow(10000, static_cast<double>(k) / 32);
            return std::pair{std::cos(angle), std::sin(angle)};
          })) == "angles by repeated multiplication with theta^(-2/R) in float32");
  }
}

TEST_CASE("positions that are multiplied by 1 / factor have a name") {
  RopeSetup setup{.element = DType::float32, .rows = 100};
  setup.frequencies = {10000, RopeScaling::linear, 3};
  CHECK(first_cause(turned(setup, rope_dump(setup, {}), [&](Index row, Index k) {
          const double position = in_float(static_cast<double>(row) * in_float(1.0 / 3));
          const double angle = in_float(position * in_float(std::pow(10000, -static_cast<double>(k) / 32)));
          return std::pair{std::cos(angle), std::sin(angle)};
        })) == "positions, not inverse frequencies, multiplied by 1 / factor");
}

TEST_CASE("two heads that are exchanged do not all have x of head 0") {
  for (const DType element : elements) {
    RopeSetup setup{.element = element};
    Case c = rope_dump(setup, {});
    std::vector<double>& y = c.out.at("y").values;
    for (Index at = 0; at < setup.rows * 64; ++at) std::swap(y[at], y[at + setup.rows * 64]);
    c.out.erase("dx");
    CHECK(first_cause(c) != "x of head 0");
  }
}

TEST_CASE("pairs of the other style that turn by their own cosines of a full table are named") {
  for (const DType element : elements) {
    for (const bool is_half : {true, false}) {
      const RopeStyle half = RopeStyle::half, interleaved = RopeStyle::interleaved;
      RopeSetup setup{
          .style = is_half ? half : interleaved, .angles = RopeAngles::full_table, .element = element};
      const Case c = rope_dump(setup, {});
      const auto of_pair = [&](const std::string& table, Index row, Index k) {
        return c.in.at(table).values[row * setup.rotary_dim + (is_half ? k : 2 * k)];
      };
      setup.style = is_half ? interleaved : half;
      CHECK(first_cause(turned(setup, c,
                               [&](Index row, Index k) {
                                 return std::pair{of_pair("cos", row, k), of_pair("sin", row, k)};
                               })) == (is_half ? "style = interleaved, with cos and sin of pair k"
                                               : "style = half, with cos and sin of pair k"));
    }
  }
}
