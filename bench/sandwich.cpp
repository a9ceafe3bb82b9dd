// Samples between two probes.
#include "bench/sandwich.hpp"

#include <omp.h>
#include <time.h>

#include <algorithm>
#include <chrono>
#include <cmath>

namespace attest::bench {
namespace {

/// A core that nobody else uses gives probes that differ by less than this.
constexpr double quiet = 0.95;

/// Less processor time than this share of the time on the clock, and others were let in between.
constexpr double undisturbed = 0.98;

double processor_seconds() {  // of this thread
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

void sample(Case& x, double seconds) {
  omp_set_num_threads(x.probe->threads);
  const double start_once = now();
  x.call();
  const int calls = std::max(1, static_cast<int>(std::ceil(seconds / (now() - start_once))));
  const double before = x.probe->measure();
  const double start = now(), processor_start = processor_seconds();
  for (int n = 0; n < calls; ++n) x.call();
  const double elapsed = now() - start, processor = processor_seconds() - processor_start;
  x.samples.push_back(
      {x.operations * calls / elapsed, before, x.probe->measure(), processor >= undisturbed * elapsed});
}

}  // namespace

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::vector<double> Case::shares() const {
  std::vector<double> result;
  for (const Sample& s : samples) {
    if (!s.is_undisturbed || std::min(s.before, s.after) < quiet * probe->fastest) continue;
    result.push_back(s.rate / ((s.before + s.after) / 2));
  }
  std::sort(result.begin(), result.end());
  return result;
}

double Case::fastest() const {
  double result = 0;
  for (const Sample& s : samples) result = std::max(result, s.rate);
  return result;
}

double Probe::measure() {
  constexpr long steps = 20000;
  double start = 0, end = 0, operations = 0;
#pragma omp parallel num_threads(threads)
  {
#pragma omp barrier
#pragma omp single
    start = now();
    const double own = multiply_add(steps);
#pragma omp barrier
#pragma omp single
    {
      end = now();
      operations = own * threads;
    }
  }
  fastest = std::max(fastest, operations / (end - start));
  return operations / (end - start);
}

void measure(std::vector<Case>& cases, int rounds, double seconds) {
  for (int round = 0; round < rounds; ++round) {
    for (Case& x : cases) sample(x, seconds);
  }
}

}  // namespace attest::bench
