// The backward bounds against emulated kernels, and what a gradient is judged from.
#include <omp.h>

#include <cmath>
#include <map>
#include <numbers>
#include <set>

#include "tests/catch.hpp"
#include "tests/emulate/honest_attention.hpp"
#include "tests/faults/fault.hpp"
#include "tests/verify/check_honest.hpp"
#include "verify/op.hpp"

namespace {

using namespace attest;
using namespace attest::emulate;

const std::vector<std::string> gradients = {"dq", "dk", "dv", "dbias", "dsink"};

Setup setup_of(DType element) {
  Setup setup;
  setup.element = element;
  setup.queries = setup.keys = 150;
  setup.width = setup.v_width = 64;
  return setup;
}

Kernel kernel_for(DType element) {
  Kernel kernel = honest_kernels(element)[0].kernel;
  kernel.tile = 32;
  return kernel;
}

std::set<std::string> failing(const Case& c) {
  const CaseFindings findings = judged(c);
  UNSCOPED_INFO(summary(findings));
  std::set<std::string> names;
  for (const OutputFindings& o : findings.outputs) {
    if (o.verdict == Verdict::fail) names.insert(o.name);
  }
  return names;
}

std::set<std::string> failing(std::string_view fault, DType element) {
  return failing(faulty_dump_of(setup_of(element), kernel_for(element), fault_named(fault), true));
}

using Names = std::set<std::string>;

}  // namespace

TEST_CASE("no kernel that keeps its contract exceeds a gradient's bound, and the bounds are tight",
          "[sweep]") {
  const DType element = GENERATE(DType::float16, DType::bfloat16, DType::float32, DType::float64);
  std::map<std::string, Worst> worst;
  for (const auto& [name, kernel] : honest_kernels(element)) {
    for (const Distribution distribution : all_distributions) {
      for (const Index length : {1, 17, 70, 130}) {
        Setup setup;
        setup.element = element;
        setup.distribution = distribution;
        setup.queries = setup.keys = length;
        setup.kv_heads = length == 70 ? 1 : 2;
        setup.seed = static_cast<std::uint64_t>(length);
        if (length == 130 && distribution != Distribution::normal && distribution != Distribution::spiky)
          continue;
        INFO(name << ": " << setup.text());
        Case c = dump_of(setup, kernel, true);
        if (element == DType::float32) c.contract["matrix_unit"] = std::string("none");  // as they add up
        // The score of a single key has no gradient.
        check_honest(c, distribution == Distribution::normal && length > 1, worst);
      }
    }
  }
  const int bits = format_of(element).bits;
  for (const std::string name : {"dq", "dk", "dv"}) {
    CHECK(worst[name].ratio > (bits == 16 ? 0.3 : bits == 32 ? 0.05 : 0.01));
  }
}

TEST_CASE("masks, windows, softcap, biases, sinks and shared heads keep to the gradients' bounds",
          "[sweep]") {
  const DType element = GENERATE(DType::float16, DType::bfloat16, DType::float32, DType::float64);
  std::map<std::string, Worst> worst;
  for (const Setup& setup : setups_with_features(element)) {
    for (const auto& [name, kernel] : honest_kernels(element)) {
      INFO(name << ": " << setup.text());
      check_honest(dump_of(setup, kernel, true), true, worst);
    }
  }
  CHECK(worst.contains("dbias"));
  CHECK(worst.contains("dsink"));
}

TEST_CASE("a sink whose weight underflows may get no gradient") {
  Setup setup;
  setup.has_sink = true;
  setup.distribution = Distribution::large;
  setup.queries = 1;
  setup.spec.scale = 0.15;  // weights of the sinks below the normal numbers of float32
  bool has_tiny = false;
  for (setup.seed = 1; setup.seed <= 12; ++setup.seed) {
    const Case c = dump_of(setup, honest_kernels(setup.element)[0].kernel, true);
    const CaseFindings findings = judged(c);
    const OutputFindings& dsink = output(findings, "dsink");
    has_tiny |= dsink.want != 0 && dsink.got == 0;
    INFO(setup.text() << ": " << summary(findings));
    CHECK(dsink.worst_ratio <= 1);
  }
  CHECK(has_tiny);
}

