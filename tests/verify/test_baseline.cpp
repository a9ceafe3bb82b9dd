// Growth of errors inside the bounds: emulated kernels held against each other, and the file they are kept
// in.
#include "verify/report/baseline.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <unistd.h>

#include "core/invalid_case.hpp"
#include "tests/catch.hpp"
#include "tests/emulate/honest_attention.hpp"
#include "tests/emulate/judged.hpp"
#include "verify/report/report.hpp"

namespace {

using namespace attest;
using namespace attest::emulate;

constexpr std::string_view version = "1.2.3";

/// A bfloat16 case with rows so long that a float16 accumulator adds to what the weights' rounding does.
Setup long_rows(std::uint64_t seed, Distribution distribution = Distribution::normal) {
  Setup setup;
  setup.element = DType::bfloat16;
  setup.queries = 128;
  setup.keys = 1024;
  setup.width = setup.v_width = 32;
  setup.seed = seed;
  setup.distribution = distribution;
  return setup;
}

Kernel kernel_of(Index tile) {
  Kernel kernel;
  kernel.p_dtype = DType::bfloat16;
  kernel.tile = tile;
  kernel.qk = kernel.pv = Adder{Adder::Kind::tensor_core};
  return kernel;
}

/// Kernels that round where that of tile 64 does, in another order.
std::vector<NamedKernel> reordered() {
  std::vector<NamedKernel> kernels;
  for (const Index tile : {16, 32, 128, 256})
    kernels.push_back({"tile " + std::to_string(tile), kernel_of(tile)});
  kernels.push_back({"last tile first", kernel_of(64)});
  kernels.back().kernel.reversed = true;
  kernels.push_back({"four splits", kernel_of(64)});
  kernels.back().kernel.splits = 4;
  return kernels;
}

CaseFindings findings_of(const Setup& setup, const Kernel& kernel) {
  return judged(dump_of(setup, kernel, false, {"o", "lse"}));
}

double spread_of(const OutputFindings& o) {
  return std::ranges::find(o.statistics, "spread", &Statistic::name)->value;
}

std::string text_of(const std::vector<Growth>& all) {
  std::string text;
  for (const Growth& x : all)
    text += x.name + " " + exact_text(x.value) + " was " + exact_text(x.before) + " limit " +
            exact_text(x.limit) + "\n";
  return text;
}

/// A file of this test alone, which goes with it.
struct Scratch {
  std::string path = (std::filesystem::temp_directory_path() / "attest_baseline_XXXXXX").string();

