// What is said of attention dumps that tell little: lse without o, few rows or columns, rows without keys.
#include <string>
#include <vector>

#include "tests/catch.hpp"
#include "tests/emulate/honest_attention.hpp"
#include "tests/emulate/judged.hpp"

namespace {

using namespace attest;
using namespace attest::emulate;
using Catch::Matchers::StartsWith;

Case dump(const Setup& setup, const std::vector<std::string>& outputs = {"o", "lse"}) {
  Case c = dump_of(setup, honest_kernels(setup.element)[0].kernel, false, outputs);
  c.in.erase("do");
  return c;
}

Case shifted(Case c, double by) {
  for (double& x : c.out.at("lse").values) x = round_to(x + by, DType::float32);
  return c;
}

}  // namespace

TEST_CASE("a wrong lse without o has the names that it has beside o") {
  Setup setup;
  setup.queries = 16, setup.keys = 48;
  for (const std::vector<std::string>& outputs : {std::vector<std::string>{"o", "lse"}, {"lse"}}) {
    INFO(outputs.size());
    const Case right = dump(setup, outputs);
    CHECK(judged(right).verdict == Verdict::pass);
    CHECK(first_cause(shifted(right, 0.1)) == "lse 0.1 too large: its row sum multiplied by 1.105");
    Case multiplied = right;
    for (double& x : multiplied.out.at("lse").values) x = round_to(1.01 * x, DType::float32);
    CHECK(first_cause(multiplied) == "lse multiplied by 1.01");
    Setup other = setup;
    other.spec.scale *= 1.013;
    Case scaled = dump(other, outputs);
    scaled.spec = right.spec;
    CHECK_THAT(first_cause(scaled), StartsWith("a scale 1.3 % too large"));
    other = setup;
    other.spec.window_right = 4;
    Case windowed = dump(other, outputs);
    windowed.spec = right.spec;
    CHECK(first_cause(windowed) == "window_right = 4");
  }
}