TEST_CASE("products that are subnormal may each be off by half their spacing") {
  Setup setup = setup_of(DType::float32);
  const Kernel kernel = kernel_for(setup.element);
  for (setup.seed = 1; setup.seed <= 3; ++setup.seed) {
    Case c = inputs_of(setup, kernel.p_dtype);
    Tensor& d_o = c.in.at("do");
    for (double& x : d_o.values) x = round_to(0x1p-140 * x, setup.element);
    const View<const double, 3> rows{d_o.values.data(), {setup.q_heads, setup.queries, setup.v_width}};
    store(c, run(kernel, setup.spec, views_of(c), rows, setup.element), {"dq", "dk", "dv"}, setup.element,
          kernel.p_dtype);
    const CaseFindings findings = judged(c);
    INFO(summary(findings));
    for (const char* name : {"dq", "dk", "dv"}) CHECK(output(findings, name).worst_ratio <= 1);
  }
}

TEST_CASE("repeated keys repeat the rounding of the stored weights that dS is made of") {
  Setup setup;
  setup.element = GENERATE(DType::float16, DType::bfloat16);
  setup.distribution = Distribution::repeated_keys;
  setup.queries = 16;
  setup.keys = 300;
  setup.spec.scale = 1;
  setup.has_sink = true;  // without one, the errors of a row's weights nearly cancel in dq
  const Kernel whole_rows = honest_kernels(setup.element)[3].kernel;
  for (const std::uint64_t seed : {41, 43}) {
    setup.seed = seed;
    const CaseFindings findings = judged(dump_of(setup, whole_rows, true));
    INFO(setup.text() << ": " << summary(findings));
    CHECK(output(findings, "dq").worst_ratio <= 1);
  }
}

TEST_CASE("the error of delta adds up in the gradient of a bias that broadcasts over the keys") {
  Setup setup;
  setup.width = 16;
  const DType element = GENERATE(DType::float16, DType::bfloat16);
  const bool has_forward = GENERATE(true, false);
  setup.element = element;
  setup.bias_shape = {1, 2, 70, 1};
  for (const Distribution distribution : {Distribution::normal, Distribution::uniform,
                                          Distribution::near_uniform, Distribution::repeated_keys}) {
    setup.distribution = distribution;
    const CaseFindings findings = judged(
        dump_of(setup, honest_kernels(element)[2].kernel, true, has_forward ? all_outputs : gradients));
    INFO(setup.text() << ": " << summary(findings));
    CHECK(output(findings, "dbias").worst_ratio <= 1);
  }
}

TEST_CASE("dbias may have been stored times the scale, where that is less than float16 can hold") {
  Setup setup;
  setup.bias_shape = {1, 2, 70, 70};
  Case c = dump_of(setup, honest_kernels(setup.element)[0].kernel, true, all_outputs);
  for (const std::string name : {"in/do", "out/dbias"}) {
    Tensor& tensor = (name == "in/do" ? c.in : c.out).at(name.substr(name.find('/') + 1));
    for (double& x : tensor.values) x = round_to(x * 0x1p-12, DType::float16);
  }
  for (const char* name : {"dq", "dk", "dv"}) c.out.erase(name);
  const auto judged_with_unit = [&](double unit) {
    Case stored = c;
    for (double& x : stored.out.at("dbias").values) x = round_to(x * unit, DType::float16) / unit;
    return output(judged(stored), "dbias").worst_ratio;
  };
  CHECK(judged_with_unit(setup.spec.scale) <= 1);
  CHECK(judged_with_unit(setup.spec.scale / 8) > 1);
}

