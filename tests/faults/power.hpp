// How many faults are caught, and how many honest kernels are not left alone.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "tests/faults/trial.hpp"

namespace attest::faults {

/// What became of the runs of a fault.
struct Tally {
  Index runs = 0, equivalent = 0;  // equivalent ones count in nothing else
  Index caught = 0, escaped = 0, inconclusive = 0;
  Index named = 0, caught_by_o = 0;
  std::array<Index, rule_count> rejected{};

  void add(const Outcome& outcome);
  void add(const Tally& other);
  Index faulty() const { return runs - equivalent; }
};

struct FaultTally {
  const Fault* fault;
  std::map<DType, Tally> of_element;
  std::map<std::string, Index> causes;  // first entries of the diagnosis

  Tally total() const;
};

struct HonestTally {
  Index dumps = 0, tensors = 0, failed_dumps = 0, failed_tensors = 0, inconclusive_dumps = 0;
  std::array<Index, rule_count> rejected_dumps{}, rejected_tensors{};

  void add(const HonestTally& other);
};

/// How much to run.
struct Effort {
  std::vector<Setup> faulty, honest;  // faulty ones have the first distribution
  std::vector<DType> elements;
  std::vector<emulate::Distribution> distributions;
  Index seeds = 1;  // of honest dumps; faulty ones have one
};
Effort quick_effort();
Effort full_effort(Index seeds);
Effort uniform_effort();  // faults only, on inputs in [0, 1)

struct Power {
  std::vector<FaultTally> faults;  // in the order of all_families()
  std::map<DType, HonestTally> honest;
  std::vector<std::string> false_alarms;  // a line each
};

/// Prints a line per run on standard output if `prints_runs`. The same on any number of threads.
Power measure(const Effort& effort, bool prints_runs);

/// The tables of docs/power.md.
std::string table_of(const Power& power, const Effort& effort, bool is_full);
std::string table_of_faults(const Power& power, const Effort& effort);

}  // namespace attest::faults
