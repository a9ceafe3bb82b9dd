// Times functions as shares of what the machine can do at that moment, on machines that others use, too.
//
// Every sample stands between two probes: the same number of threads multiply and add in registers, or copy
// memory, for some milliseconds or less. A sample counts, as its work per second over the mean of the two,
// only if both are close to the fastest probe of that kind and the calling thread was not interrupted: then
// nobody else used the core. Cases take turns, so that a slow minute slows all of them down.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace attest::bench {

/// A kind of probe.
struct Probe {
  std::function<double(int thread)> work;  // of one thread; returns its operations, or bytes
  int threads;
  double quiet;        // an undisturbed machine gives probes that differ by no more than this factor
  std::string unit;    // "operation" or "byte"
  double fastest = 0;  // per second

  double measure();
};

struct Sample {
  double rate, before, after;  // per second, of the work and of the probes
  bool is_undisturbed;         // the calling thread had its processor to itself
};

struct Case {
  std::string type, what, by;  // "fp32", "forward", "v4"
  int threads;
  std::string shape;
  double amount;  // operations or bytes of one call
  std::function<void()> call;
  Probe* probe;
  std::vector<Sample> samples = {};
  double seconds_of_call = 0;

  std::string name() const;
};

/// Shares of what the probes around it reach, in ascending order, of the samples that count. If none does:
/// of all samples, and of the fastest probe.
struct Shares {
  std::vector<double> values;
  std::size_t quiet_samples;

  double median() const { return values[values.size() / 2]; }
};
Shares shares_of(const Case& x);
double fastest(const Case& x);  // per second

/// Seconds since some moment.
double now();

/// Takes `rounds` samples of each case, at least 1, each at least `seconds` long.
void measure(std::vector<Case>& cases, int rounds, double seconds);

}  // namespace attest::bench
