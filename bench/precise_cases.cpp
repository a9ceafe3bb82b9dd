// Double-double attention of one head, at every level.
#include "bench/cases.hpp"

#include "core/array.hpp"
#include "tests/support/random.hpp"
#include "tiled/precise_attention.hpp"

namespace attest::bench {
namespace {

struct PreciseProblem {
  static constexpr Index width = 64;
  static constexpr AttentionSpec spec{Causal::none, 0.125, -1, -1, 0, EmptyRow::zero};

  Array<double, 3> q, k, v, o, o_lo, d_o, dq, dk, dv;
  Array<double, 2> lse, lse_lo;
  AttentionInputs in;
  tiled::PreciseOutputs out;
  tiled::PreciseSaved saved;
  tiled::PreciseGradients gradients;

  explicit PreciseProblem(Index length)
      : q({1, length, width}),
        k(q),
        v(q),
        o(q),
        o_lo(q),
        d_o(q),
        dq(q),
        dk(q),
        dv(q),
        lse({1, length}),
        lse_lo(lse) {
    test::Random random(1);
    for (Array<double, 3>* tensor : {&q, &k, &v, &d_o}) {
      for (Index n = 0; n < tensor->size(); ++n) tensor->data()[n] = 2 * random.symmetric();
    }
    in = {q.view(), k.view(), v.view(), {}, {}, {}, {}};
    out.o = {o.view(), o_lo.view()};
    out.lse = {lse.view(), lse_lo.view()};
    saved = {o.view(), o_lo.view(), lse.view(), lse_lo.view(), d_o.view()};
    gradients.dq.hi = dq.view();
    gradients.dk.hi = dk.view();
    gradients.dv.hi = dv.view();
    forward(tiled::fastest_level());
  }
  PreciseProblem(const PreciseProblem&) = delete;

  void forward(tiled::Level level) { tiled::precise_attention_forward(spec, {&in, 1}, {&out, 1}, level); }
  void backward(tiled::Level level) {
    tiled::precise_attention_backward(spec, {&in, 1}, {&saved, 1}, {&gradients, 1}, level);
  }
};

}  // namespace

void add_precise_cases(const std::vector<int>& threads_of_cases, const std::string& only, Cases& out) {
  for (const Index length : {Index{1024}, Index{4096}}) {
    std::shared_ptr<PreciseProblem> problem;
    const double pairs = static_cast<double>(length * length * PreciseProblem::width);
    for (const int threads : threads_of_cases) {
      for (const tiled::Level level : tiled::available_levels()) {
        if (level == tiled::Level::v2) continue;
        std::shared_ptr<Probe> probe;
        const auto add = [&](const std::string& what, double amount, auto call) {
          Case x{"fp64",
                 what + " double-double",
                 short_name(level),
                 threads,
                 "1x1x" + std::to_string(length) + "x64",
                 amount,
                 {},
                 {}};
          if (x.name().find(only) == std::string::npos) return;
          if (!problem) out.kept.push_back(problem = std::make_shared<PreciseProblem>(length));
          if (!probe) {
            const auto multiply_add = [level](int) {
              constexpr Index steps = 20000;
              return 2.0 * static_cast<double>(steps * tiled::kernels_for<double>(level).multiply_add(steps));
            };
            out.kept.push_back(probe =
                                   std::make_shared<Probe>(Probe{multiply_add, threads, 0.95, "operation"}));
          }
          x.call = [call, level, &own = *problem] { call(own, level); };
          x.probe = probe.get();
          out.cases.push_back(std::move(x));
        };
        add("forward", 4 * pairs, [](PreciseProblem& x, tiled::Level l) { x.forward(l); });
        add("backward", 10 * pairs, [](PreciseProblem& x, tiled::Level l) { x.backward(l); });
      }
    }
  }
}

}  // namespace attest::bench
