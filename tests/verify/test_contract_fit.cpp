// Which contract a dump satisfies: on kernels with a planted precision, and on judgements that are made up.
#include "verify/contract/fit.hpp"

#include <algorithm>
#include <set>
#include <string>

#include "core/invalid_case.hpp"
#include "tests/catch.hpp"
#include "tests/emulate/honest_attention.hpp"
#include "tests/emulate/judged.hpp"
#include "tests/faults/fault.hpp"

namespace {

using namespace attest;
using namespace attest::emulate;

/// "p_dtype bfloat16 + row_sum stored"
std::string text_of(const OtherContract& contract) {
  std::string text;
  for (const auto& change : contract.changes)
    text += (text.empty() ? "" : " + ") + change.key + " " + change.to;
  return text;
}
std::vector<std::string> texts_of(const std::vector<OtherContract>& contracts) {
  std::vector<std::string> texts;
  for (const OtherContract& contract : contracts) texts.push_back(text_of(contract));
  return texts;
}
std::string all_of(const ContractFit& fit) {
  std::string text{name_of(fit.verdict)};
  for (const std::string& t : texts_of(fit.weaker)) text += "; weaker " + t;
  for (const std::string& t : texts_of(fit.too_weak)) text += "; too weak " + t;
  for (const std::string& t : texts_of(fit.stricter)) text += "; stricter " + t;
  return text;
}
bool has(const std::vector<OtherContract>& contracts, const std::string& text) {
  return std::ranges::count(texts_of(contracts), text) == 1;
}

ContractFit fit_of(Case c) {
  const CaseFindings own = judged(c);
  return fit_contract(find_op(c), own, [&](const Attributes& contract) {
    c.contract = contract;
    Progress progress;
    return verify_case(c, progress, {.diagnosis = false});
  });
}

Setup setup_of(DType element) {
  Setup setup;
  setup.element = element;
  setup.queries = 48;
  setup.keys = 96;
  return setup;
}
ContractFit fit_of(DType element, const char* name) {
  const Setup setup = setup_of(element);
  const Fault& fault = fault_named(name);
  const std::vector<std::string> outputs = {"o", "lse", "dq", "dk", "dv"};
  return fit_of(faulty_dump_of(setup, honest_kernels(element)[0].kernel, fault, fault.is_backward, outputs));
}

/// How much a contract gives away, key by key.
int slack(const Attributes& contract, const std::string& key) {
  static const std::vector<std::string> order = {"float64",       "float32",    "none",  "hopper",
                                                 "float16",       "ampere",     "volta", "bfloat16",
                                                 "float8_e4m3fn", "float8_e5m2"};
  return static_cast<int>(std::ranges::find(order, std::get<std::string>(contract.at(key))) - order.begin());
}
/// Figures that only p changes.
std::vector<OutputFindings> outputs_under(const Attributes& contract) {
  std::vector<OutputFindings> outputs(1);
  outputs[0].rms_ratio = 1.0 / slack(contract, "p");
  return outputs;
}

/// An op whose contract has three keys, and what is known of a case under its own.
Op op_of_three_keys() {
  Op op{};
  op.contract = {{"p", "element type", "-", "", "float8_e5m2"},
                 {"qk", "element type", "-", "", "bfloat16"},
                 {"unit", "none, hopper, ampere, volta", "-", "", "volta"},
                 {"fixed", "element type", "-", ""}};
  return op;
}
CaseFindings own_of(Verdict verdict) {
  CaseFindings own;
  own.verdict = verdict;
  own.settled = {{"p", "float16"}, {"qk", "float32"}, {"unit", "ampere"}, {"fixed", "float16"}};
  own.outputs = outputs_under(own.settled);
  return own;
}

const auto at_least = [](const Attributes& contract, const std::string& key, const std::string& value) {
  return slack(contract, key) >= slack({{key, value}}, key);
};

ContractFit fit_of(Verdict own, const std::function<Verdict(const Attributes&)>& verdict,
                   Index* trials = nullptr) {
  std::set<Attributes> seen;
  const ContractFit fit = fit_contract(op_of_three_keys(), own_of(own), [&](const Attributes& contract) {
    CHECK(seen.insert(contract).second);  // none twice
    CHECK(contract.size() == 3);
    CaseFindings found;
    found.verdict = verdict(contract);
    found.outputs = outputs_under(contract);
    return found;
  });
  if (trials) *trials = std::ssize(seen);
  return fit;
}

}  // namespace

TEST_CASE("a fit names the precision that a kernel was built with") {
  struct Planted {
    DType element;
    const char *fault, *change;
  };
  const Planted planted = GENERATE(values<Planted>({
      {DType::float16, "p in bfloat16", "p_dtype bfloat16"},
      {DType::float16, "p in float8_e4m3fn", "p_dtype float8_e4m3fn"},
      {DType::float32, "p in float16", "p_dtype float16"},
      {DType::float16, "qk sum in float16", "qk_accumulate float16"},
      {DType::float32, "dS in bfloat16", "p_dtype bfloat16"},
      {DType::float16, "dk and dv sums in bfloat16", "pv_accumulate bfloat16"},
  }));
  const ContractFit fit = fit_of(planted.element, planted.fault);
  INFO(planted.fault << ": " << all_of(fit));
  CHECK(fit.verdict == Verdict::fail);
  CHECK(has(fit.weaker, planted.change));
  CHECK(fit.judged <= most_fitted);
  CHECK(fit.is_minimal);
}

