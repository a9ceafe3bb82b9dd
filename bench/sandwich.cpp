// Samples between two probes.
#include "bench/sandwich.hpp"

#include <omp.h>
#include <time.h>

#include <algorithm>
#include <chrono>
#include <cmath>

namespace attest::bench {
namespace {

/// Less processor time than this share of the time on the clock, and others were let in between.
constexpr double undisturbed = 0.98;

double processor_seconds() {  // of this thread
  timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

void sample(Case& x, double seconds) {
  omp_set_num_threads(x.probe->threads);
  // Once to warm the caches up, which does nothing for long calls but take time.
  if (x.seconds_of_call < 10 * seconds) {
    const double start_once = now();
    x.call();
    x.seconds_of_call = now() - start_once;
  }
  const int calls = std::max(1, static_cast<int>(std::ceil(seconds / x.seconds_of_call)));
  const double before = x.probe->measure();
  const double start = now(), processor_start = processor_seconds();
  for (int n = 0; n < calls; ++n) x.call();
  const double elapsed = now() - start, processor = processor_seconds() - processor_start;
  x.samples.push_back(
      {x.amount * calls / elapsed, before, x.probe->measure(), processor >= undisturbed * elapsed});
}

}  // namespace

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::string Case::name() const {
  return type + ' ' + what + ' ' + by + ", " + std::to_string(threads) +
         (threads == 1 ? " thread, " : " threads, ") + shape;
}

Shares shares_of(const Case& x) {
  std::vector<double> quiet, all;
  for (const Sample& s : x.samples) {
    all.push_back(s.rate / x.probe->fastest);
    if (s.is_undisturbed && std::min(s.before, s.after) >= x.probe->quiet * x.probe->fastest)
      quiet.push_back(s.rate / ((s.before + s.after) / 2));
  }
  Shares result{quiet.empty() ? all : quiet, quiet.size()};
  std::sort(result.values.begin(), result.values.end());
  return result;
}

double fastest(const Case& x) {
  double result = 0;
  for (const Sample& s : x.samples) result = std::max(result, s.rate);
  return result;
}

double Probe::measure() {
  double start = 0, end = 0, done = 0;
#pragma omp parallel num_threads(threads) reduction(+ : done)
  {
#pragma omp barrier
#pragma omp single
    start = now();
    done = work(omp_get_thread_num());
#pragma omp barrier
#pragma omp single
    end = now();
  }
  fastest = std::max(fastest, done / (end - start));
  return done / (end - start);
}

void measure(std::vector<Case>& cases, int rounds, double seconds) {
  for (int round = 0; round < rounds; ++round) {
    for (Case& x : cases) sample(x, seconds);
  }
}

}  // namespace attest::bench
