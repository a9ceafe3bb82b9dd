// One more operation takes its mathematics and one record: nothing else of the program has to know of it.
#include <algorithm>
#include <cmath>

#include "tests/catch.hpp"
#include "verify/axes/extents.hpp"
#include "verify/bounds/expected_view.hpp"
#include "verify/describe.hpp"
#include "verify/keys.hpp"
#include "verify/verdict/verify_case.hpp"

using namespace attest;

namespace {

/// What ref/leaky_relu.hpp would hold.
double leaky_relu(double slope, double x) {
  return x < 0 ? slope * x : x;
}

/// What verify/ops/leaky_relu.cpp would hold.
class LeakyReluProblem : public Problem {
 public:
  explicit LeakyReluProblem(const Case& c) : Problem(c), x_(*c.input("x")), y_(c.out.at("y")) {
    KeyReader keys(c, "spec", c.spec);
    slope_ = keys.number("slope");
    keys.finish();
    Extents extents(c);
    extents.unify("N", x_, "in/x");
    extents.unify("N", y_, "out/y");
  }

  std::string contract() const override { return "one product in float32"; }

  std::vector<Expected> expect(const ProgressFunction& progress) override {
    std::vector<Expected> all;
    Expected& y = all.emplace_back("y", y_);
    const bounds::ExpectedView<1> view(y, {y.value.data(), {x_.size()}});
    const double u = unit_roundoff(DType::float32), u64 = unit_roundoff(DType::float64);
    for (Index i = 0; i < x_.size(); ++i) {
      const double value = leaky_relu(slope_, x_.values[i]),
                   worst = 2 * u * std::abs(value);  // slope, product
      view.set_bound(value, worst, worst, 0, u64 / u, i);
    }
    progress(1);
    return all;
  }

  void recheck(std::span<const Expected>) const override {}

  std::vector<Decoy> decoys(std::span<const Expected>) const override {
    Decoy relu{"ReLU", "y", {}, {}};
    for (Index i = 0; i < x_.size(); ++i) {
      relu.at.push_back(i);
      relu.value.push_back(leaky_relu(0, x_.values[i]));
    }
    return {relu};
  }

 private:
  const Tensor &x_, &y_;
  double slope_ = 0;
};

Op leaky_relu_op() {
  return {"leaky_relu",
          "x, or slope x where x is negative.",
          {{"x", "N", PortType::floating, true, "input"}},
          {{"y", "N", PortType::floating, true, "output"}},
          {{"slope", "number", "", "of the negative half"}},
          {},
          [](const Case& c) -> std::unique_ptr<Problem> { return std::make_unique<LeakyReluProblem>(c); }};
}

Case case_of(std::vector<double> x, double slope_of_kernel) {
  Case c;
  c.file = "memory.h5";
  c.name = "new";
  c.op = "leaky_relu";
  c.spec["slope"] = 0.1;
  const Index n = static_cast<Index>(x.size());
  c.in["x"] = {"float16", DType::float16, {n}, x};
  for (double& value : x) value = round_to(leaky_relu(slope_of_kernel, value), DType::float16);
  c.out["y"] = {"float16", DType::float16, {n}, x};
  return c;
}

CaseFindings judged(const Case& c) {
  Progress progress;
  return verify_case(leaky_relu_op(), c, progress);
}

}  // namespace

TEST_CASE("an operation that is nothing but a record is judged") {
  CHECK(judged(case_of({1, -1, 3, -0.5}, 0.1f)).verdict == Verdict::pass);
  CHECK(judged(case_of({1, -1, 3, -0.5}, 0.101)).verdict == Verdict::fail);
  CHECK(judged(case_of({1, -1, 3, -0.5}, 0)).verdict == Verdict::fail);
}

TEST_CASE("malformed cases of an operation that is nothing but a record are named") {
  Case c = case_of({1, -1}, 0.1f);
  c.in["w"] = c.in["x"];
  CHECK_THROWS_WITH(judged(c), "memory.h5: /new/in/w is not known to leaky_relu; accepted: x");
  c = case_of({1, -1}, 0.1f);
  c.spec.clear();
  CHECK_THROWS_WITH(judged(c), "memory.h5: /new/spec attribute slope is missing");
}

TEST_CASE("an operation that is nothing but a record has a page") {
  const std::string page = page_of(leaky_relu_op());
  for (const char* text : {"# leaky_relu", "`in/x`", "`out/y`", "`slope` (number; required)"}) {
    CHECK(page.find(text) != std::string::npos);
  }
}
