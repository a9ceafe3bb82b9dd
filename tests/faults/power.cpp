// attest_power: how many faults are caught and named, how many honest kernels are rejected; docs/power.md.
#include "tests/faults/power.hpp"

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>

namespace attest::faults {
namespace {

std::vector<Setup> shapes() {
  std::vector<Setup> all;
  const auto add = [&](auto change) {
    Setup& s = all.emplace_back();
    s.spec.scale = 1 / std::sqrt(32.0);
    change(s);
  };
  add([](Setup& s) { s.keys = 83, s.spec.causal = Causal::bottom_right; });
  add([](Setup& s) { s.q_heads = 4, s.queries = 60, s.keys = 101, s.v_width = 48; });
  add([](Setup& s) { s.q_heads = 16, s.kv_heads = 4, s.queries = 1, s.keys = 200; });
  add([](Setup& s) { s.queries = s.keys = 257, s.width = s.v_width = 64, s.spec.scale = 0.125; });
  return all;
}

/// Replaces what stands between the marker and the end marker; false if they are not there.
bool replace_table(std::string& page, const std::string& marker, const std::string& table) {
  const std::string end_marker = "<!-- end of table -->";
  const std::size_t begin = page.find(marker);
  if (begin == std::string::npos) return false;
  const std::size_t end = page.find(end_marker, begin);
  if (end == std::string::npos) return false;
  page.replace(begin + marker.size(), end - begin - marker.size(), "\n" + table);
  return true;
}

int run(const std::string& path, bool only_checks, bool prints_runs, Index seeds) {
  std::ifstream in(path, std::ios::binary);
  const std::string old{std::istreambuf_iterator<char>(in), {}};
  std::string page = old;
  const Effort quick = quick_effort();
  bool has_markers = replace_table(page, "<!-- table: attest_power, quick part -->",
                                   table_of(measure(quick, false), quick, false));
  if (!only_checks) {
    const Effort full = full_effort(seeds);
    const Power power = measure(full, prints_runs);
    for (const std::string& alarm : power.false_alarms) std::cerr << "false alarm: " << alarm << '\n';
    has_markers &= replace_table(page, "<!-- table: attest_power -->", table_of(power, full, true));
    const Effort uniform = uniform_effort();
    has_markers &= replace_table(page, "<!-- table: attest_power, uniform inputs -->",
                                 table_of_faults(measure(uniform, prints_runs), uniform));
  }
  if (!has_markers) {
    std::cerr << path << " has no markers for the tables\n";
    return 1;
  }
  if (only_checks) {
    if (page == old) return 0;
    std::cerr << path << " is out of date: run attest_power " << path << '\n';
    return 1;
  }
  std::ofstream out(path, std::ios::binary);
  out << page << std::flush;
  if (!out) std::cerr << path << " cannot be written\n";
  return out ? 0 : 1;
}

/// For people: the table, or every run.
int print(bool is_quick, bool prints_runs, Index seeds) {
  const Effort effort = is_quick ? quick_effort() : full_effort(seeds);
  const Power power = measure(effort, prints_runs);
  if (!prints_runs) std::cout << table_of(power, effort, !is_quick);
  for (const std::string& alarm : power.false_alarms) std::cerr << "false alarm: " << alarm << '\n';
  return 0;
}

}  // namespace

Effort quick_effort() {
  Setup small;
  small.queries = 48, small.keys = 70, small.width = small.v_width = 24;
  small.spec.causal = Causal::bottom_right;
  small.spec.scale = 0.2;
  return {{small}, {small}, {DType::float16}, {emulate::Distribution::normal}, 1};
}

Effort full_effort(Index seeds) {
  using emulate::Distribution;
  std::vector<Setup> honest = emulate::setups_with_features(DType::float16);
  honest.push_back(shapes()[0]);
  honest.push_back(shapes()[2]);
  return {shapes(),
          honest,
          {DType::float16, DType::bfloat16, DType::float32},
          {Distribution::normal, Distribution::unit, Distribution::uniform, Distribution::spiky},
          seeds};
}

Effort uniform_effort() {
  return {shapes(), {}, {DType::float16, DType::bfloat16, DType::float32}, {emulate::Distribution::unit}, 1};
}

}  // namespace attest::faults

int main(int count, char** arguments) {
  bool only_checks = false, is_quick = false, prints_runs = false;
  attest::Index seeds = 2;
  std::string path;
  for (int n = 1; n < count; ++n) {
    const std::string argument = arguments[n];
    if (argument == "--check") {
      only_checks = true;
    } else if (argument == "--quick") {
      is_quick = true;
    } else if (argument == "--runs") {
      prints_runs = true;
    } else if (argument == "--seeds" && n + 1 < count) {
      seeds = std::atol(arguments[++n]);
    } else if (path.empty() && argument.substr(0, 2) != "--") {
      path = argument;
    } else {
      std::cerr << "usage: attest_power [--check | --seeds N] [--runs] PATH\n       attest_power [--quick | "
                   "--seeds N] [--runs]\n";
      return 2;
    }
  }
  if (path.empty()) return attest::faults::print(is_quick, prints_runs, seeds);
  return attest::faults::run(path, only_checks, prints_runs, seeds);
}
