// Replays: the ways in which kernels store weights are recognised, honest ones leave nothing else, and faults
// that hide behind the rounding of the weights are seen.
#include <cmath>

#include "tests/catch.hpp"
#include "tests/emulate/judged.hpp"
#include "tests/faults/fault.hpp"
#include "tests/support/random.hpp"
#include "verify/op.hpp"
#include "verify/statistics/replay_statistics.hpp"

namespace {

using namespace attest;
using namespace attest::emulate;

/// What is expected of a dump, and the dump, which it refers to.
struct Judged {
  Case dump;
  std::vector<Expected> expected;
  const Expected& output(std::string_view name) const {
    return *std::ranges::find(expected, name, &Expected::output);
  }
};

std::unique_ptr<Judged> expectation(const Setup& setup, const Kernel& kernel, bool with_gradients) {
  auto judged = std::make_unique<Judged>();
  judged->dump = dump_of(setup, kernel, with_gradients, {"o", "lse", "dq", "dk", "dv"});
  const auto problem = find_op(judged->dump).read(judged->dump);
  judged->expected = problem->expect([](double) {});
  return judged;
}

Setup long_rows(DType element) {
  Setup setup;
  setup.element = element;
  setup.queries = 128, setup.keys = 200;
  setup.width = setup.v_width = 40;
  setup.spec.scale = 1 / std::sqrt(40.0);
  return setup;
}

Kernel kernel_in(DType element) {
  Kernel kernel;
  kernel.p_dtype = element;
  kernel.qk.kind = kernel.pv.kind = Adder::Kind::tensor_core;
  return kernel;
}

double value_of(const std::vector<Statistic>& all, std::string_view name) {
  const auto found = std::ranges::find(all, name, &Statistic::name);
  return found == all.end() ? -1 : found->value;
}

}  // namespace

TEST_CASE("a replay finds out how a kernel stores its weights, and leaves nothing of their rounding") {
  const DType element = GENERATE(DType::float16, DType::bfloat16);
  const auto check = [&](const std::string& way, auto change) {
    Kernel kernel = kernel_in(element);
    change(kernel);
    INFO(way);
    const auto judged = expectation(long_rows(element), kernel, false);
    const Expected& o = judged->output("o");
    REQUIRE(o.replay());
    CHECK(o.replay()->way == way);
    CHECK(o.not_replayed.upper() < 0.05);
    const std::vector<Statistic> statistics = replay_statistics(o);
    REQUIRE(statistics.size() == 1);
    CHECK(statistics.front().name == "unreplayed");
    CHECK_FALSE(statistics.front().exceeds());
  };
  check("P relative to the maximum of tiles of 32 keys, first to last", [](Kernel&) {});
  check("P relative to the maximum of tiles of 64 keys, first to last", [](Kernel& k) { k.tile = 64; });
  check("P relative to the maximum of tiles of 64 keys, last to first",
        [](Kernel& k) { k.tile = 64, k.reversed = true; });
  check("P normalised", [](Kernel& k) { k.algorithm = Algorithm::standard; });
}

TEST_CASE("a replay finds out how a kernel stores dS") {
  const DType element = GENERATE(DType::float16, DType::bfloat16);
  const bool from_stored = GENERATE(false, true), is_scaled = GENERATE(false, true);
  Kernel kernel = kernel_in(element);
  kernel.ds_from_stored_p = from_stored, kernel.ds_is_scaled = is_scaled;
  kernel.delta_of = GENERATE(DeltaOf::stored_o, DeltaOf::computed_o, DeltaOf::weights);
  const auto judged = expectation(long_rows(element), kernel, true);
  for (const std::string output : {"dq", "dk", "dv"}) {
    const Expected& e = judged->output(output);
    INFO(output);
    REQUIRE(e.replay());
    if (output != "dv") CHECK(e.replay()->variant == 2 * from_stored + is_scaled);
    CHECK(e.not_replayed.upper() < 0.05);
    CHECK(share_predicted(e) > 0.98);
    for (const Statistic& s : replay_statistics(e)) CHECK_FALSE(s.exceeds());
  }
}

TEST_CASE("float16 sums under a bfloat16 contract are seen though no element is beyond its bound") {
  Setup setup = long_rows(DType::bfloat16);
  setup.queries = setup.keys = 400;
  const auto check = [&](auto change, bool is_wrong) {
    Kernel kernel = kernel_in(DType::bfloat16);
    kernel.tile = 16;
    change(kernel);
    const CaseFindings findings = judged(dump_of(setup, kernel, false, {"o", "lse"}));
    INFO(summary(findings));
    const OutputFindings& o = output(findings, "o");
    CHECK(o.beyond == 0);
    CHECK(o.verdict == (is_wrong ? Verdict::fail : Verdict::pass));
    if (!is_wrong) return;
    REQUIRE(!findings.diagnosis.empty());
    CHECK(findings.diagnosis.front().cause.starts_with("P.V accumulated"));
  };
  check([](Kernel&) {}, false);
  check([](Kernel& k) { k.mistakes.output_sum = DType::float16; }, true);
}

