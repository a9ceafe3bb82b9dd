// The softmax record: honest kernels pass on every kind of row, faults do not, overflow is expected exactly
// where it happens, and malformed cases are named.
#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <numbers>
#include <string>
#include <vector>

#include "tests/catch.hpp"
#include "tests/emulate/judged.hpp"
#include "tests/emulate/softmax.hpp"

namespace {

using namespace attest;
using namespace attest::emulate;
using test::Random;

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();
const std::vector<DType> elements = {DType::float16, DType::bfloat16, DType::float32, DType::float64};

using ScoreAt = std::function<double(Index, Index)>;  // row, column

double normal(Random& random) {
  double sum = 0;
  for (int n = 0; n < 12; ++n) sum += random.symmetric();
  return sum / 2;
}

struct Distribution {
  std::string name;
  ScoreAt score;
};

std::vector<Distribution> distributions(Random& random) {
  const auto n = [&] { return normal(random); };
  return {
      {"normal", [n](Index, Index) { return n(); }},
      {"large", [n](Index, Index) { return 30 * n(); }},
      {"near uniform", [n](Index, Index) { return 1e-3 * n(); }},
      {"equal", [](Index row, Index) { return 0.25 * static_cast<double>(row); }},
      {"spiky", [n](Index row, Index j) { return n() + (j == row * 37 % 100 ? 15 : 0); }},
      {"offset", [n](Index, Index) { return 3 * n() + 1e3; }},
      {"rising slowly", [](Index row, Index j) { return 1e-2 * static_cast<double>((row + 1) * j); }},
      {"falling", [](Index row, Index j) { return -0.5 * static_cast<double>((row + 1) * j); }},
      {"ties", [&random](Index, Index) { return static_cast<double>(random.below(3)); }},
      {"zeros", [](Index, Index j) { return j % 2 == 0 ? 0.0 : -0.0; }},
      {"absent", [n, &random](Index row, Index) { return row == 3 || random.one_in(2) ? -infinity : n(); }},
  };
}

Case normal_case(const SoftmaxSetup& setup, const SoftmaxKernel& kernel, double size = 1) {
  Random random(17);
  return softmax_case(setup, kernel, 4, [&](Index, Index) { return size * normal(random); });
}

}  // namespace

TEST_CASE("no honest softmax exceeds its bounds, and the bounds are tight", "[sweep]") {
  const DType element = GENERATE(from_range(elements));
  std::map<std::string, double> worst;
  std::uint64_t seed = 0;
  for (const Way way : {Way::safe, Way::split, Way::online, Way::online_blocks, Way::naive}) {
    for (const bool fused : {true, false}) {
      for (const Index n : {1, 2, 15, 16, 17, 100, 700}) {
        Random random(++seed);
        for (const Distribution& d : distributions(random)) {
          SoftmaxSetup setup{element, 6, n};
          setup.inner = seed % 2 == 0 ? 1 : 2;
          setup.subtract_max = way != Way::naive;
          // Not where exp overflows or every exp vanishes: these rows have their own tests.
          const bool is_far = d.name == "large" || d.name == "offset" || d.name == "falling" ||
                              d.name == "rising slowly" || d.name == "absent";
          if (way == Way::naive && is_far) continue;
          SoftmaxKernel kernel;
          kernel.way = way;
          kernel.reversed = seed % 3 == 0;
          kernel.fused_gradient = fused;
          const CaseFindings findings = judged(softmax_case(setup, kernel, seed, d.score));
          INFO(format_of(element).name << ", way " << static_cast<int>(way) << ", n = " << n << ", " << d.name
                                       << ": " << summary(findings));
          CHECK(findings.verdict != Verdict::fail);
          for (const OutputFindings& o : findings.outputs) {
            CHECK(o.worst_rigorous_ratio <= 1);
            worst[o.name] = std::max(worst[o.name], o.worst_ratio);
          }
          if (d.name == "normal" && n == 100) CHECK(findings.verdict == Verdict::pass);
        }
      }
    }
  }
  // With 16 bits the store is most of it.
  const bool has_16_bits = format_of(element).bits == 16;
  CHECK(worst["y"] > (has_16_bits ? 0.9 : 0.05));
  CHECK(worst["dx"] > (has_16_bits ? 0.5 : 0.02));
  CHECK(worst["lse"] > 0.03);
  CHECK(worst["l"] > 0.03);
}

