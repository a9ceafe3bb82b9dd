// Attention by tiles, and Eigen's beside it.
#include <cmath>
#include <map>

#include "bench/blas_attention.hpp"
#include "bench/cases.hpp"
#include "bench/eigen_attention.hpp"
#include "bench/shapes.hpp"
#include "core/array.hpp"
#include "tests/support/random.hpp"
#include "tiled/attention.hpp"

namespace attest::bench {
namespace {

/// Tensors of one shape; a batch is a list of sequences.
template <class Real>
struct Problem {
  Shape shape;
  AttentionSpec spec;
  Array<Real, 4> q, k, v, o, d_o, dq, dk, dv;
  Array<Real, 3> lse;
  std::vector<tiled::Inputs<Real>> in;
  std::vector<tiled::Outputs<Real>> out;
  std::vector<tiled::Saved<Real>> saved;
  std::vector<tiled::Gradients<Real>> gradients;

  explicit Problem(const Shape& x)
      : shape(x),
        spec{x.is_causal ? Causal::top_left : Causal::none,
             1 / std::sqrt(static_cast<double>(x.width)),
             -1,
             -1,
             0,
             EmptyRow::zero},
        q({x.batch, x.heads, x.queries, x.width}),
        k({x.batch, x.heads, x.length, x.width}),
        v(k),
        o(q),
        d_o(q),
        dq(q),
        dk(k),
        dv(k),
        lse({x.batch, x.heads, x.queries}) {
    test::Random random(1);
    for (Array<Real, 4>* tensor : {&q, &k, &v, &d_o}) {
      for (Index n = 0; n < tensor->size(); ++n)
        tensor->data()[n] = static_cast<Real>(2 * random.symmetric());
    }
    for (Index b = 0; b < x.batch; ++b) {
      in.push_back({q.view().slice(b), k.view().slice(b), v.view().slice(b), {}, {}, {}, {}});
      out.push_back({o.view().slice(b), lse.view().slice(b), {}, {}});
      saved.push_back({o.view().slice(b), lse.view().slice(b), d_o.view().slice(b)});
      gradients.push_back({dq.view().slice(b), dk.view().slice(b), dv.view().slice(b), {}, {}});
    }
    forward(tiled::fastest_level());
  }
  Problem(const Problem&) = delete;

  void forward(tiled::Level level) { tiled::attention_forward<Real>(spec, in, out, level); }
  /// Of the o and lse of the last forward pass; how long it takes does not depend on them.
  void backward(tiled::Level level) { tiled::attention_backward<Real>(spec, in, saved, gradients, level); }
  void eigen() {
    eigen_attention(q.data(), k.data(), v.data(), o.data(), shape.batch * shape.heads, shape.length,
                    shape.width, shape.is_causal);
  }
#ifdef ATTEST_BENCH_HAS_BLAS
  void blas() {
    blas_attention(q.data(), k.data(), v.data(), o.data(), shape.batch * shape.heads, shape.length,
                   shape.width, shape.is_causal, tiled::fastest_level());
  }
#endif
};

template <class Real>
std::shared_ptr<Probe> multiply_add_probe(tiled::Level level, int threads) {
  constexpr Index steps = 20000;  // half a millisecond
  const auto work = [level](int) {
    return 2.0 * static_cast<double>(steps * tiled::kernels_for<Real>(level).multiply_add(steps));
  };
  return std::make_shared<Probe>(Probe{work, threads, 0.95, "operation"});
}

template <class Real>
void add(const std::vector<int>& threads_of_cases, const std::string& only, Cases& out) {
  std::map<std::pair<tiled::Level, int>, std::shared_ptr<Probe>> probes;
  for (const Shape& shape : shapes) {
    if (sizeof(Real) == 8 && shape.length > 5000) continue;
    std::shared_ptr<Problem<Real>> problem;
    for (const int threads : threads_of_cases) {
      const auto add_case = [&](const std::string& what, const std::string& by, double operations,
                                tiled::Level level, const std::function<void(Problem<Real>&)>& call) {
        Case x{sizeof(Real) == 4 ? "fp32" : "fp64", what, by, threads, shape.name, operations, {}, {}};
        if (x.name().find(only) == std::string::npos) return;
        if (!problem) out.kept.push_back(problem = std::make_shared<Problem<Real>>(shape));
        std::shared_ptr<Probe>& probe = probes[{level, threads}];
        if (!probe) out.kept.push_back(probe = multiply_add_probe<Real>(level, threads));
        x.call = [call, &own = *problem] { call(own); };
        x.probe = probe.get();
        out.cases.push_back(std::move(x));
      };
      for (const tiled::Level level : tiled::available_levels()) {
        if (level == tiled::Level::v2) continue;
        add_case("forward", short_name(level), shape.forward_operations(), level,
                 [level](Problem<Real>& x) { x.forward(level); });
        if (shape.queries == 1) continue;
        add_case("backward", short_name(level), shape.backward_operations(), level,
                 [level](Problem<Real>& x) { x.backward(level); });
      }
      if (shape.queries != shape.length) continue;
      if (shape.length <= 2048) {  // it takes seconds for more
        add_case("forward", "Eigen", shape.forward_operations(), tiled::fastest_level(),
                 [](Problem<Real>& x) { x.eigen(); });
      }
#ifdef ATTEST_BENCH_HAS_BLAS
      add_case("forward", "BLAS", shape.forward_operations(), tiled::fastest_level(),
               [](Problem<Real>& x) { x.blas(); });
#endif
    }
  }
}

}  // namespace

void add_attention_cases(const std::vector<int>& threads, const std::string& only, Cases& out) {
  add<float>(threads, only, out);
  add<double>(threads, only, out);
#ifdef ATTEST_BENCH_HAS_BLAS
  out.notes.push_back("BLAS: tiles as PyTorch has them, products by OpenBLAS, exponentials by tiled.");
#else
  out.notes.push_back("No rows by BLAS: OpenBLAS was not found when this was configured.");
#endif
}

}  // namespace attest::bench
