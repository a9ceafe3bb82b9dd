// What is said of attention dumps that tell little: lse without o, few rows or columns, rows without keys.
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "tests/catch.hpp"
#include "tests/emulate/honest_attention.hpp"
#include "tests/emulate/judged.hpp"
#include "tests/emulate/tensors.hpp"
#include "verify/diagnosis/diagnose.hpp"

namespace {

using namespace attest;
using namespace attest::emulate;
using Catch::Matchers::StartsWith;

Case dump(const Setup& setup, const std::vector<std::string>& outputs = {"o", "lse"}) {
  Case c = dump_of(setup, honest_kernels(setup.element)[0].kernel, false, outputs);
  c.in.erase("do");
  return c;
}

Case shifted(Case c, double by) {
  for (double& x : c.out.at("lse").values) x = round_to(x + by, DType::float32);
  return c;
}

/// One query a head.
Setup decode(Index heads, Index keys) {
  Setup setup;
  setup.q_heads = setup.kv_heads = heads, setup.queries = 1, setup.keys = keys;
  return setup;
}

bool is_named(const Case& c, const std::string& start) {
  return std::ranges::any_of(judged(c).diagnosis,
                             [&](const DiagnosisEntry& x) { return x.cause.starts_with(start); });
}

const std::string lse_itself =
    "lse itself, or a number added to all scores of a row: o is right, so that weights are";

/// The first 25 rows see nothing.
Case with_empty_rows() {
  Setup setup;
  setup.queries = 65, setup.keys = 40, setup.spec.causal = Causal::bottom_right;
  return dump(setup);
}

constexpr Index empty_rows = 25;

template <class Value>
Case with_o_of_empty_rows(Case c, Value value) {
  const Index width = c.in.at("v").shape[3], keys = c.in.at("v").shape[2];
  for (Index h = 0; h < 2; ++h) {
    for (Index i = 0; i < empty_rows; ++i) {
      for (Index e = 0; e < width; ++e) {
        double mean = 0;
        for (Index j = 0; j < keys; ++j)
          mean += c.in.at("v").values[(h * keys + j) * width + e] / static_cast<double>(keys);
        c.out.at("o").values[(h * 65 + i) * width + e] = round_to(value(mean, i + e), DType::float16);
      }
    }
  }
  return c;
}

Case with_lse_of_empty_rows(Case c, double value) {
  for (Index h = 0; h < 2; ++h)
    for (Index i = 0; i < empty_rows; ++i) c.out.at("lse").values[h * 65 + i] = value;
  return c;
}

}  // namespace

TEST_CASE("a wrong lse without o has the names that it has beside o") {
  Setup setup;
  setup.queries = 16, setup.keys = 48;
  for (const std::vector<std::string>& outputs : {std::vector<std::string>{"o", "lse"}, {"lse"}}) {
    INFO(outputs.size());
    const Case right = dump(setup, outputs);
    CHECK(judged(right).verdict == Verdict::pass);
    CHECK(first_cause(shifted(right, 0.1)) == "lse 0.1 too large: its row sum multiplied by 1.105");
    Case multiplied = right;
    for (double& x : multiplied.out.at("lse").values) x = round_to(1.01 * x, DType::float32);
    CHECK(first_cause(multiplied) == "lse multiplied by 1.01");
    Setup other = setup;
    other.spec.scale *= 1.013;
    Case scaled = dump(other, outputs);
    scaled.spec = right.spec;
    CHECK_THAT(first_cause(scaled), StartsWith("a scale 1.3 % too large"));
    other = setup;
    other.spec.window_right = 4;
    Case windowed = dump(other, outputs);
    windowed.spec = right.spec;
    CHECK(first_cause(windowed) == "window_right = 4");
  }
}

TEST_CASE("the lse of one row is not taken for that of a merge or of another scale") {
  const Case one = shifted(dump(decode(1, 64)), -0.4);
  CHECK(first_cause(one) == lse_itself);
  CHECK(first_cause(shifted(dump(decode(3, 64)), -0.4)) == lse_itself);
  CHECK(first_cause(shifted(dump(decode(2, 1)), 0.3)) == lse_itself);
  Case alone = one;
  alone.out.erase("o");
  CHECK(judged(alone).diagnosis.front().confidence <= confidence_of_a_place);
}

TEST_CASE("noise on an o of one column is no stale row of K") {
  Setup setup;
  setup.queries = 12, setup.keys = 8, setup.v_width = 1;
  Case c = dump(setup);
  test::Random random(2);
  for (double& x : c.out.at("o").values) x = round_to(x + 0.05 * normal(random), DType::float16);
  CHECK(judged(c).verdict == Verdict::fail);
  CHECK_FALSE(is_named(c, "the row of K"));
}

TEST_CASE("rows without keys that are wrong are named with the spec keys that they follow") {
  const Case right = with_empty_rows();
  CHECK(judged(right).verdict == Verdict::pass);
  const std::string keys = "rows that may attend to no key: spec keys empty_row, lse_empty";
  CHECK(first_cause(with_lse_of_empty_rows(right, -1e30)) == keys);
  CHECK(first_cause(with_o_of_empty_rows(right, [](double, Index n) { return std::sin(double(n)); })) ==
        keys);
  CHECK(first_cause(with_lse_of_empty_rows(right, INFINITY)) ==
        "+inf in a row that may attend to no key: lse_empty = +inf");
  const auto mean = [](double x, Index) { return x; };
  const std::string mean_v = "the mean of V in a row that may attend to no key: empty_row = mean_v";
  CHECK(first_cause(with_o_of_empty_rows(right, mean)) == mean_v);
  CHECK(first_cause(with_lse_of_empty_rows(with_o_of_empty_rows(right, mean), -1e30)) == mean_v);
  const Case nan = with_o_of_empty_rows(right, [](double, Index) { return NAN; });
  CHECK(first_cause(nan) == "NaN");
  CHECK(is_named(nan, "NaN in a row that may attend to no key: empty_row = nan"));
  Case zero = right;
  zero.spec["empty_row"] = std::string("mean_v");
  CHECK(is_named(zero, "o = 0 in a row that may attend to no key: empty_row = zero"));
}

TEST_CASE("an answer that lse refutes does not stand before one that explains both outputs") {
  Setup setup;
  setup.has_sink = true;
  setup.queries = setup.keys = 24, setup.width = setup.v_width = 16;
  setup.spec.scale = 0.25;
  const Case inputs = inputs_of(setup, setup.element);
  const auto with_sinks_off = [&](double by) {
    Case c = inputs, other = inputs;
    c.in.erase("do");
    for (double& x : other.in.at("sink").values) x += by;
    const Results results =
        run(honest_kernels(setup.element)[0].kernel, setup.spec, views_of(other), {}, setup.element);
    store(c, results, {"o", "lse"}, setup.element, setup.element);
    return c;
  };
  const std::string twice = "in/sink counted once in each of 2 splits";
  CHECK(first_cause(with_sinks_off(std::log(2.0))) == twice);
  CHECK_THAT(first_cause(with_sinks_off(0.7)), StartsWith("other sinks: "));
  const CaseFindings refuted = judged(shifted(with_sinks_off(std::log(2.0)), 0.01));
  CHECK(refuted.diagnosis.front().cause == twice);
  CHECK(refuted.diagnosis.front().confidence == 0.85);
}
