// attest_bench: how much of the processor's peak the tiled attention reaches, and Eigen beside it.
#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdio>
#include <deque>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "bench/eigen_attention.hpp"
#include "bench/sandwich.hpp"
#include "bench/shapes.hpp"
#include "core/array.hpp"
#include "tests/support/random.hpp"
#include "tiled/attention.hpp"

namespace {

using namespace attest;
using namespace attest::bench;

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
        q({x.batch, x.heads, x.length, x.width}),
        k(q),
        v(q),
        o(q),
        d_o(q),
        dq(q),
        dk(q),
        dv(q),
        lse({x.batch, x.heads, x.length}) {
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
};

struct Options {
  int rounds = 15;
  double seconds = 0.004;
  std::vector<int> threads = {1, 2};
  std::string only, json;
};

using Probes = std::map<std::string, Probe>;

template <class Real>
Probe& probe_of(Probes& probes, tiled::Level level, int threads) {
  const std::string name =
      std::to_string(sizeof(Real)) + tiled::name_of(level) + '/' + std::to_string(threads);
  const auto multiply_add = [level](long steps) {
    return 2.0 * static_cast<double>(steps * tiled::kernels_for<Real>(level).multiply_add(steps));
  };
  return probes.try_emplace(name, Probe{multiply_add, threads}).first->second;
}

template <class Real>
void add_cases(const Options& options, Probes& probes, std::deque<Problem<Real>>& problems,
               std::vector<Case>& cases) {
  for (const Shape& shape : shapes) {
    if (sizeof(Real) == 8 && shape.length > 5000) continue;
    Problem<Real>& x = problems.emplace_back(shape);
    for (const int threads : options.threads) {
      const auto add = [&](const std::string& what, double operations, tiled::Level level,
                           std::function<void()> call) {
        const std::string name = std::string(sizeof(Real) == 4 ? "fp32 " : "fp64 ") + what + ", " +
                                 std::to_string(threads) + (threads == 1 ? " thread, " : " threads, ") +
                                 shape.name;
        if (name.find(options.only) == std::string::npos) return;
        cases.push_back({name, operations, std::move(call), &probe_of<Real>(probes, level, threads), {}});
      };
      for (const tiled::Level level : tiled::available_levels()) {
        if (level == tiled::Level::v2) continue;
        add(std::string("forward ") + tiled::name_of(level), shape.forward_operations(), level,
            [&x, level] { x.forward(level); });
        add(std::string("backward ") + tiled::name_of(level), shape.backward_operations(), level,
            [&x, level] { x.backward(level); });
      }
      if (shape.length <= 4096) {
        add("forward Eigen", shape.forward_operations(), tiled::fastest_level(), [&x] { x.eigen(); });
      }
    }
  }
}

nlohmann::json report(const std::vector<Case>& cases) {
  nlohmann::json rows = nlohmann::json::array();
  std::printf("%-66s %6s %6s %9s %8s\n", "share of the multiply-add peak", "median", "best", "Gop/s",
              "samples");
  for (const Case& x : cases) {
    const std::vector<double> shares = x.shares();
    const double median = shares.empty() ? std::nan("") : shares[shares.size() / 2];
    const double best = shares.empty() ? std::nan("") : shares.back();
    std::printf("%-66s %6.3f %6.3f %9.1f %4zu/%-3zu\n", x.name.c_str(), median, best, x.fastest() * 1e-9,
                shares.size(), x.samples.size());
    rows.push_back({{"name", x.name},
                    {"median_share", median},
                    {"best_share", best},
                    {"fastest_operations_per_second", x.fastest()},
                    {"fastest_probe_operations_per_second", x.probe->fastest},
                    {"quiet_samples", shares.size()},
                    {"samples", x.samples.size()}});
  }
  return rows;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  CLI::App app("How much of the processor's multiply-add peak the tiled attention reaches");
  app.add_option("--rounds", options.rounds, "samples of each case")->capture_default_str();
  app.add_option("--threads", options.threads, "numbers of threads")->capture_default_str();
  app.add_option("--only", options.only, "cases whose name contains this text");
  app.add_option("--json", options.json, "write the results to this file, too");
  CLI11_PARSE(app, argc, argv);

  std::deque<Problem<float>> float_problems;
  std::deque<Problem<double>> double_problems;
  Probes probes;
  std::vector<Case> cases;
  add_cases(options, probes, float_problems, cases);
  add_cases(options, probes, double_problems, cases);
  measure(cases, options.rounds, options.seconds);
  const nlohmann::json rows = report(cases);
  if (!options.json.empty()) std::ofstream(options.json) << rows.dump(2) << '\n';
}
