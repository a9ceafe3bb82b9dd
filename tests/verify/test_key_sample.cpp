// Keys drawn by chance: dk and dv of them are judged as in the whole case.
#include <bit>
#include <limits>

#include "ref/attention.hpp"
#include "tests/catch.hpp"
#include "tests/emulate/by_rows.hpp"
#include "tests/emulate/honest_attention.hpp"
#include "tests/faults/fault.hpp"
#include "verify/ops/attention/case.hpp"

namespace {

using namespace attest;
using namespace attest::emulate;

const std::vector<std::string> outputs = {"o", "lse", "dk", "dv"};

/// What is expected of the keys of one part, from blocks of so many rows.
std::vector<Expected> expected_of(const Op& op, const Case& c, const RowSample& sample, const RowPart& part,
                                  Index rows_at_a_time, std::vector<Case>& kept) {
  const auto block = [&](const RowBlock& wanted) {
    return sample.finished(
        parts_of(c, [&](const std::string& path) { return sample.selection(part, wanted, path); }), part,
        wanted);
  };
  const Case& first = kept.emplace_back(block({0, {0}}));
  const std::unique_ptr<KeyProblem> problem = op.read_keys(first);
  for (Index head = 0; head < sample.group(); ++head) {
    for (Index row = 0; row < sample.sequence(); row += rows_at_a_time) {
      RowBlock wanted{head, {}};
      for (Index i = row; i < std::min(row + rows_at_a_time, sample.sequence()); ++i)
        wanted.rows.push_back(i);
      const Case some = block(wanted);
      REQUIRE(problem->unusable_rows(some).empty());
      problem->add(some);
    }
    problem->finish_head();
  }
  std::vector<Expected> expected = problem->expect();
  problem->recheck(expected);
  return expected;
}

bool same_bits(double a, double b) {
  return std::bit_cast<std::uint64_t>(a) == std::bit_cast<std::uint64_t>(b);
}

/// How many elements were compared.
Index compare_with_whole(const Case& c, const RowSample& sample, Index rows_at_a_time) {
  const Op& op = find_op(c);
  const std::unique_ptr<Problem> problem = op.read(c);
  const std::vector<Expected> whole = problem->expect([](double) {});
  Index compared = 0;
  std::vector<Case> kept;
  kept.reserve(sample.parts().size());
  for (const RowPart& part : sample.parts()) {
    for (const Expected& e : expected_of(op, c, sample, part, rows_at_a_time, kept)) {
      const auto of_whole = std::ranges::find(whole, e.output, &Expected::output);
      const Tensor& tensor = c.out.at(e.output);
      std::vector<double> places(tensor.size());
      for (Index n = 0; n < tensor.size(); ++n) places[n] = static_cast<double>(n);
      const Tensor where = part_of({"", tensor.dtype, tensor.shape, places}, sample.place(part, e.output));
      Index other = 0;
      for (Index n = 0; n < e.dumped->size(); ++n, ++compared) {
        const auto at = static_cast<Index>(where.values[n]);
        bool same = e.dumped->values[n] == tensor.values[at] && e.probable[n] <= of_whole->probable[at];
        for (auto x : {&Expected::value, &Expected::value_error, &Expected::rigorous, &Expected::sigma,
                       &Expected::systematic})
          same &= same_bits((e.*x)[n], (*of_whole.*x)[at]);
        other += !same;
      }
      INFO(e.output << " of key/value head " << part.head);
      CHECK(other == 0);
    }
  }
  return compared;
}

CaseFindings judged_by(const Case& c, Index count) {
  const auto sample = RowSample::of(find_op(c), c, rows(count));
  REQUIRE(sample);
  return by_rows(c, *sample);
}

}  // namespace

TEST_CASE("a key has the values and the bounds that it has in the whole case, bit for bit") {
  const std::vector<NamedKernel> kernels = honest_kernels(DType::float16);
  std::size_t n = 0;
  for (const Setup& setup : setups_with_features(DType::float16)) {
    const NamedKernel& kernel = kernels[n++ % kernels.size()];
    const Case c = dump_of(setup, kernel.kernel, true, outputs);
    const auto sample = RowSample::of(find_op(c), c, rows(7, setup.seed));
    REQUIRE(sample);
    INFO(setup.text() << ": " << kernel.name);
    for (const Index rows_at_a_time : {Index{13}, Index{64}})
      CHECK(compare_with_whole(c, *sample, rows_at_a_time) ==
            setup.kv_heads * 7 * (setup.width + setup.v_width));
  }
}

