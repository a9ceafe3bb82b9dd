// The tables of docs/power.md.
#include <cmath>
#include <cstdio>

#include "tests/faults/power.hpp"

namespace attest::faults {
namespace {

std::string share(Index part, Index whole) {
  if (whole == 0) return "-";
  char text[32];
  const double percent = 100 * static_cast<double>(part) / static_cast<double>(whole);
  // Never rounded onto 0 or 100.
  const bool is_near_end = (percent < 1 && part > 0) || (percent > 99 && part < whole);
  std::snprintf(text, sizeof text, is_near_end ? "%.1f" : "%.0f", percent);
  return text;
}

std::string row_of(const std::string& name, const Tally& t) {
  std::string row = "| " + name + " | " + std::to_string(t.runs) + " | " + std::to_string(t.equivalent) +
                    " | " + std::to_string(t.caught) + " | " + std::to_string(t.escaped) + " | " +
                    std::to_string(t.inconclusive) + " | " + std::to_string(t.named);
  for (const Index rejected : t.rejected) row += " | " + std::to_string(rejected);
  return row + " |\n";
}

std::string head_of(const std::string& first) {
  std::string head = "| " + first + " | runs | equal bits | caught | escaped | inconclusive | named";
  std::string line = "|---|--:|--:|--:|--:|--:|--:";
  for (const Rule& rule : other_rules()) {
    head += " | " + std::string(rule.name);
    line += "|--:";
  }
  return head + " |\n" + line + "|\n";
}

std::string families(const Power& power) {
  std::string text = head_of("family");
  Tally all;
  auto tally = power.faults.begin();
  for (const emulate::Family& family : emulate::all_families()) {
    Tally sum;
    for (std::size_t n = 0; n < family.faults.size(); ++n, ++tally) sum.add(tally->total());
    all.add(sum);
    text += row_of(std::string(family.name) + ", " + std::to_string(family.faults.size()) + " faults", sum);
  }
  text += row_of("**all " + std::to_string(power.faults.size()) + " faults**", all);
  std::string shares = "| of the runs that differ, % | | | " + share(all.caught, all.faulty()) + " | " +
                       share(all.escaped, all.faulty()) + " | " + share(all.inconclusive, all.faulty()) +
                       " | " + share(all.named, all.caught) + " of caught";
  for (const Index rejected : all.rejected) shares += " | " + share(rejected, all.faulty());
  return text + shares + " |\n";
}

std::string honest(const Power& power) {
  std::string text = "| honest kernels | dumps | tensors | attest: failed | inconclusive dumps";
  std::string line = "|---|--:|--:|--:|--:";
  for (const Rule& rule : other_rules()) {
    text += " | " + std::string(rule.name);
    line += "|--:";
  }
  text += " |\n" + line + "|\n";
  HonestTally all;
  const auto row = [](const std::string& name, const HonestTally& t) {
    std::string cells = "| " + name + " | " + std::to_string(t.dumps) + " | " + std::to_string(t.tensors) +
                        " | " + std::to_string(t.failed_tensors) + " | " +
                        std::to_string(t.inconclusive_dumps);
    for (const Index rejected : t.rejected_tensors) cells += " | " + share(rejected, t.tensors) + " %";
    return cells + " |\n";
  };
  for (const auto& [element, tally] : power.honest) {
    text += row(std::string(format_of(element).name), tally);
    all.add(tally);
  }
  return text + row("**all**", all);
}

std::string each_fault(const Power& power) {
  std::string text = "| fault | after | runs | caught | escaped | inconclusive | by o | named";
  std::string line = "|---|---|--:|--:|--:|--:|--:|--:";
  for (const Rule& rule : other_rules()) {
    text += " | " + std::string(rule.name);
    line += "|--:";
  }
  text += " |\n" + line + "|\n";
  auto tally = power.faults.begin();
  for (const emulate::Family& family : emulate::all_families()) {
    for (std::size_t n = 0; n < family.faults.size(); ++n, ++tally) {
      const Tally t = tally->total();
      text += "| " + std::string(tally->fault->name) + " | " + std::string(tally->fault->source) + " | " +
              std::to_string(t.faulty()) + " | " + std::to_string(t.caught) + " | " +
              std::to_string(t.escaped) + " | " + std::to_string(t.inconclusive) + " | " +
              (tally->fault->is_backward ? "" : std::to_string(t.caught_by_o)) + " | " +
              std::to_string(t.named);
      for (const Index rejected : t.rejected) text += " | " + std::to_string(rejected);
      text += " |\n";
    }
  }
  return text;
}

/// Faults of which a run is not caught, per element type: "escaped + inconclusive of runs that differ".
std::string escapes(const Power& power, const Effort& effort) {
  std::string text = "| not caught", line = "|---";
  for (const DType element : effort.elements) {
    text += " | " + std::string(format_of(element).name);
    line += "|--:";
  }
  text += " |\n" + line + "|\n";
  for (const FaultTally& tally : power.faults) {
    const Tally all = tally.total();
    if (all.escaped + all.inconclusive == 0) continue;
    text += "| " + std::string(tally.fault->name);
    for (const DType element : effort.elements) {
      const auto of = tally.of_element.find(element);
      const Tally t = of == tally.of_element.end() ? Tally{} : of->second;
      text += " | " + (t.escaped + t.inconclusive == 0 ? std::string()
                                                       : std::to_string(t.escaped + t.inconclusive) + " of " +
                                                             std::to_string(t.faulty()));
    }
    text += " |\n";
  }
  return text;
}

}  // namespace

std::string table_of_faults(const Power& power, const Effort& effort) {
  return "\n" + families(power) + "\n" + escapes(power, effort) + "\n";
}

std::string table_of(const Power& power, const Effort& effort, bool is_full) {
  std::string text = "\n" + families(power) + "\n" + honest(power) + "\n";
  if (is_full) text += escapes(power, effort) + "\n" + each_fault(power) + "\n";
  return text;
}

}  // namespace attest::faults
