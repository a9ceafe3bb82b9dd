// The cases of attest_bench for Google Benchmark, with its filters, repetitions, JSON and compare.py.
#include <benchmark/benchmark.h>
#include <omp.h>

#include <algorithm>

#include "bench/cases.hpp"

namespace {

using attest::bench::Case;

/// Counters: what is done in a second, and as a share of what probes just before and after it reach.
void run(benchmark::State& state, const Case& x) {
  omp_set_num_threads(x.threads);
  x.call();
  const double before = x.probe->measure();
  const double start = attest::bench::now();
  for ([[maybe_unused]] auto _ : state) x.call();
  const double elapsed = attest::bench::now() - start;
  const double rate = x.amount * static_cast<double>(state.iterations()) / elapsed;
  state.counters[x.probe->unit + "s"] = benchmark::Counter(rate);
  state.counters["share"] = 2 * rate / (before + x.probe->measure());
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  const attest::bench::Cases all = attest::bench::all_cases({1, 2}, "");
  for (const Case& x : all.cases) {
    std::string name = x.name();
    std::ranges::replace(name, ' ', '_');
    benchmark::RegisterBenchmark(name.c_str(), run, x)->UseRealTime()->Unit(benchmark::kMillisecond);
  }
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