TEST_CASE("past keys, absent keys and rows without keys are those of the whole case") {
  for (const Causal causal : {Causal::none, Causal::top_left, Causal::bottom_right}) {
    for (const Index present : {60, 41, 15}) {  // of the keys; 20 of them are past ones
      Setup setup;
      setup.q_heads = 4;
      setup.queries = 50, setup.keys = 40;
      setup.spec.causal = causal;
      Case c = inputs_of(setup, setup.element);
      setup.keys = 20, setup.seed = 2;
      const Case past = inputs_of(setup, setup.element);
      c.in["past_k"] = past.in.at("k"), c.in["past_v"] = past.in.at("v");
      c.in["kv_lengths"] = {"int64", std::nullopt, {1}, {static_cast<double>(present)}};
      c.out = {{"o", c.in.at("do")}, {"dk", c.in.at("k")}, {"dv", c.in.at("v")}};
      c.out["lse"] = {"float32", DType::float32, {1, 4, 50}, std::vector<double>(200)};
      const AttentionCase attention(c);
      const Sequence& sequence = attention.sequences.front();
      ref::attention_forward(attention.spec, sequence.in,
                             {attention.like_o(c.out["o"].values.data(), sequence),
                              {c.out["lse"].values.data(), {4, 50}},
                              {},
                              {},
                              {},
                              {}});
      for (const std::string name : {"o", "lse"})
        for (double& x : c.out[name].values) x = round_to(x, *c.out[name].dtype);
      const auto sample = RowSample::of(find_op(c), c, rows(11));
      REQUIRE(sample);
      INFO(setup.text() << ", " << present << " keys are there");
      CHECK(compare_with_whole(c, *sample, 16) == 2 * 11 * 64);
    }
  }
}

TEST_CASE("the kernels' own dk and dv pass, whatever the features") {
  for (const DType element : {DType::float16, DType::bfloat16, DType::float32, DType::float64}) {
    const std::vector<NamedKernel> kernels = honest_kernels(element);
    std::size_t n = 0;
    for (const Setup& setup : setups_with_features(element)) {
      const NamedKernel& kernel = kernels[n++ % kernels.size()];
      const CaseFindings found = judged_by(dump_of(setup, kernel.kernel, true, outputs), 12);
      INFO(setup.text() << ": " << kernel.name << ": " << summary(found));
      CHECK(found.verdict == Verdict::pass);
      CHECK(output(found, "dk").elements == 12 * setup.kv_heads * setup.width);
    }
  }
}

TEST_CASE("faults of dk and dv are found, and told as in the whole case") {
  struct Named {
    std::string_view fault, cause;
  };
  for (const auto& [name, cause] :
       {Named{"dk and dv of the last head only", "only the last query head of a group reaches dk and dv"},
        Named{"dk without scale", "dq or dk without the scale"},
        Named{"dk with scale twice", "dq or dk multiplied by the scale twice"},
        Named{"delta missing", "delta"}, Named{"dv loses a block of rows", ""},
        Named{"dk adds a block twice", ""}}) {
    const Fault& fault = fault_named(name);
    Setup setup;
    setup.queries = setup.keys = 200;
    if (fault.needs) fault.needs(setup);
    const CaseFindings found =
        judged_by(faulty_dump_of(setup, plain(setup.element), fault, true, outputs), 10);
    INFO(name << ": " << summary(found));
    CHECK(found.verdict == Verdict::fail);
    CHECK(output(found, "o").verdict == Verdict::pass);
    if (cause.empty()) continue;
    REQUIRE_FALSE(found.diagnosis.empty());
    CHECK_THAT(found.diagnosis.front().cause, test::Mentions(std::string(cause)));
  }
}

TEST_CASE("a wrong key is met if it is drawn, and told by its place in the whole tensor") {
  Setup setup;
  setup.q_heads = 4;
  setup.queries = 90, setup.keys = 300;
  Case c = dump_of(setup, plain(setup.element), true, outputs);
  const auto sample = RowSample::of(find_op(c), c, rows(8));
  REQUIRE(sample);
  CHECK(by_rows(c, *sample).verdict == Verdict::pass);
  const Index key = sample->parts().back().keys[3];
  double* const dv = c.out["dv"].values.data() + (setup.keys + key) * setup.v_width;
  std::fill(dv, dv + setup.v_width, 0.0);
  const CaseFindings found = by_rows(c, *sample);
  CHECK(found.verdict == Verdict::fail);
  CHECK(output(found, "dk").verdict == Verdict::pass);
  CHECK(output(found, "dv").where == "all in key " + std::to_string(key) + " of head 1");
  CHECK(found.judged.starts_with(
      "judged: 8 of 90 rows in each of 4 heads, of dk and dv 8 of 300 keys in each of "
      "2, seed 1; they meet a fault of 1 % of all rows or keys with "));
}