TEST_CASE("scales, masks and clamps keep to the bounds") {
  const DType element = GENERATE(from_range(elements));
  for (const double scale : {0.125, -2.0, 1.0}) {
    for (const double clamp : {0.0, 2.5, 500.0}) {
      for (const bool has_mask : {false, true}) {
        SoftmaxSetup setup{element, 5, 60, 3, scale, clamp};
        setup.has_mask = has_mask;
        for (const Way way : {Way::safe, Way::online}) {
          SoftmaxKernel kernel;
          kernel.way = way;
          const CaseFindings findings = judged(normal_case(setup, kernel, 2));
          INFO(scale << " " << clamp << " " << has_mask << ": " << summary(findings));
          CHECK(findings.verdict == Verdict::pass);
        }
      }
    }
  }
}

TEST_CASE("faults of softmax kernels are caught") {
  struct Fault {
    std::string name;
    std::function<void(SoftmaxKernel&)> plant;
    std::vector<DType> escapes = {};  // element types in which it is smaller than the output's own rounding
  };
  const Fault faults[] = {
      {"exp off by 1e-4", [](SoftmaxKernel& k) { k.exp_error = 1e-4; }},
      {"exp off by 1e-5", [](SoftmaxKernel& k) { k.exp_error = 1e-5; }, {DType::float16, DType::bfloat16}},
      {"sum in float16", [](SoftmaxKernel& k) { k.sum = DType::float16; }},
      {"sum in bfloat16", [](SoftmaxKernel& k) { k.sum = DType::bfloat16; }},
      {"weights in bfloat16", [](SoftmaxKernel& k) { k.weights = DType::bfloat16; }, {DType::bfloat16}},
      {"scale x 1.001", [](SoftmaxKernel& k) { k.scale_factor = 1.001; }},
      {"last 16 not in the sum", [](SoftmaxKernel& k) { k.dropped = 16; }},
      {"last one not in the sum", [](SoftmaxKernel& k) { k.dropped = 1; }},
      {"4 padded scores in the sum", [](SoftmaxKernel& k) { k.padded = 4; }},
      {"one rescaling forgotten", [](SoftmaxKernel& k) { k.way = Way::online, k.forgets_rescale = true; }},
      {"stores toward zero", [](SoftmaxKernel& k) { k.truncates = true; }, {DType::float32, DType::float64}},
      {"lse in base 2", [](SoftmaxKernel& k) { k.lse_factor = std::numbers::log2e; }},
      {"lse without the maximum", [](SoftmaxKernel& k) { k.lse_lacks_m = true; }},
      {"dx without the row sum", [](SoftmaxKernel& k) { k.drops_row_sum = true; }},
      {"sum of dy y in float16", [](SoftmaxKernel& k) { k.dy_sum = DType::float16; }, {DType::bfloat16}},
      {"sum of dy y in bfloat16", [](SoftmaxKernel& k) { k.dy_sum = DType::bfloat16; }},
  };
  const DType element = GENERATE(from_range(elements));
  const std::string type{format_of(element).name};
  for (const Fault& fault : faults) {
    SoftmaxKernel kernel;
    fault.plant(kernel);
    SoftmaxSetup setup{element, 24, 200};
    const CaseFindings findings = judged(normal_case(setup, kernel));
    INFO(type << ", " << fault.name << ": " << summary(findings));
    if (std::find(fault.escapes.begin(), fault.escapes.end(), element) != fault.escapes.end()) {
      CHECK(findings.verdict != Verdict::inconclusive);
    } else {
      CHECK(findings.verdict == Verdict::fail);
    }
  }
}

