// Rotary embeddings by approximations of powers, sines and cosines: what a contract declares of them passes,
// and not more; undeclared, they have a name.
#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "core/invalid_case.hpp"
#include "tests/catch.hpp"
#include "tests/emulate/judged.hpp"
#include "tests/emulate/rope.hpp"
#include "tests/emulate/turned_rope.hpp"
#include "tests/support/random.hpp"
#include "verify/bounds/rope_angles.hpp"

namespace {

using namespace attest;
using namespace attest::emulate;

constexpr double angle_error = 0x1p-19, sincos_error = 0x1p-21;
constexpr DType elements[] = {DType::float16, DType::bfloat16, DType::float32};

/// Angles off by up to `of_angle` of themselves, then sines and cosines by up to `of_each`; alike in all
/// heads.
Case approximated(const RopeSetup& setup, double of_angle, double of_each) {
  const auto frequencies = bounds::pair_frequencies(setup.frequencies, setup.rotary_dim, setup.rule);
  return turned(setup, rope_dump(setup, {}), [&](Index row, Index k) {
    test::Random random(static_cast<std::uint64_t>(row * setup.rotary_dim + k));
    const double position = setup.position_start + static_cast<double>(row % setup.rows);
    const double angle = position * frequencies[k].exact.hi * (1 + of_angle * random.symmetric());
    return std::pair{std::cos(angle) + of_each * random.symmetric(),
                     std::sin(angle) + of_each * random.symmetric()};
  });
}

Case declared(Case c) {
  c.contract["angle_error"] = angle_error;
  c.contract["sincos_error"] = sincos_error;
  return c;
}

}  // namespace

TEST_CASE("approximated angles, sines and cosines pass if the contract declares their errors") {
  for (const DType element : elements) {
    for (const double start : {500.0, 5000.0}) {
      RopeSetup setup{.element = element, .heads = 4, .position_start = start};
      const Case c = approximated(setup, angle_error, sincos_error);
      INFO(setup.text());
      CHECK(judged(c).verdict == Verdict::fail);
      CHECK(first_cause(c) ==
            "cosines and sines are approximations: contract keys angle_error, sincos_error");
      CHECK(judged(declared(c)).verdict == Verdict::pass);
    }
  }
}

TEST_CASE("approximations have their name at positions far out, and wrong positions have not") {
  const auto is_named = [](const Case& c) {
    return std::ranges::any_of(judged(c).diagnosis, [](const DiagnosisEntry& x) {
      return x.cause.starts_with("cosines and sines are approximations");
    });
  };
  RopeSetup setup{.element = DType::float32, .heads = 3, .rows = 8, .position_start = 1e5};
  CHECK(is_named(approximated(setup, 0x1p-22, sincos_error)));
  setup.position_start = 1e6;
  const auto frequencies = bounds::pair_frequencies(setup.frequencies, setup.rotary_dim, setup.rule);
  for (const double off : {1.0, 3.0}) {
    const Case c = turned(setup, rope_dump(setup, {}), [&](Index row, Index k) {
      const double position = setup.position_start + off + static_cast<double>(row);
      const double angle = in_float(in_float(position) * in_float(frequencies[k].exact.hi));
      return std::pair{std::cos(angle), std::sin(angle)};
    });
    INFO(off);
    CHECK(judged(c).verdict == Verdict::fail);
    CHECK_FALSE(is_named(c));
  }
}

TEST_CASE("errors beyond those declared of angles, or of sines and cosines, fail") {
  RopeSetup setup{.element = DType::float32, .heads = 4};
  CHECK(judged(declared(approximated(setup, 0, 4 * sincos_error))).verdict == Verdict::fail);
  setup.position_start = 5000;
  CHECK(judged(declared(approximated(setup, 2 * angle_error, 0))).verdict == Verdict::fail);
}

TEST_CASE("declared errors of angles do not excuse a wrong position") {
  for (const DType element : elements) {
    RopeSetup setup{.element = element, .position_start = 5000};
    RopeKernel kernel;
    kernel.fault = RopeFault::position_plus_one;
    CHECK(judged(declared(rope_dump(setup, kernel))).verdict == Verdict::fail);
  }
}

TEST_CASE("angles of which a contract promises nothing are inconclusive") {
  RopeSetup setup{.position_start = 5000};
  Case c = rope_dump(setup, {});
  c.contract["angle_error"] = 0.01;
  const CaseFindings findings = judged(c);
  CHECK(findings.verdict == Verdict::inconclusive);
  CHECK(judged(c).contract == "computed in float32 (declared), angles within 0.01");
}

TEST_CASE("a table has no errors of sines and cosines to declare") {
  RopeSetup setup{.angles = RopeAngles::half_table};
  Case c = rope_dump(setup, {});
  c.contract["sincos_error"] = sincos_error;
  CHECK_THROWS_WITH(judged(c),
                    attest::test::Mentions("contract attribute sincos_error is about cosines and sines that "
                                           "the kernel computes, but in/cos is given"));
}
