// Cases of the recipe "exact" gate bit for bit: honest kernels give the very values, and one that is a unit
// in the last place off in one element fails.
#include <cmath>
#include <string>
#include <vector>

#include "tests/catch.hpp"
#include "tests/emulate/cases.hpp"
#include "tests/emulate/honest_attention.hpp"
#include "tests/emulate/judged.hpp"
#include "verify/inputs/request.hpp"
#include "verify/inputs/suite.hpp"
#include "verify/op.hpp"

using namespace attest;

namespace {

const Op& op_named(std::string_view name) {
  return *std::ranges::find(all_ops(), name, [](const Op& op) { return op.name; });
}

Case inputs(std::string_view op, const std::string& shape, const std::string& set, DType dtype,
            const std::string& recipe = "exact") {
  RequestText text = SuiteCase{"", "", recipe, shape, set, ""}.request();
  text.dtype = format_of(dtype).name;
  return realised(op_named(op).generated.make(parse_request(op_named(op), text)));
}

/// Moves the element by one unit in the last place, away from 0 or towards it.
void nudge(Tensor& tensor, Index at, bool outwards) {
  const std::uint64_t bits = encode(tensor.values[at], *tensor.dtype);
  tensor.values[at] = decode(outwards ? bits + 1 : bits - 1, *tensor.dtype);
}

}  // namespace

TEST_CASE("an exact attention case passes honest kernels and fails one unit in the last place") {
  for (const DType dtype : {DType::float16, DType::bfloat16}) {
    for (const std::string set : {"causal=none", "causal=bottom_right", "window_left=40"}) {
      for (const std::string shape : {"Hq=2,Hkv=1,Sq=20,Sk=83,D=32", "Hq=1,Sq=2,Sk=512"}) {
        Case c = inputs("attention", shape, set, dtype);
        AttentionSpec spec{Causal::none, std::get<double>(c.spec.at("scale")), -1, -1, 0, EmptyRow::zero};
        if (set == "causal=bottom_right") spec.causal = Causal::bottom_right;
        if (set == "window_left=40") spec.window_left = 40;
        const std::vector<emulate::NamedKernel> kernels = emulate::honest_kernels(dtype);
        for (const std::size_t n : {0, 3}) {  // tiles of tensor cores; whole rows
          INFO(format_of(dtype).name << " " << set << " " << shape << " " << kernels[n].name);
          emulate::store(c, emulate::run(kernels[n].kernel, spec, emulate::views_of(c), {}, dtype),
                         {"o", "lse"}, dtype, dtype);
          Tensor& o = c.out.at("o");
          const CaseFindings honest = emulate::judged(c);
          INFO(emulate::summary(honest));
          REQUIRE(honest.verdict == Verdict::pass);
          CHECK(std::ranges::all_of(o.values, [](double x) { return x == std::round(x); }));
          nudge(o, o.size() / 3, n == 0);
          CHECK(emulate::judged(c).verdict == Verdict::fail);
        }
      }
    }
  }
}