TEST_CASE("what dk and dv are judged from has to be in the dump") {
  Setup setup;
  setup.queries = 200;
  const auto not_judged = [&](const std::vector<std::string>& dumped) {
    const Case c = dump_of(setup, plain(setup.element), true, dumped);
    const auto sample = RowSample::of(find_op(c), c, rows(8));
    REQUIRE(sample);
    const CaseFindings found = by_rows(c, *sample);
    CHECK(found.outputs.size() == dumped.size() - sample->not_judged().size());
    CHECK(found.verdict == Verdict::pass);
    for (const std::string& sentence : sample->not_judged())
      CHECK(std::ranges::find(found.remarks, sentence) != found.remarks.end());
    return sample->not_judged();
  };
  const std::string start = "not judged: ", middle = ", which is judged by keys where the dump has ",
                    end = "; --rows all does";
  using Sentences = std::vector<std::string>;
  CHECK(not_judged({"o", "lse", "dk", "dv"}).empty());
  CHECK(not_judged({"lse", "dv"}).empty());
  CHECK(not_judged({"lse", "dk", "dv"}) == Sentences{start + "dk" + middle + "out/o" + end});
  CHECK(not_judged({"o", "dk", "dv"}) ==
        Sentences{start + "dk" + middle + "out/lse" + end, start + "dv" + middle + "out/lse" + end});
  CHECK(not_judged({"dq", "dk"}) == Sentences{start + "dk" + middle + "out/o and out/lse" + end});
}

TEST_CASE("a row of o or lse that cannot be right fails, and dk and dv are judged without it") {
  const double nan = std::numeric_limits<double>::quiet_NaN(), inf = std::numeric_limits<double>::infinity();
  Setup setup;
  setup.queries = setup.keys = 200;
  const Case right = dump_of(setup, plain(setup.element), true, outputs);
  const auto sample = RowSample::of(find_op(right), right, rows(4));
  REQUIRE(sample);
  const Index row = 77;
  for (const RowPart& part : sample->parts()) REQUIRE_FALSE(std::ranges::count(part.rows, row));
  for (const auto& [name, wrong] : {std::pair{"lse", nan}, {"lse", -inf}, {"lse", inf}, {"o", nan}}) {
    Case c = right;
    Tensor& tensor = c.out[name];
    tensor.values[row * (tensor.size() / (setup.q_heads * setup.queries))] = wrong;
    const CaseFindings found = by_rows(c, *sample);
    INFO(name << " " << wrong << ": " << summary(found));
    CHECK(output(found, name).verdict == Verdict::fail);
    CHECK_THAT(output(found, name).where, test::Mentions("row 77 of head 0"));
    CHECK(std::ranges::any_of(found.remarks, [](const std::string& x) {
      return x.starts_with("dk and dv are judged without rows");
    }));
    // NaN is no answer, whatever the rows were, nor if there are none.
    c.out["dk"].values[sample->parts().front().keys[0] * setup.width] = nan;
    CHECK(output(by_rows(c, *sample), "dk").verdict == Verdict::fail);
    std::ranges::fill(tensor.values, wrong);
    const CaseFindings without_rows = by_rows(c, *sample);
    CHECK(output(without_rows, name).verdict == Verdict::fail);
    CHECK(output(without_rows, "dv").verdict == Verdict::fail);
  }
}

TEST_CASE("keys are drawn one in each stretch, and all of them where they are few") {
  Setup setup;
  setup.queries = 1000, setup.keys = 500;
  Case c = inputs_of(setup, setup.element);
  c.out = {{"lse", {"float32", DType::float32, {1, 2, 1000}, {}}}, {"dv", c.in.at("v")}};
  for (const Index count : {10, 499, 500, 999}) {
    const auto sample = RowSample::of(find_op(c), c, rows(count));
    REQUIRE(sample);
    const Index keys = std::min<Index>(count, 500);
    for (const RowPart& part : sample->parts()) {
      REQUIRE(std::ssize(part.keys) == keys);
      for (Index n = 0; n < keys; ++n) {
        CHECK(n * 500 / keys <= part.keys[n]);
        CHECK(part.keys[n] < (n + 1) * 500 / keys);
      }
    }
    const bool differ = sample->parts()[0].keys != sample->parts()[1].keys;
    CHECK(differ == (keys < 500));
  }
}
