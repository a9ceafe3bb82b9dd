// Judging multi-head attention: pipelines that keep the contract pass, faults fail, malformed cases are
// named.
#include <array>
#include <cmath>
#include <functional>
#include <limits>

#include "core/invalid_case.hpp"
#include "tests/catch.hpp"
#include "tests/emulate/honest_attention.hpp"
#include "tests/emulate/judged.hpp"
#include "tests/emulate/multihead_attention.hpp"
#include "tests/faults/fault.hpp"

namespace {

using namespace attest;
using namespace attest::emulate;

/// Number n of the honest attention kernels, between projections that add up in different ways.
MultiheadKernel honest(DType element, std::size_t n) {
  MultiheadKernel kernel;
  kernel.attention = honest_kernels(element)[n % 5].kernel;
  kernel.intermediate = element;
  const bool has_tensor_core = format_of(element).bits <= 16;
  const Adder::Kind kinds[] = {has_tensor_core ? Adder::Kind::tensor_core : Adder::Kind::blocked,
                               Adder::Kind::blocked, Adder::Kind::sequential};
  kernel.in_projection.kind = kinds[n % 3];
  kernel.out_projection.kind = kinds[(n + 1) % 3];
  return kernel;
}

constexpr std::size_t whole_rows = 3;  // the honest kernel that has weights to show

struct Shape {
  Index queries, batch, width, heads;
};
constexpr Shape shapes[] = {{77, 2, 64, 4}, {50, 1, 64, 1}, {1, 2, 64, 4}, {7, 3, 24, 3}, {17, 1, 8, 8}};

MultiheadSetup clip_text(DType element) {
  MultiheadSetup s;
  s.element = element;
  s.queries = 77;
  s.causal = Causal::top_left;
  return s;
}

bool has_reason(const CaseFindings& findings, const std::string& part) {
  return std::any_of(findings.reasons.begin(), findings.reasons.end(),
                     [&](const std::string& reason) { return reason.find(part) != std::string::npos; });
}

}  // namespace

TEST_CASE("no multi-head attention that keeps its contract exceeds a bound, and the bounds are tight",
          "[sweep]") {
  const DType element = GENERATE(DType::float16, DType::bfloat16, DType::float32, DType::float64);
  Worst y, weights;
  std::size_t n = 0;
  for (const MultiheadData data : all_multihead_data) {
    for (const Shape& shape : shapes) {
      MultiheadSetup s;
      s.element = element;
      s.data = data;
      s.queries = shape.queries;
      s.batch = shape.batch;
      s.width = shape.width;
      s.heads = shape.heads;
      s.causal = n % 2 == 0 ? Causal::top_left : Causal::none;
      s.batch_first = n % 3 == 0;
      s.has_bias = n % 5 != 0;
      s.average_weights = n % 4 != 0;
      s.seed = ++n;
      INFO(s.text());
      const CaseFindings findings = judged(multihead_dump(s, honest(element, n + n / 5)));
      INFO(summary(findings));
      for (const OutputFindings& o : findings.outputs) {
        CHECK(o.worst_ratio <= 1);
        CHECK(o.worst_rigorous_ratio <= 1);
        (o.name == "y" ? y : weights).take(o);
      }
    }
  }
  const bool has_16_bits = format_of(element).bits == 16;
  CHECK(y.ratio > (has_16_bits ? 0.25 : 0.005));
  CHECK(weights.ratio > (has_16_bits ? 0.25 : 0.005));
}

