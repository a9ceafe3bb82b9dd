// rms_norm and layer_norm judged: honest kernels pass, planted faults do not, weak cases are noticed.
#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "core/invalid_case.hpp"
#include "tests/catch.hpp"
#include "tests/emulate/judged.hpp"
#include "tests/emulate/norm.hpp"

namespace {

using namespace attest;
using namespace attest::emulate;
using Mistakes = NormKernel::Mistakes;

std::vector<NormKernel> honest_norm_kernels(const NormSetup& setup) {
  using Sum = NormKernel::Sum;
  using Moments = NormKernel::Moments;
  std::vector<NormKernel> kernels;
  for (const Sum sum : {Sum::lanes, Sum::sequential, Sum::pairwise}) {
    NormKernel& k = kernels.emplace_back();
    k.sum = sum;
    k.folds_mean = sum == Sum::sequential;
    k.folds_weight = sum == Sum::pairwise;
    k.cubes = sum == Sum::pairwise;
    k.row_block = sum == Sum::sequential ? 1000000 : 4;
    if (setup.one_pass) k.moments = Moments::one_pass;
  }
  if (setup.is_centred && !setup.one_pass) kernels.emplace_back().moments = Moments::welford;
  kernels.back().stores_statistics = true;
  kernels.back().stores_product = true;
  return kernels;
}

std::vector<NormSetup> setups_of(DType element, bool is_centred) {
  std::vector<NormSetup> setups;
  const auto add = [&](auto change) {
    NormSetup& s = setups.emplace_back();
    s.is_centred = is_centred;
    s.element = s.weight = element;
    if (element == DType::float64) s.statistics = element;
    s.seed = setups.size() + 100;
    change(s);
  };
  for (const NormValues values : all_norm_values) {
    add([&](NormSetup& s) { s.values = values, s.has_bias = true; });
    add([&](NormSetup& s) { s.values = values, s.shape = {9, 257}, s.keeps_trailing_1 = true; });
    add([&](NormSetup& s) { s.values = values, s.shape = {2, 1024}, s.eps = 1e-6; });
    add([&](NormSetup& s) { s.values = values, s.casts = true, s.has_bias = is_centred; });
    if (is_centred) add([&](NormSetup& s) { s.values = values, s.one_pass = true; });
  }
  for (const bool rounds : {false, true}) {
    add([&](NormSetup& s) { s.has_residual = true, s.rounds_sum = rounds, s.weight_offset = 1; });
    add([&](NormSetup& s) { s.has_residual = true, s.rounds_sum = rounds, s.declares_sum = false; });
    add([&](NormSetup& s) {
      s.has_residual = true, s.rounds_sum = rounds, s.casts = true, s.shape = {90, 65};
    });
  }
  add([](NormSetup& s) { s.has_weight = false, s.has_bias = true; });
  add([](NormSetup& s) { s.shape = {64}; });
  add([](NormSetup& s) { s.shape = {7, 2}; });
  add([](NormSetup& s) { s.shape = {9, 1}; });
  add([](NormSetup& s) { s.shape = {1, 1, 1, 33}, s.keeps_trailing_1 = true; });
  add([](NormSetup& s) { s.shape = {300, 31}; });
  add([&](NormSetup& s) { s.statistics = element, s.shape = {33, 128}; });
  if (element != DType::float64) add([](NormSetup& s) { s.weight = DType::float32, s.has_bias = true; });
  return setups;
}

std::string complaints(const CaseFindings& findings) {
  std::string text;
  for (const OutputFindings& o : findings.outputs) {
    if (o.verdict == Verdict::fail) text += o.name + " ";
  }
  return text.empty() ? text : text + ": " + summary(findings);
}

struct NormFault {
  const char* name;
  void (*plant)(Mistakes& m);
  void (*on)(NormSetup& s);  // may be null
};

const NormFault norm_faults[] = {
    {"eps outside the root", [](Mistakes& m) { m.eps_outside = true; },
     [](NormSetup& s) { s.values = NormValues::small; }},
    {"no eps", [](Mistakes& m) { m.no_eps = true; }, [](NormSetup& s) { s.values = NormValues::small; }},
    {"eps in the element type, at least 1e-4", [](Mistakes& m) { m.eps_in_element = true; },
     [](NormSetup& s) { s.values = NormValues::small; }},
    {"eps times max^2", [](Mistakes& m) { m.eps_times_max = true; },
     [](NormSetup& s) { s.values = NormValues::large; }},
    {"mean square over N - 1", [](Mistakes& m) { m.over_n_minus_1 = true; }, nullptr},
    {"mean over the padded width", [](Mistakes& m) { m.over_padded_width = true; }, nullptr},
    {"sums in bfloat16", [](Mistakes& m) { m.sum_dtype = DType::bfloat16; }, nullptr},
    {"sums in float16", [](Mistakes& m) { m.sum_dtype = DType::float16; }, nullptr},
    {"squares in the element type", [](Mistakes& m) { m.squares_in_element = true; }, nullptr},
    {"rstd in bfloat16", [](Mistakes& m) { m.rstd_in_bfloat16 = true; }, nullptr},
    {"undeclared cast before the weight", [](Mistakes& m) { m.casts = true; }, nullptr},
    {"declared cast left out", [](Mistakes& m) { m.does_not_cast = true; },
     [](NormSetup& s) { s.casts = true; }},
    {"offset added twice", [](Mistakes& m) { m.offset_twice = true; },
     [](NormSetup& s) { s.weight_offset = 1; }},
    {"offset left out", [](Mistakes& m) { m.no_offset = true; }, [](NormSetup& s) { s.weight_offset = 1; }},
    {"offset added in the element type", [](Mistakes& m) { m.offset_in_element = true; },
     [](NormSetup& s) { s.weight_offset = 1; }},
    {"weight left out", [](Mistakes& m) { m.no_weight = true; }, nullptr},
    {"bias left out in one row", [](Mistakes& m) { m.no_bias_in_a_row = true; },
     [](NormSetup& s) { s.has_bias = true; }},
    {"the other norm", [](Mistakes& m) { m.is_other_op = true; }, nullptr},
    {"residual left out", [](Mistakes& m) { m.no_residual = true; },
     [](NormSetup& s) { s.has_residual = true; }},
    {"rounded residual sum declared unrounded", [](Mistakes& m) { m.other_rounding_of_sum = true; },
     [](NormSetup& s) { s.has_residual = true, s.rounds_sum = false; }},
    {"unrounded residual sum declared rounded", [](Mistakes& m) { m.other_rounding_of_sum = true; },
     [](NormSetup& s) { s.has_residual = true; }},
    {"dx without mean(g xhat)", [](Mistakes& m) { m.no_mean_of_gx = true; }, nullptr},
    {"dx without mean(g)", [](Mistakes& m) { m.no_mean_of_g = true; }, nullptr},
    {"means of dx without the weight", [](Mistakes& m) { m.no_weight_in_means = true; }, nullptr},
    {"dweight added up in bfloat16", [](Mistakes& m) { m.dweight_dtype = DType::bfloat16; }, nullptr},
    {"dweight added up in float16", [](Mistakes& m) { m.dweight_dtype = DType::float16; }, nullptr},
    {"dweight loses a row", [](Mistakes& m) { m.dweight_loses_a_row = true; }, nullptr},
    {"statistics of the row before", [](Mistakes& m) { m.statistics_of_row_before = true; }, nullptr},
};

/// y alone can be all that a dump holds.
Case only(Case c, const std::vector<std::string>& outputs) {
  std::erase_if(c.out, [&](const auto& o) {
    return std::find(outputs.begin(), outputs.end(), o.first) == outputs.end();
  });
  return c;
}

}  // namespace