TEST_CASE("masks and clamps that a kernel ignores are noticed") {
  for (const DType element : elements) {
    SoftmaxSetup setup{element, 4, 50, 1, 1, 1.5, true, true};
    SoftmaxKernel no_clamp, no_mask;
    no_clamp.ignores_clamp = true;
    no_mask.ignores_mask = true;
    CHECK(judged(normal_case(setup, {})).verdict == Verdict::pass);
    CHECK(judged(normal_case(setup, no_clamp)).verdict == Verdict::fail);
    CHECK(judged(normal_case(setup, no_mask)).verdict == Verdict::fail);
  }
}

TEST_CASE("a kernel that does not subtract the maximum overflows where it should and nowhere else") {
  SoftmaxKernel naive;
  naive.way = Way::naive;
  for (const DType element : {DType::float16, DType::bfloat16, DType::float32}) {
    SoftmaxSetup setup{element, 8, 40};
    setup.subtract_max = false;
    // Row 0: safe; 1: exp overflows; 2: the sum overflows; 3 to 5: at the edges; 6, 7: sums that vanish.
    const double edge = std::log(0x1.fffffep127);
    const auto score = [&](Index row, Index j) {
      const double wobble = 0.25 * static_cast<double>(j % 5);
      switch (row) {
        case 1:
          return j == 7 ? 95.0 : wobble;
        case 2:
          return 87.0;
        case 3:
          return j == 3 ? edge : -wobble;
        case 4:
          return edge - std::log(40.0);
        case 5:
          return edge - 6 + wobble;
        case 6:
          return -200 - wobble;
        case 7:
          return -92 - wobble;
        default:
          return wobble;
      }
    };
    const Case c = softmax_case(setup, naive, 9, score);
    const CaseFindings findings = judged(c);
    INFO(summary(findings));
    CHECK(findings.verdict == Verdict::pass);
    CHECK(std::isnan(c.out.at("y").values[1 * 40 + 7]));
    CHECK(c.out.at("y").values[1 * 40 + 8] == 0);
    CHECK(c.out.at("l").values[2] == infinity);
    CHECK(std::isnan(c.out.at("y").values[6 * 40]));
    CHECK_THAT(findings.remarks.at(0), attest::test::Mentions("not subtracting the maximum matters in "));

    // The safe answer is not what was asked for, and NaN is no answer in row 0.
    Case safe = c;
    safe.out["y"].values[1 * 40 + 7] = 1;
    CHECK(judged(safe).verdict == Verdict::fail);
    Case finite = c;
    for (Index j = 0; j < 40; ++j) finite.out["y"].values[2 * 40 + j] = round_to(1 / 40.0, element);
    CHECK(judged(finite).verdict == Verdict::fail);
    Case broken = c;
    broken.out["y"].values[3] = not_a_number;
    CHECK(judged(broken).verdict == Verdict::fail);

    // The same scores, when the maximum is to be subtracted.
    Case subtracted = c;
    subtracted.spec["subtract_max"] = true;
    CHECK(judged(subtracted).verdict == Verdict::fail);
  }
}

TEST_CASE("float32 scores next to the edge of exp may go either way, consistently") {
  SoftmaxKernel naive;
  naive.way = Way::naive;
  SoftmaxSetup setup{DType::float32, 41, 3};
  setup.subtract_max = false;
  const double edge = round_to(std::log(0x1.fffffep127), DType::float32);
  Index overflowed = 0;
  const Case c = softmax_case(setup, naive, 1, [&](Index row, Index j) {
    return j == 1 ? edge + static_cast<double>(row - 20) * 0x1p-17 : 1.0;
  });
  for (Index row = 0; row < 41; ++row) overflowed += std::isnan(c.out.at("y").values[row * 3 + 1]);
  CHECK(overflowed > 5);
  CHECK(overflowed < 36);
  const CaseFindings findings = judged(c);
  INFO(summary(findings));
  CHECK(findings.verdict == Verdict::pass);
  Case inconsistent = c;  // NaN in y, but a finite sum
  inconsistent.out["l"].values[40] = 3e38;
  CHECK(judged(inconsistent).verdict == Verdict::fail);
}