TEST_CASE("a fit is the mildest contract, even where the kernel has a weaker one") {
  const ContractFit fit = fit_of(DType::bfloat16, "p in float8_e5m2");
  INFO(all_of(fit));
  CHECK(has(fit.weaker, "p_dtype float8_e4m3fn"));  // errors of twice its roundings are within its bound
  CHECK_FALSE(has(fit.weaker, "p_dtype float8_e5m2"));
}

TEST_CASE("a kernel so imprecise that its own contract lets wrong answers pass is not fitted by it") {
  const ContractFit fit = fit_of(DType::float16, "qk sum in bfloat16");
  INFO(all_of(fit));
  CHECK(has(fit.too_weak, "qk_accumulate bfloat16"));
  CHECK_FALSE(has(fit.weaker, "qk_accumulate bfloat16"));
}

TEST_CASE("products in tf32 look like sums in float16, whose significand is as long") {
  const ContractFit fit = fit_of(DType::float32, "products in tf32");
  INFO(all_of(fit));
  CHECK(fit.verdict == Verdict::fail);
  CHECK(has(fit.weaker, "qk_accumulate float16"));
}

TEST_CASE("an exp that is off by 1e-4 looks like a softmax in float16") {
  const ContractFit fit = fit_of(DType::float16, "exp off by 1e-4");
  INFO(all_of(fit));
  CHECK((has(fit.weaker, "softmax_dtype float16") || has(fit.too_weak, "softmax_dtype float16")));
}

TEST_CASE("an honest kernel satisfies its own contract and no stricter element type") {
  for (const DType element : {DType::float16, DType::bfloat16}) {
    const ContractFit fit =
        fit_of(dump_of(setup_of(element), honest_kernels(element)[0].kernel, false, {"o", "lse"}));
    INFO(all_of(fit));
    CHECK(fit.verdict == Verdict::pass);
    CHECK(fit.weaker.empty());
    CHECK(fit.too_weak.empty());
    for (const std::string& stricter : texts_of(fit.stricter)) CHECK(stricter.starts_with("matrix_unit"));
  }
}

TEST_CASE("a kernel that is better than its contract says so") {
  Kernel kernel = honest_kernels(DType::float16)[0].kernel;
  kernel.p_dtype = DType::float32;
  Case c = dump_of(setup_of(DType::float16), kernel, false, {"o", "lse"});
  c.contract = {{"p_dtype", std::string("bfloat16")}};
  const ContractFit fit = fit_of(c);
  INFO(all_of(fit));
  CHECK(has(fit.stricter, "p_dtype float32"));
}

TEST_CASE("a dropped tile is no fit of a contract that rejects wrong answers") {
  for (const DType element : {DType::float16, DType::float32}) {
    const ContractFit fit = fit_of(element, "tile dropped for all rows");
    INFO(all_of(fit));
    CHECK(fit.verdict == Verdict::fail);
    CHECK(fit.weaker.empty());
  }
}

TEST_CASE("a key is weakened no further than it has to be") {
  Index trials = 0;
  const ContractFit fit = fit_of(
      Verdict::fail,
      [](const Attributes& c) {
        return at_least(c, "p", "float8_e4m3fn") || at_least(c, "qk", "float16") ? Verdict::pass
                                                                                 : Verdict::fail;
      },
      &trials);
  CHECK(texts_of(fit.weaker) ==
        std::vector<std::string>{"qk float16", "p float8_e4m3fn"});  // the closest first
  CHECK(fit.judged == trials);
  CHECK(fit.weaker[1].changes[0].from == "float16");
  CHECK(fit.contract == Attributes{{"p", "float16"}, {"qk", "float32"}, {"unit", "ampere"}});
}

TEST_CASE("keys are combined where none helps by itself") {
  const ContractFit fit = fit_of(Verdict::fail, [](const Attributes& c) {
    return at_least(c, "p", "bfloat16") && at_least(c, "qk", "float16") ? Verdict::pass : Verdict::fail;
  });
  CHECK(texts_of(fit.weaker) == std::vector<std::string>{"p bfloat16 + qk float16"});
  CHECK(fit.judged <= most_fitted);
}

TEST_CASE("a contract under which wrong answers pass is no fit") {
  const ContractFit fit = fit_of(Verdict::fail, [](const Attributes& c) {
    if (at_least(c, "qk", "bfloat16")) return Verdict::inconclusive;
    return at_least(c, "p", "bfloat16") && at_least(c, "qk", "float16") ? Verdict::pass : Verdict::fail;
  });
  CHECK(texts_of(fit.too_weak) == std::vector<std::string>{"qk bfloat16"});
  CHECK(texts_of(fit.weaker) == std::vector<std::string>{"p bfloat16 + qk float16"});
  const ContractFit none = fit_of(Verdict::fail, [](const Attributes&) { return Verdict::fail; });
  CHECK((none.weaker.empty() && none.too_weak.empty()));
}

TEST_CASE("a type that a case cannot have is passed over") {
  const ContractFit fit = fit_of(Verdict::fail, [](const Attributes& c) {
    if (c.at("qk") == Attribute(std::string("float16"))) throw InvalidCase("cannot hold the inputs");
    return at_least(c, "qk", "bfloat16") ? Verdict::pass : Verdict::fail;
  });
  CHECK(texts_of(fit.weaker) == std::vector<std::string>{"qk bfloat16"});
}

TEST_CASE("stricter values are those that change a figure and no verdict") {
  const ContractFit fit = fit_of(Verdict::pass, [](const Attributes& c) {
    return at_least(c, "unit", "hopper") ? Verdict::pass : Verdict::fail;
  });
  CHECK(texts_of(fit.stricter) == std::vector<std::string>{"p float32"});
  CHECK(fit.judged == 3);  // float64 is not asked for where nothing has it
}