TEST_CASE("kernels that keep the contract of a norm stay within its bounds", "[sweep]") {
  for (const bool is_centred : {false, true}) {
    for (const DType element : {DType::float16, DType::bfloat16, DType::float32, DType::float64}) {
      std::map<std::string, Worst> worst;
      for (const NormSetup& setup : setups_of(element, is_centred)) {
        for (const NormKernel& kernel : honest_norm_kernels(setup)) {
          const CaseFindings findings = judged(norm_dump(setup, kernel, true));
          INFO(setup.text());
          CHECK(complaints(findings) == "");
          for (const OutputFindings& o : findings.outputs) worst[o.name].take(o);
        }
      }
      for (const auto& [name, w] : worst) {
        INFO(name << " " << w.ratio << " of the probable, " << w.rigorous << " of the rigorous bound");
        CHECK(w.ratio <= 1);
        CHECK(w.rigorous <= 1);
        // A bound that no kernel comes near says little. Short sums of dy or of x and residual are exact.
        CHECK((w.ratio > 0.03 || name == "dbias" || name == "sum"));
      }
    }
  }
}

TEST_CASE("planted faults of a norm fail, and y alone shows those that it can show", "[sweep]") {
  for (const bool is_centred : {false, true}) {
    for (const DType element : {DType::float16, DType::bfloat16, DType::float32}) {
      for (const NormFault& fault : norm_faults) {
        NormSetup setup;
        setup.is_centred = is_centred;
        setup.element = setup.weight = element;
        setup.shape = {100, 200};
        setup.has_bias = is_centred;
        if (fault.on) fault.on(setup);
        NormKernel kernel;
        fault.plant(kernel.mistakes);
        const Case honest = norm_dump(setup, {}, true), broken = norm_dump(setup, kernel, true);
        const auto changes = [&](const std::string& name) {
          return honest.out.at(name).values != broken.out.at(name).values;
        };
        const bool changes_any = std::any_of(honest.out.begin(), honest.out.end(),
                                             [&](const auto& o) { return changes(o.first); });
        if (!changes_any) continue;  // a fault that changes no bit does not count
        const CaseFindings all = judged(broken, {.diagnosis = element == DType::float16});
        INFO(fault.name << ": " << setup.text() << ": " << summary(all));
        CHECK(all.verdict == Verdict::fail);
        if (!changes("y")) continue;
        const CaseFindings y = judged(only(broken, {"y"}), {.diagnosis = false});
        INFO("y alone: " << summary(y));
        CHECK(y.verdict == Verdict::fail);
      }
    }
  }
}