TEST_CASE("an honest multi-head attention of normal data passes") {
  const DType element = GENERATE(DType::float16, DType::bfloat16, DType::float32);
  for (const auto change :
       {+[](MultiheadSetup&) {}, +[](MultiheadSetup& s) { s.causal = Causal::none, s.queries = 50; },
        +[](MultiheadSetup& s) { s.is_self = false, s.causal = Causal::none, s.keys = 33; },
        +[](MultiheadSetup& s) { s.has_mask = true; },
        // rows 0 to 43 see no key: y is the bias
        +[](MultiheadSetup& s) { s.is_self = false, s.causal = Causal::bottom_right, s.keys = 33; }}) {
    MultiheadSetup s = clip_text(element);
    change(s);
    INFO(s.text());
    const CaseFindings findings = judged(multihead_dump(s, honest(element, whole_rows)));
    INFO(summary(findings));
    CHECK(findings.verdict == Verdict::pass);
    CHECK(findings.outputs.size() == 2);
  }
}

TEST_CASE("a wrong element of multi-head attention is found in its row and batch entry") {
  MultiheadSetup s = clip_text(DType::float16);
  for (const bool batch_first : {false, true}) {
    s.batch_first = batch_first;
    Case c = multihead_dump(s, honest(DType::float16, whole_rows));
    Tensor& y = c.out.at("y");
    const Index row = 5, entry = 1, column = 7;
    const Index outer = batch_first ? entry * y.shape[1] + row : row * y.shape[1] + entry;
    y.values[outer * y.shape[2] + column] += 10;
    const CaseFindings findings = judged(c);
    CHECK(findings.outputs.front().name == "y");
    CHECK(findings.outputs.front().where == "in column 7 of row 5 of batch entry 1");
  }
}

TEST_CASE("intermediate and weight types that the contract declares are allowed for") {
  MultiheadSetup s = clip_text(DType::float32);
  MultiheadKernel kernel = honest(DType::float16, whole_rows);
  Case c = multihead_dump(s, kernel);
  CHECK(judged(c).verdict == Verdict::pass);
  c.contract.clear();
  CHECK(judged(c).verdict == Verdict::fail);

  s.element = DType::bfloat16;
  kernel = honest(DType::float32, whole_rows);
  kernel.attention.p_dtype = DType::bfloat16;
  CHECK(judged(multihead_dump(s, kernel)).verdict == Verdict::pass);
}

TEST_CASE("faults of multi-head attention fail") {
  struct Fault {
    const char* name;
    std::function<void(MultiheadKernel&)> make;
    bool shows_in_bfloat16 = true;
  };
  const Fault faults[] = {
      {"scale 1 % off", [](MultiheadKernel& k) { k.scale_factor = 1.01; }, false},
      {"scale 8 % off", [](MultiheadKernel& k) { k.scale_factor = 1.08; }},
      {"no scale", [](MultiheadKernel& k) { k.scale_factor = 4; }},
      {"q and k exchanged", [](MultiheadKernel& k) { k.swaps_q_and_k = true; }},
      {"heads of every H-th column", [](MultiheadKernel& k) { k.interleaves_heads = true; }},
      {"no in_proj_bias", [](MultiheadKernel& k) { k.forgets_in_bias = true; }},
      {"no out_proj_bias", [](MultiheadKernel& k) { k.forgets_out_bias = true; }},
      {"one key too many", [](MultiheadKernel& k) { k.attention.mistakes.diagonal_shift = 1; }},
      {"one key too few", [](MultiheadKernel& k) { k.attention.mistakes.diagonal_shift = -1; }},
      {"scores in bfloat16", [](MultiheadKernel& k) { k.attention.mistakes.scores = DType::bfloat16; },
       false},
      {"P in float8", [](MultiheadKernel& k) { k.attention.p_dtype = DType::float8_e4m3fn; }},
  };
  const DType element = GENERATE(DType::float16, DType::bfloat16, DType::float32);
  for (const Fault& fault : faults) {
    if (element == DType::bfloat16 && !fault.shows_in_bfloat16) continue;
    MultiheadKernel kernel = honest(element, whole_rows);
    fault.make(kernel);
    Case c = multihead_dump(clip_text(element), kernel);
    c.contract.clear();
    c.out.erase("weights");  // y alone has to tell
    const CaseFindings findings = judged(c);
    INFO(format_of(element).name << ", " << fault.name << ": " << summary(findings));
    CHECK(findings.verdict == Verdict::fail);
  }
}