TEST_CASE("rows without a score follow empty_row") {
  SoftmaxSetup setup{DType::float32, 4, 10};
  Case c = softmax_case(setup, {}, 2, [](Index row, Index j) {
    return row == 2 ? -infinity : 0.1 * static_cast<double>(j * (row + 1));
  });
  CHECK(judged(c).verdict == Verdict::pass);
  CHECK(c.out.at("lse").values[2] == -infinity);
  c.spec["empty_row"] = std::string("nan");
  CHECK(judged(c).verdict == Verdict::fail);
  for (Index j = 20; j < 30; ++j) c.out["y"].values[j] = c.out["dx"].values[j] = not_a_number;
  CHECK(judged(c).verdict == Verdict::pass);
  // Without the maximum, too: 0 / 0 is no answer unless it is declared.
  c.spec["subtract_max"] = false;
  c.out.erase("m"), c.out.erase("l");
  CHECK(judged(c).verdict == Verdict::pass);
  c.spec["empty_row"] = std::string("zero");
  CHECK(judged(c).verdict == Verdict::fail);
}

TEST_CASE("a remark says whether the maximum and the clamp are needed") {
  SoftmaxSetup setup{DType::float32, 4, 10};
  setup.clamp = 50000;
  using Remarks = std::vector<std::string>;
  const auto remarks_of = [&](double size) { return judged(normal_case(setup, {}, size)).remarks; };
  CHECK(remarks_of(1) == Remarks{"subtracting the maximum changes no weight", "the clamp changes no weight"});
  CHECK(remarks_of(1000) ==
        Remarks{"subtracting the maximum matters in 4 of 4 rows", "the clamp changes no weight"});
  setup.clamp = 1;
  CHECK(remarks_of(1).back() == "the clamp matters in 4 of 4 rows");
}

TEST_CASE("rows that tell nothing are inconclusive") {
  SoftmaxSetup setup{DType::float16, 4, 10};
  Case c = normal_case(setup, {}, 0.1);
  CHECK(judged(c).verdict == Verdict::pass);
  c.contract["compute_dtype"] = std::string("float16");  // so much is allowed that 1 % hides in it
  c.out.erase("m");
  c.out.erase("dx");
  const CaseFindings findings = judged(c);
  CHECK(findings.verdict == Verdict::inconclusive);
  CHECK_THAT(summary(findings), attest::test::Mentions("a scale 1 % off would pass too"));

  setup.subtract_max = false;  // nothing is promised of sums that are subnormal
  SoftmaxKernel naive;
  naive.way = Way::naive;
  const CaseFindings lost = judged(softmax_case(setup, naive, 2, [](Index, Index) { return -95.0; }));
  INFO(summary(lost));
  CHECK(lost.verdict == Verdict::inconclusive);
}