TEST_CASE("a norm whose eps or divisor cannot be seen says so") {
  NormSetup setup;
  setup.shape = {16, 4096};
  for (const bool is_centred : {false, true}) {
    setup.is_centred = is_centred;
    setup.eps = 1e-6;
    setup.values = NormValues::normal;
    const CaseFindings blind = judged(only(norm_dump(setup, {}, false), {"y"}));
    INFO(summary(blind));
    CHECK(blind.verdict == Verdict::pass);
    CHECK(blind.remarks == std::vector<std::string>{"these inputs do not tell a missing eps",
                                                    "these inputs do not tell eps outside the root"});
    setup.values = NormValues::small;
    const CaseFindings seeing = judged(norm_dump(setup, {}, false));
    CHECK(seeing.verdict == Verdict::pass);
    CHECK(seeing.remarks.empty());
    setup.values =
        NormValues::zero_row;  // without eps, its y would be 0/0; outside the root, its rstd would differ
    CHECK(judged(norm_dump(setup, {}, false)).verdict == Verdict::pass);
  }
}

TEST_CASE("squares that are rounded to float16 average out over 4096 columns, not over 200") {
  NormKernel kernel;
  kernel.mistakes.squares_in_element = true;
  NormSetup setup;
  setup.eps = 0.01;
  setup.shape = {16, 4096};
  CHECK(judged(norm_dump(setup, kernel, false)).verdict == Verdict::pass);
  setup.shape = {16, 200};
  CHECK(judged(norm_dump(setup, kernel, false)).verdict == Verdict::fail);
}

TEST_CASE("one pass over x is as good as its contract says") {
  NormSetup setup;
  setup.is_centred = true;
  setup.element = setup.weight = DType::float32;
  setup.values = NormValues::mean_30;
  NormKernel kernel;
  kernel.moments = NormKernel::Moments::one_pass;
  CHECK(judged(norm_dump(setup, kernel, true)).verdict == Verdict::fail);
  setup.one_pass = true;
  CHECK(complaints(judged(norm_dump(setup, kernel, true))) == "");
}

TEST_CASE("a contract under which nothing is promised is inconclusive") {
  NormSetup setup;
  setup.element = setup.weight = DType::bfloat16;
  setup.shape = {4, 512};
  Case c = norm_dump(setup, {}, true);
  c.contract["compute_dtype"] = std::string("bfloat16");
  const CaseFindings findings = judged(c);
  INFO(summary(findings));
  CHECK(findings.verdict == Verdict::inconclusive);
  CHECK(findings.reasons[0] == "zeros in place of out/y would pass too");
  SECTION("and so is a row whose squares overflow float32") {
    Case wide = norm_dump(setup, {}, false);
    for (double& x : wide.in.at("x").values) x = 0x1p100;
    for (double& y : wide.out.at("y").values) y = 0;
    for (double& r : wide.out.at("rstd").values) r = 0;
    CHECK(judged(wide).verdict == Verdict::inconclusive);
  }
}

