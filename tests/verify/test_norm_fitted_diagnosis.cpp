// What is said of norms with another eps, width or factor: the number that their outputs show.
#include <cmath>
#include <string>
#include <utility>

#include "tests/catch.hpp"
#include "tests/emulate/judged.hpp"
#include "tests/emulate/norm.hpp"

namespace {

using namespace attest;
using namespace attest::emulate;

constexpr DType elements[] = {DType::float16, DType::bfloat16, DType::float32};

NormSetup setup_of(bool is_centred, DType element) {
  NormSetup setup;
  setup.is_centred = is_centred;
  setup.element = setup.weight = element;
  setup.shape = {96, 77};
  setup.has_bias = is_centred;
  return setup;
}

}  // namespace

TEST_CASE("an eps that is no power of ten is named by its value") {
  for (const DType element : elements) {
    for (const bool is_centred : {false, true}) {
      for (const auto& [eps, name] : {std::pair{3e-4, "eps = 0.0003"}, std::pair{6.4e-4, "eps = 0.00064"}}) {
        NormSetup setup = setup_of(is_centred, element);
        setup.values = NormValues::small;
        setup.shape = {24, 77};
        setup.eps = eps;
        Case c = norm_dump(setup, {}, true);
        c.spec["eps"] = 1e-5;
        INFO(setup.text());
        CHECK(first_cause(c) == name);
      }
    }
  }
}

TEST_CASE("a padded width is named whatever it is") {
  for (const double padded : {90.0, 96.0, 100.0}) {
    NormSetup setup = setup_of(false, DType::float32);
    setup.eps = 1e-12;
    Case c = norm_dump(setup, {}, false);
    for (double& y : c.out.at("y").values) y = round_to(y * std::sqrt(padded / 77), DType::float32);
    c.out = {{"y", c.out.at("y")}};
    CHECK(first_cause(c) ==
          "mean square over a padded width of " + std::to_string(static_cast<Index>(padded)));
  }
}

TEST_CASE("a factor of dweight or dx is named, not rows that are missing") {
  for (const DType element : elements) {
    for (const bool is_centred : {false, true}) {
      const NormSetup setup = setup_of(is_centred, element);
      const Case right = norm_dump(setup, {}, true);
      const auto cause = [&](const char* output, double factor) {
        Case c = right;
        Tensor& tensor = c.out.at(output);
        for (double& value : tensor.values) value = round_to(factor * value, *tensor.dtype);
        return first_cause(c);
      };
      INFO(setup.text());
      CHECK(cause("dweight", 1.0 / 96) == "dweight as a mean over the rows, not a sum");
      CHECK(cause("dweight", 2) == "dweight times 2");
      CHECK(cause("dx", 0.5) == "dx divided by 2");
    }
  }
}

TEST_CASE("a weight that is 1 too large does not look like warps that are missing") {
  NormSetup setup = setup_of(false, DType::float16);
  setup.shape = {96, 200};
  setup.weight_offset = 1;
  Case c = norm_dump(setup, {}, false);
  c.spec.erase("weight_offset");
  const CaseFindings findings = judged(c);
  REQUIRE(!findings.diagnosis.empty());
  CHECK(findings.diagnosis[0].cause == "weight_offset = 1");
  for (const DiagnosisEntry& entry : findings.diagnosis)
    CHECK(entry.cause.find("missing") == std::string::npos);
}