TEST_CASE("the faults of multi-head attention have names") {
  for (const DType element : {DType::float16, DType::bfloat16, DType::float32}) {
    const auto dump = [&](auto plant) {
      MultiheadKernel kernel = honest(element, whole_rows);
      plant(kernel);
      Case c = multihead_dump(clip_text(element), kernel);
      c.contract.clear();
      return c;
    };
    INFO(format_of(element).name);
    CHECK(first_cause(dump([](MultiheadKernel& k) { k.scale_factor = 0.25; })) == "a scale of 1/D");
    CHECK(first_cause(dump([](MultiheadKernel& k) { k.scale_factor = 0.5; })) == "a scale of 1/sqrt(M)");
    CHECK(first_cause(dump([](MultiheadKernel& k) { k.forgets_bias_of = 2; })) == "no in_proj_bias in v");
    CHECK(first_cause(dump([](MultiheadKernel& k) { k.in_weight = DType::float8_e4m3fn; })) ==
          "in_proj_weight in float8_e4m3fn");
    Case c = dump([](MultiheadKernel&) {});
    Tensor& weight = c.in.at("out_proj_weight");
    for (Index r = 0; r < 64; ++r)
      for (Index j = 0; j < r; ++j) std::swap(weight.values[r * 64 + j], weight.values[j * 64 + r]);
    CHECK(first_cause(c) == "out_proj_weight transposed");
    c = dump([](MultiheadKernel&) {});
    c.out.erase("weights");
    c.spec["heads"] = std::int64_t{2};
    CHECK(first_cause(c) == "heads = 4");
    c = dump([](MultiheadKernel&) {});
    for (double& p : c.out.at("weights").values) p = round_to(4 * p, element);
    CHECK(first_cause(c) == "weights added up over the heads, not averaged");
  }
}

TEST_CASE("projections that add up in 16 bits fail") {
  // Wide enough that the error of the sum exceeds that of storing what is added up.
  const DType element = GENERATE(DType::float16, DType::bfloat16);
  for (const bool is_out : {false, true}) {
    MultiheadSetup s = clip_text(element);
    s.queries = 40;
    s.batch = 1;
    s.width = 256;
    MultiheadKernel kernel = honest(element, whole_rows);
    Adder& adder = is_out ? kernel.out_projection : kernel.in_projection;
    adder = {Adder::Kind::blocked, 1, 0, element};
    const Case c = multihead_dump(s, kernel);
    const CaseFindings findings = judged(c);
    INFO((is_out ? "out: " : "in: ") << summary(findings));
    CHECK(findings.verdict == Verdict::fail);
  }
}

TEST_CASE("a weak multi-head case is noticed") {
  MultiheadSetup s = clip_text(DType::bfloat16);
  s.batch = 1;
  s.width = 128;
  s.heads = 1;
  s.data = MultiheadData::positive;  // scores and outputs so large that little can be seen beside them
  const CaseFindings findings = judged(multihead_dump(s, honest(s.element, whole_rows)));
  INFO(summary(findings));
  CHECK(findings.verdict == Verdict::inconclusive);
  CHECK(has_reason(findings, "a scale 8 % off would pass too"));
  CHECK(has_reason(findings, "no out_proj_bias would pass too"));
}