TEST_CASE("what every element of a norm is measured against") {
  // One row (3, 4): mean square 12.5, rstd 1/sqrt(12.5) = 0.28284271247461901, y = (0.8485, 1.1314).
  NormSetup setup;
  setup.shape = {1, 2};
  setup.element = setup.weight = setup.statistics = DType::float64;
  Case c = norm_dump(setup, {}, false);
  c.spec["eps"] = 0.0;
  c.in = {{"x", c.in.at("x")}};
  c.in.at("x").values = {3, 4};
  c.out.at("y").values = {3 * 0.28284271247461901, 4 * 0.28284271247461901};
  c.out.at("rstd").values = {0.28284271247461901};
  const CaseFindings findings = judged(c);
  INFO(summary(findings));
  CHECK(findings.verdict == Verdict::pass);
  CHECK(output(findings, "rstd").want == Approx(1 / std::sqrt(12.5)).epsilon(1e-15));
}

TEST_CASE("malformed cases of a norm are named") {
  NormSetup setup;
  setup.has_residual = setup.has_bias = true;
  const auto message = [&](auto change) {
    Case c = norm_dump(setup, {}, true);
    change(c);
    return message_of(c);
  };
  using attest::test::Mentions;
  const auto shape = [](const char* group, const char* name, std::vector<Index> to) {
    return [=](Case& c) {
      Tensor& t = (group[0] == 'i' ? c.in : c.out).at(name);
      t.shape = to;
      t.values.resize(t.size());
    };
  };
  CHECK(message([](Case&) {}) == "no complaint");
  CHECK(message([](Case& c) { c.spec.erase("eps"); }) ==
        "emulated.h5: /case/spec attribute eps is missing; there are: round_sum");
  CHECK_THAT(message([](Case& c) { c.spec["eps"] = -1.0; }), Mentions("eps is -1") && Mentions("0 or more"));
  CHECK(message([](Case& c) { c.spec.erase("round_sum"); }) == "no complaint");
  CHECK_THAT(message([](Case& c) { c.in.erase("residual"), c.out.erase("sum"); }),
             Mentions("round_sum is not known"));
  CHECK_THAT(
      message([](Case& c) { c.spec["weight_offset"] = 1.0, c.in.erase("weight"), c.out.erase("dweight"); }),
      Mentions("weight_offset is 1") && Mentions("without in/weight"));
  CHECK_THAT(message([](Case& c) { c.in.erase("weight"); }), Mentions("out/dweight is given, but in/weight"));
  CHECK(message([](Case& c) { c.in.erase("bias"); }) == "no complaint");  // a backward pass does not read it
  CHECK_THAT(message([](Case& c) { c.in.erase("dy"); }), Mentions("but in/dy is missing"));
  CHECK_THAT(message([](Case& c) { c.out.emplace("mean", c.out.at("rstd")); }),
             Mentions("out/mean is not known"));
  CHECK_THAT(message([](Case& c) { c.contract["variance"] = std::string("two_pass"); }),
             Mentions("variance is not known"));
  CHECK_THAT(message([](Case& c) { c.contract["compute_dtype"] = std::string("bfloat16"); }),
             Mentions("cannot hold the values of in/"));
  CHECK_THAT(message(shape("in", "weight", {95})), Mentions("/in/weight has shape [95]; [96]"));
  CHECK_THAT(message(shape("in", "residual", {12, 96})),
             Mentions("/in/residual has shape [12, 96]; [3, 4, 96]"));
  CHECK_THAT(message(shape("out", "y", {3, 4, 95})), Mentions("/out/y has shape"));
  CHECK_THAT(message(shape("out", "rstd", {12})), Mentions("/out/rstd has shape [12]; [3, 4]"));
  CHECK_THAT(message(shape("out", "dbias", {1, 96})), Mentions("/out/dbias has shape"));
  for (const double bad :
       {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    for (const char* name : {"x", "residual", "weight", "bias", "dy"}) {
      const std::string text = message([&](Case& c) { c.in.at(name).values[7] = bad; });
      CHECK_THAT(text, Mentions(std::string("in/") + name) && Mentions("7]") &&
                           Mentions(std::isnan(bad) ? "NaN" : "infinity"));
    }
  }
  CHECK_THAT(message([](Case& c) { c.in.at("x").values[97] = c.in.at("residual").values[97] = 60000; }),
             Mentions("more than the largest float16 at [0, 1, 1]"));
  CHECK_THAT(message([](Case& c) {
               c.spec["eps"] = 0.0;
               std::fill_n(c.in.at("x").values.begin() + 96, 96, 0.0);
               std::fill_n(c.in.at("residual").values.begin() + 96, 96, 0.0);
             }),
             Mentions("row 1 of in/x is zero") && Mentions("0/0"));
  CHECK_THAT(message([](Case& c) {
               c.in.at("residual").dtype = DType::bfloat16;
               c.out.erase("sum");
             }),
             Mentions("narrower than in/x"));
}