TEST_CASE("a gradient of 0 behind a saturated softcap still has the error of its parts") {
  Setup setup;
  setup.distribution = Distribution::large;
  setup.queries = 16;
  setup.keys = 1;  // do . v and do . o are the same, but a device may add them up differently
  setup.spec.softcap = 0.5;
  setup.bias_shape = {1, 2, 16, 1};
  for (setup.seed = 1; setup.seed <= 10; ++setup.seed) {
    const CaseFindings findings = judged(dump_of(setup, honest_kernels(setup.element)[0].kernel, true));
    INFO(setup.text() << ": " << summary(findings));
    CHECK(output(findings, "dbias").worst_ratio <= 1);
  }
}

TEST_CASE("every planted fault of the backward pass fails", "[sweep]") {
  const DType element = GENERATE(DType::float16, DType::bfloat16, DType::float32);
  const std::pair<std::string_view, Names> table[] = {
      {"delta missing", {"dq", "dk"}},
      {"dk without scale", {"dk"}},
      {"dq loses a tile", {"dq"}},
      {"p in float8_e4m3fn", {"o", "dq", "dk", "dv"}},
      {"pv sum in bfloat16", {"o", "dq", "dv"}},
  };
  for (const auto& [fault, outputs] : table) {
    const Names failed = failing(fault, element);
    INFO(fault << " in " << format_of(element).name);
    for (const std::string& name : outputs) CHECK(failed.contains(name));
    // What the fault does not touch still passes.
    for (const std::string name : {"lse", "m", "l"}) CHECK_FALSE(failed.contains(name));
  }
}

TEST_CASE("a planted fault of the backward pass that has a name is named first", "[sweep]") {
  const DType element = GENERATE(DType::float16, DType::bfloat16, DType::float32);
  for (const auto& [fault, cause] :
       {std::pair{"delta missing", "backward: delta = rowsum(do o) missing in dS"},
        std::pair{"delta of the row after", "backward: delta of the row after"},
        std::pair{"delta of the last rows not written", "backward: delta = rowsum(do o) missing in dS"},
        std::pair{"delta of half the columns", "backward: delta of the first 32 columns"},
        std::pair{"dk of the key before", "rows of dk hold the results of those 1 row before"},
        std::pair{"rows of dq exchanged in pairs", "dq with its rows exchanged in pairs"},
        std::pair{"tile of dq stale", "rows of dq hold the results of those 32 rows before"},
        std::pair{"last rows missing from dk and dv",
                  "query rows 128..149 of each head missing from dk and dv"},
        std::pair{"m in place of lse, backward",
                  "backward: m in place of lse: weights that are not normalised"},
        std::pair{"dv in transposed tiles", "dv with its tiles of width x width transposed, in keys 0..127"},
        std::pair{"dk without scale", "dq or dk without the scale"},
        std::pair{"dq loses a tile", "keys 32..63 missing from dq"},
        std::pair{"dbias of the last row only",
                  "dbias of the last row of the last head and batch entry only"},
        std::pair{"softcap without derivative", "backward: the derivative of the softcap missing"},
        std::pair{"softcap derivative of the capped score",
                  "backward: the derivative of the softcap taken at the capped score"},
        std::pair{"lse in bfloat16, backward",
                  "lse rounded to bfloat16 before the backward pass reads it"}}) {
    Setup setup = setup_of(element);
    if (const auto needs = fault_named(fault).needs) needs(setup);
    const CaseFindings findings =
        judged(faulty_dump_of(setup, kernel_for(element), fault_named(fault), true, all_outputs));
    INFO(fault << ": " << summary(findings));
    REQUIRE(!findings.diagnosis.empty());
    CHECK(findings.diagnosis.front().cause == cause);
  }
}