TEST_CASE("what is inexact before P and dS are stored is seen though no element is beyond its bound") {
  Setup setup = long_rows(DType::bfloat16);
  setup.queries = setup.keys = 257;
  setup.width = setup.v_width = 64;
  Kernel kernel = kernel_in(DType::bfloat16);
  const std::vector<std::string> outputs = {"o", "lse", "dq", "dk", "dv"};
  CHECK(judged(dump_of(setup, kernel, true, outputs)).verdict == Verdict::pass);
  for (const char* name : {"dS times 1.001", "dp sum in float16", "exp off by 1e-4, backward"}) {
    const CaseFindings findings = judged(faulty_dump_of(setup, kernel, fault_named(name), true, outputs));
    INFO(name << ": " << summary(findings));
    CHECK(findings.verdict == Verdict::fail);
    for (const OutputFindings& o : findings.outputs) CHECK(o.beyond == 0);
  }
}

TEST_CASE("gradients that no way of storing explains fail where o shows how the kernel stores") {
  const Setup setup = long_rows(DType::bfloat16);
  const Kernel kernel = kernel_in(DType::bfloat16);
  const std::vector<std::string> outputs = {"o", "lse", "dq", "dk", "dv"};
  for (const char* name : {"lse in float16, backward", "exp off by 2^-9, backward"}) {
    const CaseFindings findings = judged(faulty_dump_of(setup, kernel, fault_named(name), true, outputs));
    INFO(name << ": " << summary(findings));
    CHECK(output(findings, "o").verdict == Verdict::pass);
    for (const std::string_view gradient : {"dq", "dk", "dv"}) {
      const OutputFindings& found = output(findings, gradient);
      CHECK(found.beyond == 0);
      CHECK(found.predicted < 0.9);
      CHECK(value_of(found.statistics, "misrounded") > 0.1);
      CHECK(found.verdict == Verdict::fail);
    }
  }

  Kernel finer = kernel;
  finer.p_dtype = DType::float32;
  Case c = dump_of(setup, kernel, true, outputs);
  const Case of_finer = dump_of(setup, finer, true, outputs);
  for (const char* gradient : {"dq", "dk", "dv"}) c.out.at(gradient) = of_finer.out.at(gradient);
  const CaseFindings findings = judged(c);
  INFO("P and dS kept in float32: " << summary(findings));
  CHECK(findings.verdict == Verdict::pass);
  CHECK(output(findings, "dv").predicted < 0.9);
}

TEST_CASE("rows that are not stored as replayed are no fault but noise beside the replay is") {
  // Values of bfloat16 with a known rounding error of half the output's spacing, and hardly anything else.
  const Index rows = 200, columns = 64;
  const auto statistics_of = [&](double share_of_other_rows, double noise, std::uint64_t seed) {
    Tensor tensor{"bfloat16", DType::bfloat16, {rows, columns}, std::vector<double>(rows * columns)};
    test::Random random(seed);
    Expected e("o", tensor);
    e.expect_rest();
    e.replays.push_back({"made up", 0, std::vector<double>(rows * columns)});
    const auto normal = [&] {
      double sum = 0;
      for (int n = 0; n < 4; ++n) sum += random.symmetric();
      return sum * std::sqrt(0.75);
    };
    for (Index row = 0; row < rows; ++row) {
      const bool is_replayed = (random.symmetric() + 1) / 2 >= share_of_other_rows;
      for (Index column = 0; column < columns; ++column) {
        const Index at = row * columns + column;
        const double value = 1 + (random.symmetric() + 1) / 2, spacing = 0x1p-7, sigma = spacing / 2;
        const double shift = sigma * normal(), other = sigma * normal();
        e.set(at, {value, 0, spacing * 9, spacing * 9, std::hypot(sigma, spacing / std::sqrt(12.0)), 0});
        e.rest_sigma[at] = spacing * 0.01;
        e.replays.front().shift[at] = shift;
        const double error = is_replayed ? shift : other;
        tensor.values[at] =
            round_to(value + error + spacing * std::hypot(0.01, noise) * normal(), DType::bfloat16);
      }
    }
    take_replay(e, 0);
    return replay_statistics(e);
  };
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    for (const double share : {0.0, 0.02, 0.2, 0.6}) {
      for (const Statistic& s : statistics_of(share, 0, seed)) {
        INFO(s.name << " " << s.value << " of " << s.limit << ", share " << share << ", seed " << seed);
        CHECK_FALSE(s.exceeds());
      }
    }
    const std::vector<Statistic> noisy = statistics_of(0, 0.25, seed);
    REQUIRE(noisy.size() == 1);
    CHECK(noisy.front().exceeds());
  }
  CHECK(value_of(statistics_of(0, 0, 1), "unreplayed") < 0.02);
}
