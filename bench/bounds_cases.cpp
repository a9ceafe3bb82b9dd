// Exact values and bounds of the forward pass, as `attest verify` computes them, among what is measured.
#include <cmath>

#include "bench/cases.hpp"
#include "bench/shapes.hpp"
#include "core/array.hpp"
#include "tests/support/random.hpp"
#include "verify/bounds/attention_forward.hpp"

namespace attest::bench {
namespace {

/// A device's case in float16, with o and lse.
struct BoundsProblem {
  AttentionSpec spec;
  Array<double, 3> q, k, v;
  AttentionInputs in;
  Tensor o_dumped, lse_dumped;
  std::vector<Expected> expected;
  bounds::ForwardOutputs out;
  Contract contract{DType::float16, DType::float32, {DType::float32, 8, 1}, {DType::float32, 8, 1}};

  explicit BoundsProblem(const Shape& x)
      : spec{x.is_causal ? Causal::top_left : Causal::none,
             1 / std::sqrt(static_cast<double>(x.width)),
             -1,
             -1,
             0,
             EmptyRow::zero},
        q({x.heads, x.length, x.width}),
        k(q),
        v(q) {
    test::Random random(1);
    for (Array<double, 3>* tensor : {&q, &k, &v}) {
      for (Index n = 0; n < tensor->size(); ++n) {
        tensor->data()[n] = round_to(2 * random.symmetric(), DType::float16);
      }
    }
    in = {q.view(), k.view(), v.view(), {}, {}, {}, {}};
    o_dumped.dtype = DType::float16;
    o_dumped.shape = {x.heads, x.length, x.width};
    lse_dumped.dtype = DType::float32;
    lse_dumped.shape = {x.heads, x.length};
    expected = {Expected("o", o_dumped), Expected("lse", lse_dumped)};
    out.o = {expected[0], {expected[0].value.data(), {x.heads, x.length, x.width}}};
    out.lse = {expected[1], {expected[1].value.data(), {x.heads, x.length, 1}}};
    out.lse_empty = -HUGE_VAL;
  }
  BoundsProblem(const BoundsProblem&) = delete;

  void forward() { bounds::attention_forward(spec, in, contract, out); }
};

}  // namespace

void add_bounds_cases(const std::vector<int>& threads_of_cases, const std::string& only, Cases& out) {
  constexpr Index steps = 20000;
  const tiled::Level level = tiled::fastest_level();
  const auto work = [level](int) {
    return 2.0 * static_cast<double>(steps * tiled::kernels_for<double>(level).multiply_add(steps));
  };
  for (const Shape& shape :
       {Shape{"1x1x577x64", 1, 1, 577, 64, false}, Shape{"1x1x2048x128 causal", 1, 1, 2048, 128, true},
        Shape{"1x1x4096x64 causal", 1, 1, 4096, 64, true}}) {
    std::shared_ptr<BoundsProblem> problem;
    for (const int threads : threads_of_cases) {
      Case x{"fp64",
             "forward with bounds",
             short_name(level),
             threads,
             shape.name,
             shape.forward_operations(),
             {},
             {}};
      if (x.name().find(only) == std::string::npos) continue;
      if (!problem) out.kept.push_back(problem = std::make_shared<BoundsProblem>(shape));
      const auto probe = std::make_shared<Probe>(Probe{work, threads, 0.95, "operation"});
      out.kept.push_back(probe);
      x.call = [&own = *problem] { own.forward(); };
      x.probe = probe.get();
      out.cases.push_back(std::move(x));
    }
  }
}

}  // namespace attest::bench
