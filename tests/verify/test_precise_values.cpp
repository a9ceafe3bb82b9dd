// Values of float64 cases against 113-bit arithmetic, and what they let the verifier see.
#include <cmath>

#include "tests/catch.hpp"
#include "tests/emulate/honest_attention.hpp"
#include "tests/emulate/judged.hpp"
#include "tests/tiled/quad_attention.hpp"
#include "verify/op.hpp"

namespace {

using namespace attest;
using namespace attest::emulate;
using test::Quad;

constexpr DType element = DType::float64;

/// Every value is within its certified error of the exact one, and that error is not much more than the
/// rounding of the value to double. Of values that are rounded at all: masked scores are exact.
template <int Rank>
void check_values(const Expected& e, const Array<Quad, Rank>& exact) {
  INFO(e.output);
  REQUIRE(std::ssize(e.value) == exact.size());
  Index far = 0, loose = 0;
  for (Index at = 0; at < exact.size(); ++at) {
    if (!std::isfinite(e.value[at])) continue;
    far += !(test::absolute(e.value[at] - exact.data()[at]) <= e.value_error[at]);
    loose += e.value_error[at] > 0x1.01p-53 * std::abs(e.value[at]) + 0x1p-80;
  }
  CHECK(far == 0);
  CHECK(loose == 0);
}

}  // namespace

TEST_CASE("values of float64 cases are rounded once") {
  const std::vector<NamedKernel> kernels = honest_kernels(element);
  std::size_t n = 0;
  for (const Setup& setup : setups_with_features(element)) {
    const NamedKernel& kernel = kernels[n++ % kernels.size()];
    const Case c = dump_of(setup, kernel.kernel, true, {"o", "lse", "m", "l", "dq", "dk", "dv"});
    const AttentionInputs in = views_of(c);
    const auto problem = find_op(c).read(c);
    const std::vector<Expected> expected = problem->expect([](double) {});
    INFO(setup.text() << ": " << kernel.name);
    const test::QuadAttention forward = test::quad_attention(setup.spec, in);
    Array<Quad, 3> o(forward.o);
    Array<Quad, 2> lse(forward.lse);
    for (Index at = 0; at < o.size(); ++at) o.data()[at] = c.out.at("o").values[at];
    for (Index at = 0; at < lse.size(); ++at) lse.data()[at] = c.out.at("lse").values[at];
    const View<const double, 3> d_o{c.in.at("do").values.data(), {o.extent(0), o.extent(1), o.extent(2)}};
    const test::QuadGradients gradients = test::quad_gradients(setup.spec, in, o, lse, d_o);
    for (const Expected& e : expected) {
      if (e.output == "o") check_values(e, forward.o);
      if (e.output == "lse") check_values(e, forward.lse);
      if (e.output == "m") check_values(e, forward.m);
      if (e.output == "l") check_values(e, forward.l);
      if (e.output == "dq") check_values(e, gradients.dq);
      if (e.output == "dk") check_values(e, gradients.dk);
      if (e.output == "dv") check_values(e, gradients.dv);
    }
  }
}

TEST_CASE("float64 results that are off by 2^-42 fail") {
  Setup setup;
  setup.element = element;
  setup.queries = setup.keys = 200;
  for (const std::string name : {"o", "dq", "dk", "dv"}) {
    Case c = dump_of(setup, honest_kernels(element).front().kernel, true, {"o", "lse", "dq", "dk", "dv"});
    const CaseFindings before = judged(c);
    INFO(name << ": " << summary(before));
    CHECK(before.verdict == Verdict::pass);
    for (double& x : c.out.at(name).values) x *= 1 + 0x1p-42;
    const CaseFindings after = judged(c);
    INFO(summary(after));
    CHECK(output(after, name).verdict == Verdict::fail);
  }
}
