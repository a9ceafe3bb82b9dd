// Rows drawn by chance: they are spread evenly, and judged as in the whole case.
#include <set>

#include "tests/catch.hpp"
#include "tests/emulate/by_rows.hpp"
#include "tests/emulate/honest_attention.hpp"

namespace {

using namespace attest;
using namespace attest::emulate;

}  // namespace

TEST_CASE("the rows of a sample are in order, one in each stretch, and others with another seed") {
  Setup setup;
  setup.queries = 1000;
  const Case c = inputs_of(setup, setup.element);
  Case with_output = c;
  with_output.out["o"] = c.in.at("q");
  const auto sample = RowSample::of(find_op(c), with_output, rows(10));
  REQUIRE(sample);
  REQUIRE(sample->parts().size() == 2);
  std::set<std::vector<Index>> all;
  for (const std::uint64_t seed : {1, 2, 3}) {
    const auto again = RowSample::of(find_op(c), with_output, rows(10, seed));
    for (const RowPart& part : again->parts()) {
      REQUIRE(part.rows.size() == 10);
      for (Index n = 0; n < 10; ++n) CHECK(part.rows[n] / 100 == n);
      all.insert(part.rows);
    }
  }
  CHECK(all.size() == 6);
  CHECK_FALSE(RowSample::of(find_op(c), with_output, rows(1000)));
  CHECK_FALSE(RowSample::of(find_op(c), with_output, {std::nullopt, true, 1}));
  CHECK_FALSE(RowSample::of(find_op(c), with_output, {}));  // small
}

TEST_CASE("what a minute allows counts what a head takes before its first row") {
  const auto judged = [](Index batch, Index heads, Index kv_heads, bool with_gradients = false) {
    const auto tensor = [&](Index h) { return Tensor{"float16", DType::float16, {batch, h, 51200, 64}, {}}; };
    Case c;
    c.op = "attention";
    c.in = {{"q", tensor(heads)}, {"k", tensor(kv_heads)}, {"v", tensor(kv_heads)}};
    c.out = {{"o", tensor(heads)}};
    if (with_gradients) {
      c.out["lse"] = {"float32", DType::float32, {batch, heads, 51200}, {}};
      c.out["dq"] = tensor(heads), c.out["dk"] = c.out["dv"] = tensor(kv_heads);
    }
    return RowSample::of(find_op(c), c, {})->text();
  };
  // 3e10 = 51200 (64 + 64) (heads N + 12 kv_heads)
  CHECK(judged(1, 32, 8).starts_with("judged: 140 of 51200 rows in each of 32 heads"));
  CHECK(judged(8, 32, 32).starts_with("judged: 5 of 51200 rows in each of 256 heads"));
  CHECK(judged(64, 32, 32).starts_with("judged: 2 of 51200 rows"));  // the least
  // 3e10 = 51200 (64 + 64) (heads N (3 + 1.25) + 12 kv_heads + 12 heads 1.25)
  CHECK(judged(1, 32, 8, true)
            .starts_with(
                "judged: 29 of 51200 rows in each of 32 heads, of dk and dv 29 of 51200 keys in each of "
                "8, seed 1 (what a minute allows; --rows all judges all); they meet"));
}

TEST_CASE("a row has the ratios that it has in the whole case, whatever the features") {
  for (Setup setup : setups_with_features(DType::float16)) {
    const Case c = dump_of(setup, plain(setup.element), true, {"o", "lse", "dq"});
    const CaseFindings whole = judged(c);
    for (const Index count : {1, 7, 39}) {
      const auto sample = RowSample::of(find_op(c), c, rows(count, setup.seed));
      REQUIRE(sample);
      const CaseFindings some = by_rows(c, *sample);
      INFO(setup.text() << ", " << count << " rows: " << summary(some));
      REQUIRE(some.outputs.size() == 3);
      CHECK(some.verdict != Verdict::fail);
      for (const OutputFindings& o : some.outputs) {
        CHECK(o.shape == c.out.at(o.name).shape);
        CHECK(o.elements < output(whole, o.name).elements);
        // Fewer elements have the smaller bounds: at most by the square root in equation (12).
        CHECK(o.worst_ratio <= 1.5 * output(whole, o.name).worst_ratio);
      }
    }
  }
}

TEST_CASE("a wrong row is met if it is drawn, and told by its place in the whole tensor") {
  Setup setup;
  setup.q_heads = 4;
  setup.queries = 200;
  Case c = dump_of(setup, plain(setup.element), false, {"o", "lse"});
  const auto sample = RowSample::of(find_op(c), c, rows(8));
  REQUIRE(sample);
  CHECK(by_rows(c, *sample).verdict == Verdict::pass);
  const RowPart& part = sample->parts().back();  // heads 2 and 3
  const Index row = part.rows[5];
  double* const o = c.out["o"].values.data() + (3 * setup.queries + row) * setup.v_width;
  std::fill(o, o + setup.v_width, 0.0);
  const CaseFindings found = by_rows(c, *sample);
  CHECK(found.verdict == Verdict::fail);
  CHECK(output(found, "o").where == "all in row " + std::to_string(row) + " of head 3");
  CHECK(output(found, "o").at[1] == 3);
  CHECK(output(found, "o").at[2] == row);
  REQUIRE_FALSE(found.diagnosis.empty());
  CHECK(found.diagnosis.front().cause == "zeros, or nothing written");
  CHECK(found.judged.starts_with("judged: 8 of 200 rows in each of 4 heads, seed 1; "));
}

TEST_CASE("a fault is met at least as often as is said") {
  Setup setup;
  setup.queries = 640;
  setup.q_heads = setup.kv_heads = 1;
  Case c = inputs_of(setup, setup.element);
  c.out["o"] = c.in.at("q");
  const Index tile = 64, count = 6, trials = 2000;
  for (const Index first : {0, 130, 576}) {
    Index met = 0;
    for (Index seed = 0; seed < trials; ++seed) {
      const auto sample = RowSample::of(find_op(c), c, rows(count, static_cast<std::uint64_t>(seed)));
      const std::vector<Index>& drawn = sample->parts().front().rows;
      met += std::ranges::any_of(drawn, [&](Index row) { return first <= row && row < first + tile; });
    }
    const double said = meeting_probability(64, 640, 6), share = static_cast<double>(met) / trials;
    INFO(first << ": " << share << " of " << said);
    CHECK(share > said - 4 * std::sqrt(said / static_cast<double>(trials)));
    CHECK(share < said + 0.15);
  }
}

TEST_CASE("outputs without rows are named, and stop us from sampling unasked") {
  Setup setup;
  setup.queries = 200;
  setup.has_sink = true;
  const Case c = dump_of(setup, plain(setup.element), true, {"o", "lse", "dq", "dk", "dv", "dsink"});
  const auto sample = RowSample::of(find_op(c), c, rows(8));
  REQUIRE(sample);
  REQUIRE(sample->not_judged().size() == 1);
  CHECK(sample->not_judged().front().starts_with("not judged: dsink, "));
  CHECK(by_rows(c, *sample).remarks.back().starts_with("not judged: dsink, "));
}
