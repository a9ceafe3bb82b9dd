// What is said of float64 dumps whose numbers are as small or as large as there are.
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "tests/catch.hpp"
#include "tests/emulate/judged.hpp"
#include "tests/emulate/tensors.hpp"

namespace {

using namespace attest;
using namespace attest::emulate;

constexpr DType element = DType::float64;

Tensor random_tensor(std::vector<Index> shape) {
  Tensor t = tensor_of(element, std::move(shape));
  test::Random random(3);
  for (double& x : t.values) x = normal(random);
  return t;
}

Tensor filled(std::vector<Index> shape, double value) {
  Tensor t = tensor_of(element, std::move(shape));
  for (double& x : t.values) x = value;
  return t;
}

Case case_of(const std::string& op) {
  Case c;
  c.file = "memory.h5";
  c.name = c.op = op;
  return c;
}

/// One case of every operation whose diagnosis fits numbers, with outputs of this value.
std::vector<Case> cases_of(double value) {
  std::vector<Case> all;
  for (const std::string op : {"silu", "gelu", "sigmoid"}) {
    for (const std::string output : {"y", "dx"}) {
      Case& c = all.emplace_back(case_of(op));
      c.in = {{"x", random_tensor({64})}, {"dy", random_tensor({64})}};
      c.out[output] = filled({64}, value);
    }
  }
  for (const std::string output : {"y", "lse", "dx"}) {
    Case& c = all.emplace_back(case_of("softmax"));
    c.in = {{"x", random_tensor({8, 8})}, {"dy", random_tensor({8, 8})}};
    c.out[output] = output == "lse" ? filled({8}, value) : filled({8, 8}, value);
  }
  for (const std::string output : {"y", "rstd", "dweight"}) {
    Case& c = all.emplace_back(case_of("rms_norm"));
    c.spec = {{"eps", 1e-5}};
    c.in = {{"x", random_tensor({8, 8})}, {"weight", random_tensor({8})}, {"dy", random_tensor({8, 8})}};
    c.out[output] = output == "y" ? filled({8, 8}, value) : filled({8}, value);
  }
  Case& c = all.emplace_back(case_of("rope"));
  c.spec = {{"style", "half"}, {"theta", 1e4}, {"position_start", std::int64_t{0}}};
  c.in["x"] = random_tensor({1, 2, 8, 16});
  c.out["y"] = filled({1, 2, 8, 16}, value);
  return all;
}

}  // namespace

TEST_CASE("float64 numbers that no number of few digits comes near get a verdict") {
  // Fitted factors are subnormal, or round to more than the largest double.
  for (const double value : {6.9e-310, -6.9e-310, 5e-324, 1.79e308}) {
    for (const Case& c : cases_of(value)) {
      INFO(c.op << " " << c.out.begin()->first << " " << value);
      CHECK(judged(c).verdict == Verdict::fail);
    }
  }
}

TEST_CASE("numbers are read as they are written, however small or large") {
  for (const double x : {0.1, -2.5, 0.0, 6.9e-310, 5e-324, -5e-324, 1e308})
    CHECK(number_of(exact_text(x)) == x);
  CHECK(number_of(number_text(1.79e308, 1)) == INFINITY);
  CHECK(number_of(number_text(-1.79e308, 2)) == -INFINITY);
  CHECK(number_of("inf") == INFINITY);
  CHECK(std::isnan(number_of("nan")));
}