TEST_CASE("faults of precision fail by the gradients where the contract is finer") {
  const Names all = {"dk", "dq", "dv", "o"};
  CHECK(failing("p in bfloat16", DType::float16) == all);
  CHECK(failing("p in bfloat16", DType::float32) == all);
  CHECK(failing("pv sum in float16", DType::float32) == all);
  CHECK(failing("pv sum in float16", DType::float16).contains("dv"));
  // The own rounding of P and dS in bfloat16 is as large, but it can be replayed.
  CHECK(failing("pv sum in float16", DType::bfloat16) == Names{"dk", "dq", "dv"});
}

TEST_CASE("a wrong forward pass does not excuse or blame the backward pass") {
  const Setup setup = setup_of(DType::float16);
  const Kernel kernel = kernel_for(DType::float16);

  // The backward pass ran with the right lse; the dump's is in base 2.
  CHECK(failing("lse in base 2", DType::float16) == Names{"lse"});

  for (const std::string_view fault : {"delta missing", "dk without scale", "dq loses a tile"}) {
    INFO(fault);
    Case c = faulty_dump_of(setup, kernel, fault_named(fault), true);
    const Names alone = failing(c);
    for (double& x : c.out.at("lse").values) x = round_to(x * std::numbers::log2e, DType::float32);
    Names with_lse = failing(c);
    CHECK(with_lse.erase("lse") == 1);
    CHECK(with_lse == alone);
  }
}

TEST_CASE("gradients are judged without o and lse, too", "[sweep]") {
  const DType element = GENERATE(DType::float16, DType::bfloat16, DType::float32);
  std::map<std::string, Worst> worst;
  for (const auto& [name, kernel] : honest_kernels(element)) {
    for (const Distribution distribution : all_distributions) {
      Setup setup;
      setup.element = element;
      setup.distribution = distribution;
      setup.queries = setup.keys = 48;
      setup.has_sink = true;
      INFO(name << ": " << setup.text());
      check_honest(dump_of(setup, kernel, true, gradients), distribution == Distribution::normal, worst);
    }
  }
  const std::pair<std::string_view, Names> table[] = {
      {"delta missing", {"dq", "dk"}},    {"dk without scale", {"dk"}},
      {"dq loses a tile", {"dq"}},        {"p in float8_e4m3fn", {"dq", "dk", "dv"}},
      {"scale times 1.01", {"dq", "dv"}}, {"heads modulo", {"dq", "dk", "dv"}},
  };
  for (const auto& [fault, outputs] : table) {
    INFO(fault << " in " << format_of(element).name);
    Setup setup = setup_of(element);
    if (fault == "heads modulo") setup.q_heads = 4;
    const Names failed =
        failing(faulty_dump_of(setup, kernel_for(element), fault_named(fault), true, gradients));
    for (const std::string& name : outputs) CHECK(failed.contains(name));
  }
}

TEST_CASE("expected values and bounds have the same bits with any number of threads") {
  struct Threads {
    int before = omp_get_max_threads();
    ~Threads() { omp_set_num_threads(before); }
  } restored;
  Setup setup;
  setup.q_heads = 4;
  setup.queries = 67;
  setup.has_sink = setup.has_alibi = true;
  setup.bias_shape = {1, 1, 1, 70};
  const Case c = dump_of(setup, honest_kernels(setup.element)[3].kernel, true);
  const auto expect = [&](int threads) {
    omp_set_num_threads(threads);
    const std::unique_ptr<Problem> problem = find_op(c).read(c);
    return problem->expect([](double) {});
  };
  const std::vector<Expected> one = expect(1);
  CHECK(one.size() == c.out.size());
  for (const int threads : {2, 3}) {
    const std::vector<Expected> more = expect(threads);
    REQUIRE(more.size() == one.size());
    for (std::size_t n = 0; n < one.size(); ++n) {
      INFO(one[n].output << " with " << threads << " threads");
      CHECK(more[n].value == one[n].value);
      CHECK(more[n].value_error == one[n].value_error);
      CHECK(more[n].rigorous == one[n].rigorous);
      CHECK(more[n].probable == one[n].probable);
      CHECK(more[n].sigma == one[n].sigma);
    }
  }
}