  Scratch() { close(mkstemp(path.data())); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { std::filesystem::remove(path); }
};

Baseline read_back(const std::string& text) {
  const Scratch file;
  std::ofstream(file.path) << text;
  return Baseline::read(file.path, version);
}

/// The report of a run with these cases as it is read back from a file.
Baseline read_back(const std::vector<CaseFindings>& cases) {
  return read_back(Baseline().with(cases, version));
}

}  // namespace

TEST_CASE("the same kernel on the same inputs has the errors of its baseline") {
  const CaseFindings first = findings_of(long_rows(1), kernel_of(64));
  CaseFindings again = findings_of(long_rows(1), kernel_of(64));
  read_back({first}).hold(again);
  CHECK(again.verdict == Verdict::pass);
  for (const OutputFindings& o : again.outputs) CHECK(text_of(growth(o, o)) == "");
}

TEST_CASE("tiles of another size, order or number of splits are no growth", "[sweep][order]") {
  double squares = 0, pairs = 0;
  for (const Distribution distribution :
       {Distribution::normal, Distribution::outlier, Distribution::near_uniform}) {
    const Setup setup = long_rows(1, distribution);
    const OutputFindings base = output(findings_of(setup, kernel_of(64)), "o");
    for (const auto& [name, kernel] : reordered()) {
      const OutputFindings other = output(findings_of(setup, kernel), "o");
      INFO(setup.text() << ", " << name);
      CHECK(text_of(growth(base, other)) == "");
      CHECK(text_of(growth(other, base)) == "");
      const double moved = std::pow(spread_of(other), 2) - std::pow(spread_of(base), 2);
      squares += moved * moved;
      ++pairs;
    }
  }
  const double deviation = std::sqrt(squares / pairs);
  INFO("standard deviation of spread^2 over " << pairs << " pairs of kernels: " << deviation);
  CHECK(deviation <= order_effect);
}

TEST_CASE("a float16 accumulator that is still inside the bound fails against a baseline") {
  for (const std::uint64_t seed : {1, 2}) {
    const Setup setup = long_rows(seed);
    const CaseFindings base = findings_of(setup, kernel_of(64));
    Kernel narrow = kernel_of(64);
    narrow.pv = Adder{Adder::Kind::blocked};
    narrow.pv.dtype = DType::float16;
    CaseFindings now = findings_of(setup, narrow);
    INFO(setup.text());
    REQUIRE(base.verdict == Verdict::pass);
    REQUIRE(output(now, "o").beyond == 0);
    read_back({base}).hold(now);
    CHECK(now.verdict == Verdict::fail);
    CHECK(output(now, "o").verdict == Verdict::fail);
    CHECK(output(now, "lse").verdict == Verdict::pass);
    REQUIRE(output(now, "o").growth.size() >= 1);
    CHECK(output(now, "o").growth.front().name == "spread");
    CHECK(text_of_problems(now).find("o: error grew: spread ") != std::string::npos);
  }
}

TEST_CASE("what cannot be compared is inconclusive, what is new is remarked, what is gone is reported") {
  const CaseFindings base = findings_of(long_rows(1), kernel_of(64));
  const Baseline baseline = read_back({base});

  CaseFindings other_inputs = findings_of(long_rows(2), kernel_of(64));
  baseline.hold(other_inputs);
  CHECK(other_inputs.verdict == Verdict::inconclusive);
  CHECK(other_inputs.reasons.front().starts_with("other inputs"));

  CaseFindings other_contract = base;
  other_contract.contract = "p float32";
  baseline.hold(other_contract);
  CHECK(other_contract.verdict == Verdict::inconclusive);

  CaseFindings without_lse = base;
  std::erase_if(without_lse.outputs, [](const OutputFindings& o) { return o.name == "lse"; });
  baseline.hold(without_lse);
  CHECK(without_lse.verdict == Verdict::inconclusive);

  CaseFindings fresh = base;
  fresh.name = "fresh";
  baseline.hold(fresh);
  CHECK(fresh.verdict == Verdict::pass);
  CHECK(fresh.remarks.back() == "not in the baseline");
  const std::vector<CaseFindings> gone = baseline.missing(std::vector{fresh});
  REQUIRE(gone.size() == 1);
  CHECK(gone.front().name == base.name);
  CHECK(gone.front().verdict == Verdict::inconclusive);
  fresh.file = "another.h5";
  CHECK(baseline.missing(std::vector{fresh}).empty());
}

TEST_CASE("an update replaces cases of the same file and name, wherever the file lies, and keeps the rest") {
  CaseFindings a = findings_of(long_rows(1), kernel_of(64)), b = a;
  b.name = "second";
  const Baseline first = read_back({a, b});
  CaseFindings moved = a;
  moved.file = "/elsewhere/" + a.file;
  moved.inputs = "0123456789abcdef";
  const Baseline updated = read_back(first.with(std::vector{moved}, version));
  REQUIRE(updated.cases().size() == 2);
  CHECK(updated.cases()[0].inputs == "0123456789abcdef");
  CHECK(updated.cases()[1].name == "second");
  CHECK(updated.cases()[1].inputs == b.inputs);
}

TEST_CASE("a file that is no baseline of this version is refused, with its name") {
  const Scratch file;
  const std::string good = Baseline().with(std::vector{findings_of(long_rows(1), kernel_of(64))}, version);
  const auto replaced = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    REQUIRE(text.find(from) != std::string::npos);
    return text.replace(text.find(from), from.size(), to);
  };
  for (const std::string& text :
       {std::string(), std::string("{}"), std::string("[1, 2"), good.substr(0, good.size() / 2),
        replaced("\"1.2.3\"", "\"1.2.2\""), replaced("\"format\": 1", "\"format\": 2"),
        replaced("\"verdict\": \"pass\"", "\"verdict\": \"fail\""), replaced("\"inputs\"", "\"imputs\""),
        replaced("\"worst_ratio\": ", "\"worst_ratio\": \"large\", \"was\": "),
        replaced("\"rows\": [", "\"rows\": [{}, ")}) {
    std::ofstream(file.path) << text;
    INFO(text.substr(0, 200));
    try {
      Baseline::read(file.path, version);
      FAIL("it was read");
    } catch (const InvalidCase& e) {
      CHECK(std::string(e.what()).starts_with(file.path + ": "));
    }
  }
  CHECK_THROWS_AS(Baseline::read("no/such/file.json", version), InvalidCase);
}
