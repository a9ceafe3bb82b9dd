// Gradients of a norm as a function of statistics that the case gives.
#include <cmath>

#include "tests/catch.hpp"
#include "tests/emulate/judged.hpp"
#include "tests/emulate/norm.hpp"

namespace {

using namespace attest;
using namespace attest::emulate;

/// The backward pass of a dump alone, as a function of the statistics that the forward pass has stored.
Case gradients_of_stored_statistics(Case c) {
  for (const char* name : {"rstd", "mean"}) {
    if (c.out.contains(name)) c.in.emplace(name, c.out.at(name));
  }
  c.spec.erase("eps");
  for (const char* name : {"y", "rstd", "mean"}) c.out.erase(name);
  return c;
}

}  // namespace

TEST_CASE("gradients are held against the statistics that a case gives") {
  for (const bool is_centred : {false, true}) {
    for (const DType element : {DType::float16, DType::float32}) {
      NormSetup setup;
      setup.is_centred = is_centred;
      setup.element = setup.weight = element;
      setup.shape = {40, 200};
      setup.has_bias = true;
      setup.statistics = DType::bfloat16;  // far from those of x
      const auto judged_with = [&](const NormKernel& kernel) {
        return judged(gradients_of_stored_statistics(norm_dump(setup, kernel, true)));
      };
      INFO(setup.text());
      NormKernel kernel;
      for (const bool folds : {false, true}) {
        kernel.folds_mean = kernel.cubes = folds;
        kernel.stores_statistics = false;  // it computes them anew
        CHECK(judged_with(kernel).verdict == Verdict::fail);
        kernel.stores_statistics = true;
        const CaseFindings findings = judged_with(kernel);
        INFO(summary(findings));
        CHECK(findings.verdict == Verdict::pass);
      }
      kernel.mistakes.no_mean_of_gx = true;
      const CaseFindings findings = judged_with(kernel);
      REQUIRE(findings.verdict == Verdict::fail);
      CHECK(findings.diagnosis.at(0).cause == "dx without the mean of dy weight xhat");
    }
  }
}

TEST_CASE("statistics that cannot be what gradients read are named") {
  NormSetup setup;
  setup.is_centred = true;
  const auto message = [&](auto change) {
    Case c = gradients_of_stored_statistics(norm_dump(setup, {}, true));
    change(c);
    return message_of(c);
  };
  using attest::test::Mentions;
  CHECK(message([](Case&) {}) == "no complaint");
  CHECK(message([](Case& c) { c.spec["eps"] = 1e-5; }) == "no complaint");
  CHECK_THAT(message([](Case& c) { c.in.erase("mean"); }),
             Mentions("in/rstd is given, but in/mean is missing"));
  CHECK_THAT(message([](Case& c) { c.in.erase("rstd"); }),
             Mentions("in/mean is given, but in/rstd is missing"));
  CHECK_THAT(message([](Case& c) { c.out["y"] = c.out.at("dx"); }),
             Mentions("out/y does not depend on it") && Mentions("gradients alone"));
  CHECK_THAT(message([](Case& c) { c.in["residual"] = c.in.at("x"); }), Mentions("in/residual, too"));
  CHECK_THAT(message([](Case& c) { c.in.at("rstd").values[5] = 0; }),
             Mentions("/in/rstd holds 0 at [1, 1]; positive values"));
  CHECK_THAT(message([](Case& c) { c.in.at("mean").values[5] = std::nan(""); }),
             Mentions("holds NaN at [1, 1]"));
  CHECK_THAT(message([](Case& c) { c.in.at("mean").shape = {12}; }),
             Mentions("/in/mean has shape [12]; [3, 4]"));
  setup.is_centred = false;
  CHECK_THAT(message([](Case& c) { c.in["mean"] = c.in.at("rstd"); }), Mentions("in/mean is not known"));
}
