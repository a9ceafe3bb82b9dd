// Times functions as shares of what the processor can do at that moment, on machines that others use, too.
//
// Every sample stands between two probes: the same number of threads multiply and add in registers for about
// half a millisecond. A sample counts, as its work per second over the mean of the two, only if both are
// close to the fastest probe of that kind and the calling thread was not interrupted: then nobody else used
// the core. Cases take turns, so that a slow minute slows all of them down.
#pragma once

#include <functional>
#include <string>
#include <vector>

namespace attest::bench {

/// A kind of probe: its threads multiply and add `steps` times; the function returns how many operations that
/// was in one of them.
struct Probe {
  std::function<double(long)> multiply_add;
  int threads;
  double fastest = 0;  // operations per second

  double measure();
};

struct Sample {
  double rate, before, after;  // operations per second of the work and of the probes
  bool is_undisturbed;         // the calling thread had its processor to itself
};

struct Case {
  std::string name;
  double operations;  // floating-point operations of one call
  std::function<void()> call;
  Probe* probe;
  std::vector<Sample> samples;

  /// Shares of the peak, of the samples that count, in ascending order.
  std::vector<double> shares() const;
  double fastest() const;  // operations per second
};

/// Seconds since some moment.
double now();

/// Takes `rounds` samples of each case, at least `seconds` long.
void measure(std::vector<Case>& cases, int rounds, double seconds);

}  // namespace attest::bench
