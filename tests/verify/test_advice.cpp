// Contract keys are advised where the case could have them.
#include <string>
#include <vector>

#include "tests/catch.hpp"
#include "tests/emulate/tensors.hpp"
#include "verify/diagnosis/advice.hpp"

namespace {

using namespace attest;
using namespace attest::emulate;

/// What is left of the advice of a compute_dtype.
std::string advised(const Case& c, const std::string& type) {
  std::vector<Decoy> answers = {{"every operation in " + type + ": contract key compute_dtype", "y", {}, {}}};
  drop_impossible_advice(c, answers);
  return answers.front().name;
}

}  // namespace

TEST_CASE("a compute_dtype is advised where it holds every input of a norm") {
  for (const DType narrow : {DType::float16, DType::bfloat16}) {
    const std::string type(format_of(narrow).name), plain = "every operation in " + type;
    for (const std::string input : {"x", "dy", "residual", "weight", "bias"}) {
      INFO(input);
      Case c;
      c.in["x"] = tensor_of(narrow, {2, 2});
      c.in[input] = tensor_of(narrow, {2});
      CHECK(advised(c, type) == plain + ": contract key compute_dtype");
      c.in[input] = tensor_of(DType::float32, {2});
      CHECK(advised(c, type) == plain);
    }
    Case rope;
    rope.in["x"] = tensor_of(narrow, {2, 2});
    rope.in["cos"] = rope.in["sin"] = tensor_of(DType::float32, {2});
    CHECK(advised(rope, type) == plain + ": contract key compute_dtype");
  }
}