TEST_CASE("a malformed multi-head case is rejected by name") {
  const Case good = multihead_dump(MultiheadSetup{}, honest(DType::float16, whole_rows));
  const auto message_of = [&](const std::function<void(Case&)>& spoil) -> std::string {
    Case c = good;
    spoil(c);
    try {
      judged(c);
    } catch (const InvalidCase& e) {
      return e.what();
    }
    return "";
  };
  const auto reshaped = [](Tensor& t, std::vector<Index> shape) {
    t.shape = std::move(shape);
    t.values.resize(t.size());
  };
  struct Spoiled {
    std::function<void(Case&)> spoil;
    const char* message;
  };
  const Spoiled all[] = {
      {[](Case& c) { c.spec.erase("heads"); }, "spec attribute heads is missing"},
      {[](Case& c) { c.spec["heads"] = std::int64_t{0}; },
       "spec attribute heads is 0; at least 1 is expected"},
      {[](Case& c) { c.spec["heads"] = std::int64_t{7}; }, "heads is 7, which does not divide M = 64"},
      {[](Case& c) { c.spec["layout"] = std::string("bshd"); }, "layout is \"bshd\"; accepted: lbm, blm"},
      {[](Case& c) { c.spec.erase("causal"); }, "spec attribute causal is missing"},
      {[](Case& c) { c.spec["softcap"] = 1.0; }, "spec attribute softcap is not known"},
      {[](Case& c) { c.contract["accumulator"] = std::string("float32"); },
       "contract attribute accumulator is not"},
      {[](Case& c) { c.in["query"] = c.in.at("x"); }, "/in/query is given beside in/x"},
      {[](Case& c) { c.in.erase("x"); }, "/in/query is missing"},
      {[](Case& c) { c.in["key"] = c.in.at("x"), c.in["query"] = c.in.at("x"), c.in.erase("x"); },
       "/in/value is missing"},
      {[](Case& c) { c.in.erase("in_proj_weight"); }, "/in/in_proj_weight is missing"},
      {[&](Case& c) {
         reshaped(c.in["in_proj_weight"], {128, 64});
       },
       "has 3M = 128, but in/x has 3M = 192"},
      {[&](Case& c) {
         reshaped(c.in["out_proj_weight"], {64, 32});
       },
       "in/out_proj_weight has M = 32"},
      {[&](Case& c) {
         reshaped(c.in["out_proj_bias"], {64, 1});
       },
       "has shape [64, 1]; [M] is expected"},
      {[](Case& c) { c.in["x"].values[65] = std::numeric_limits<double>::quiet_NaN(); },
       "/in/x holds NaN at [0, 1, 1]; finite values are expected"},
      {[](Case& c) {
         c.in["mask"] = {"bool", std::nullopt, {3, 20}, std::vector<double>(60)};
       },
       "in/mask has shape [3, 20], which does not broadcast to [B, H, Sq, Sk] = [2, 4, 20, 20]"},
      {[&](Case& c) {
         reshaped(c.out["y"], {2, 20, 64});
       },
       "out/y has Sq = 2"},
      {[](Case& c) { c.spec["average_weights"] = false; }, "has shape [2, 20, 20]; [B H Sq Sk] is expected"},
  };
  CHECK(message_of([](Case&) {}) == "");
  for (const Spoiled& s : all) {
    const std::string found = message_of(s.spoil);
    INFO(found << ", expected: " << s.message);
    CHECK(found.find(s.message) != std::string::npos);
  }
}

TEST_CASE("rows that may attend to no key give NaN if the case says so") {
  MultiheadSetup s;
  s.is_self = false;
  s.queries = 30;
  s.causal = Causal::bottom_right;
  Case c = multihead_dump(s, honest(s.element, whole_rows));
  CHECK(judged(c).verdict == Verdict::pass);
  c.spec["empty_row"] = std::string("nan");
  CHECK(judged(c).verdict == Verdict::fail);
  for (Index at = 0; at < 10 * s.batch * s.width; ++at) c.out.at("y").values[at] = std::nan("");
  Tensor& weights = c.out.at("weights");
  for (Index at = 0; at < weights.size(); ++at) {
    if (at / s.keys % s.queries < 10) weights.values[at] = std::nan("");
  }
  CHECK(judged(c).verdict == Verdict::pass);
}