TEST_CASE("malformed softmax cases are named") {
  SoftmaxSetup setup{DType::float16, 2, 5, 3};
  const Case good = normal_case(setup, {});
  REQUIRE(message_of(good) == "no complaint");
  const auto error = [&](const std::function<void(Case&)>& change) {
    Case c = good;
    change(c);
    return message_of(c);
  };
  CHECK(error([](Case& c) { c.spec["axis"] = std::int64_t{3}; }) ==
        "memory.h5: /softmax/spec attribute axis is 3; -3 to 2 is expected, as in/x has shape [2, 5, 3]");
  CHECK(error([](Case& c) { c.in["x"].values[7] = not_a_number; }) ==
        "memory.h5: /softmax/in/x holds nan at [0, 2, 1]; finite values or -inf are expected");
  CHECK_THAT(error([](Case& c) { c.in["x"].values[7] = infinity; }),
             attest::test::Mentions("holds inf at [0, 2, 1]"));
  CHECK(error([](Case& c) {
          c.in["x"].values[7] = infinity;
          c.spec["clamp"] = 4.0;
        }) == "no complaint");
  CHECK_THAT(error([](Case& c) { c.in["dy"].values[0] = infinity; }),
             attest::test::Mentions("in/dy holds inf at [0, 0, 0]"));
  CHECK(error([](Case& c) {
          c.out["lse"].shape = {3, 2};
        }) ==
        "memory.h5: /softmax/out/lse has shape [3, 2]; [2, 3], or equal copies along axis 1, is expected");
  CHECK_THAT(error([](Case& c) {
               c.out["y"].shape = {2, 3, 5};
             }),
             attest::test::Mentions("out/y has shape [2, 3, 5], in/x has [2, 5, 3]; they must be equal"));
  CHECK_THAT(error([](Case& c) { c.in.erase("dy"); }),
             attest::test::Mentions("out/dx is given, but in/dy is missing"));
  CHECK_THAT(error([](Case& c) { c.spec["clamp"] = -1.0; }),
             attest::test::Mentions("attribute clamp is -1; 0 (off)"));
  CHECK_THAT(error([](Case& c) { c.spec["clamp"] = 1e39; }),
             attest::test::Mentions("that float32 can hold is expected"));
  CHECK_THAT(error([](Case& c) { c.spec["scale"] = 1e39; }),
             attest::test::Mentions("a number that times the scale"));
  CHECK_THAT(error([](Case& c) { c.spec["empty_row"] = std::string("mean_v"); }),
             attest::test::Mentions("accepted: zero, nan"));
  CHECK_THAT(
      error([](Case& c) { c.spec["temperature"] = 1.0; }),
      attest::test::Mentions(
          "attribute temperature is not known; accepted: axis, clamp, empty_row, scale, subtract_max"));
  CHECK_THAT(
      error([](Case& c) { c.contract["compute_dtype"] = std::string("bfloat16"); }),
      attest::test::Mentions("compute_dtype is bfloat16, which does not hold all values of in/x (float16)"));
  CHECK_THAT(error([](Case& c) {
               c.in["mask"] = Tensor{"bool", {}, {2, 5}, std::vector<double>(10, 1)};
             }),
             attest::test::Mentions(
                 "in/mask has shape [2, 5], which does not broadcast to that of in/x, [2, 5, 3]"));
  CHECK_THAT(error([](Case& c) {
               c.in["mask"] = Tensor{"uint8", {}, {5, 1}, {1, 1, 2, 1, 1}};
             }),
             attest::test::Mentions("in/mask holds 2 at [2, 0]; 0 or 1 is expected"));
}

TEST_CASE("lse, m and l may come as equal copies along the axis, and masks broadcast") {
  SoftmaxSetup setup{DType::float16, 2, 5, 3};
  Case c = normal_case(setup, {});
  for (const std::string name : {"lse", "m", "l"}) {
    Tensor& t = c.out[name];
    const Tensor one = t;
    t.shape = {2, 8, 3};
    t.values.assign(48, 0);
    for (Index at = 0; at < 48; ++at) t.values[at] = one.values[at / 24 * 3 + at % 3];
  }
  CHECK(judged(c).verdict == Verdict::pass);
  c.out["m"].values[40] += 1;
  CHECK(judged(c).verdict == Verdict::fail);
  Case masked = normal_case(setup, {});
  masked.in["mask"] = Tensor{"bool", {}, {5, 1}, {1, 1, 1, 1, 1}};
  CHECK(judged(masked).verdict == Verdict::pass);
  masked.in["mask"].values[2] = 0;
  CHECK(judged(masked).verdict == Verdict::fail);
}
