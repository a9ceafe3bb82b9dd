// Runs the zoo of faults and the honest kernels.
#include <algorithm>
#include <iostream>
#include <sstream>

#include "tests/faults/power.hpp"

namespace attest::faults {
namespace {

using emulate::Distribution;

struct Run {
  std::size_t fault;    // index in the zoo
  std::size_t context;  // index of the setup with what the fault needs
};

struct Context {
  Setup setup;
  bool with_gradients;
  Case honest;
  std::unique_ptr<Truth> truth;
};

std::vector<const Fault*> zoo() {
  std::vector<const Fault*> all;
  for (const emulate::Family& family : emulate::all_families()) {
    for (const Fault& fault : family.faults) all.push_back(&fault);
  }
  return all;
}

bool concerns(const Fault& fault, DType element) {
  return fault.elements.empty() || std::ranges::find(fault.elements, element) != fault.elements.end();
}

/// All faults on one setup.
void measure_faults(const Setup& base, std::vector<FaultTally>& tallies, bool prints_runs) {
  std::vector<Context> contexts;
  std::vector<Run> runs;
  for (std::size_t f = 0; f < tallies.size(); ++f) {
    const Fault& fault = *tallies[f].fault;
    if (!concerns(fault, base.element)) continue;
    Setup setup = base;
    if (fault.needs) fault.needs(setup);
    const auto same = std::ranges::find_if(contexts, [&](const Context& c) {
      return c.with_gradients == fault.is_backward && c.setup.text() == setup.text() &&
             c.setup.bias_shape == setup.bias_shape && c.setup.spec.softcap == setup.spec.softcap &&
             c.setup.spec.scale == setup.spec.scale && c.setup.spec.window_left == setup.spec.window_left &&
             c.setup.spec.window_right == setup.spec.window_right;
    });
    runs.push_back({f, static_cast<std::size_t>(same - contexts.begin())});
    if (same == contexts.end()) contexts.push_back({setup, fault.is_backward, {}, {}});
  }
#pragma omp parallel for schedule(dynamic)
  for (std::size_t n = 0; n < contexts.size(); ++n) {
    Context& c = contexts[n];
    c.honest = emulate::dump_of(c.setup, base_kernel(c.setup.element), c.with_gradients, dumped);
    c.truth = std::make_unique<Truth>(c.setup, c.with_gradients);
  }
  std::vector<Outcome> outcomes(runs.size());
#pragma omp parallel for schedule(dynamic)
  for (std::size_t n = 0; n < runs.size(); ++n) {
    const Context& c = contexts[runs[n].context];
    outcomes[n] = outcome_of(*tallies[runs[n].fault].fault, c.setup, c.honest, *c.truth);
  }
  for (std::size_t n = 0; n < runs.size(); ++n) {
    const Outcome& outcome = outcomes[n];
    FaultTally& tally = tallies[runs[n].fault];
    tally.of_element[base.element].add(outcome);
    if (outcome.verdict == Verdict::fail) ++tally.causes[outcome.cause.empty() ? "-" : outcome.cause];
    if (prints_runs) {
      std::cout << tally.fault->name << '\t' << contexts[runs[n].context].setup.text() << '\t'
                << (outcome.is_equivalent ? "equivalent" : name_of(outcome.verdict)) << '\t'
                << (outcome.is_named ? "named" : "-") << '\t' << outcome.cause << std::endl;
    }
  }
}

struct HonestResult {
  HonestTally tally;
  std::string alarm;
};

HonestResult judge_honest(const Setup& setup, const NamedKernel& kernel, const Truth& truth) {
  HonestResult result;
  const Case c = emulate::dump_of(setup, kernel.kernel, true, dumped);
  const CaseFindings findings = emulate::judged(c);
  HonestTally& t = result.tally;
  t.dumps = 1;
  t.tensors = static_cast<Index>(c.out.size());
  t.failed_dumps = findings.verdict == Verdict::fail ? 1 : 0;
  t.inconclusive_dumps = findings.verdict == Verdict::inconclusive ? 1 : 0;
  for (const OutputFindings& o : findings.outputs) t.failed_tensors += o.verdict == Verdict::fail ? 1 : 0;
  const std::array<int, rule_count> rejections = truth.rejections(c);
  for (std::size_t n = 0; n < rejections.size(); ++n) {
    t.rejected_tensors[n] = rejections[n];
    t.rejected_dumps[n] = rejections[n] > 0 ? 1 : 0;
  }
  if (t.failed_dumps > 0)
    result.alarm = kernel.name + ": " + setup.text() + ": " + emulate::summary(findings);
  return result;
}

/// All honest kernels on some setups.
void measure_honest(const std::vector<Setup>& setups, Power& power) {
  std::vector<std::vector<HonestResult>> results(setups.size());
#pragma omp parallel for schedule(dynamic)
  for (std::size_t n = 0; n < setups.size(); ++n) {
    const Truth truth(setups[n], true);
    for (const NamedKernel& kernel : honest_variants(setups[n].element))
      results[n].push_back(judge_honest(setups[n], kernel, truth));
  }
  for (std::size_t n = 0; n < setups.size(); ++n) {
    for (const HonestResult& result : results[n]) {
      power.honest[setups[n].element].add(result.tally);
      if (!result.alarm.empty()) power.false_alarms.push_back(result.alarm);
    }
  }
}

}  // namespace

void Tally::add(const Outcome& outcome) {
  ++runs;
  if (outcome.is_equivalent) {
    ++equivalent;
    return;
  }
  const bool is_caught = outcome.verdict == Verdict::fail;
  caught += is_caught;
  inconclusive += outcome.verdict == Verdict::inconclusive;
  escaped += outcome.verdict == Verdict::pass;
  named += is_caught && outcome.is_named;
  caught_by_o += outcome.fails_by_o;
  for (std::size_t n = 0; n < rejected.size(); ++n) rejected[n] += outcome.rejected[n];
}

void Tally::add(const Tally& other) {
  runs += other.runs, equivalent += other.equivalent;
  caught += other.caught, escaped += other.escaped, inconclusive += other.inconclusive;
  named += other.named, caught_by_o += other.caught_by_o;
  for (std::size_t n = 0; n < rejected.size(); ++n) rejected[n] += other.rejected[n];
}

Tally FaultTally::total() const {
  Tally sum;
  for (const auto& [element, tally] : of_element) sum.add(tally);
  return sum;
}

void HonestTally::add(const HonestTally& other) {
  dumps += other.dumps, tensors += other.tensors;
  failed_dumps += other.failed_dumps, failed_tensors += other.failed_tensors;
  inconclusive_dumps += other.inconclusive_dumps;
  for (std::size_t n = 0; n < rejected_dumps.size(); ++n) {
    rejected_dumps[n] += other.rejected_dumps[n];
    rejected_tensors[n] += other.rejected_tensors[n];
  }
}

Power measure(const Effort& effort, bool prints_runs) {
  Power power;
  for (const Fault* fault : zoo()) power.faults.push_back({fault, {}, {}});
  for (const DType element : effort.elements) {
    for (const Distribution distribution : effort.distributions) {
      for (Setup setup : effort.faulty) {
        setup.element = element;
        setup.distribution = distribution;
        if (distribution == effort.distributions.front()) measure_faults(setup, power.faults, prints_runs);
      }
      std::vector<Setup> setups;
      for (Index seed = 1; seed <= effort.seeds; ++seed) {
        for (Setup setup : effort.honest) {
          setup.element = element;
          setup.distribution = distribution;
          setup.seed = static_cast<std::uint64_t>(1000 * setup.seed) + static_cast<std::uint64_t>(seed);
          setups.push_back(setup);
        }
      }
      measure_honest(setups, power);
    }
  }
  return power;
}

}  // namespace attest::faults
