// What attest_bench says.
#include "bench/report.hpp"

#include <cctype>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>

namespace attest::bench {
namespace {

std::string processor() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (line.rfind("model name", 0) == 0) return line.substr(line.find(':') + 2);
  }
  return "unknown processor";
}

const char* compiler() {
#ifdef __clang__
  return "clang " __clang_version__;
#else
  return "gcc " __VERSION__;
#endif
}

}  // namespace

void print_table(const Cases& x) {
  std::printf("%-4s %-8s %-5s %2s  %-30s %6s %7s %6s\n", "type", "pass", "by", "th", "shape", "share ", "G/s",
              "quiet");
  bool has_mark = false;
  for (const Case& row : x.cases) {
    const Shares shares = shares_of(row);
    const bool is_marked = shares.quiet_samples == 0;
    has_mark = has_mark || is_marked;
    const std::string samples =
        std::to_string(shares.quiet_samples) + '/' + std::to_string(row.samples.size());
    std::printf("%-4s %-8s %-5s %2d  %-30s %5.3f%c %7.1f %6s\n", row.type.c_str(), row.what.c_str(),
                row.by.c_str(), row.threads, row.shape.c_str(), shares.median(), is_marked ? '*' : ' ',
                fastest(row) * 1e-9, samples.c_str());
  }
  std::printf(
      "share: median of the samples that nobody disturbed; G/s: the fastest sample.\n"
      "Attention: of the multiply-add peak of as many threads, Gflop/s.\n"
      "RMSNorm, RoPE: of a copy of 64 MiB past the caches, GB/s read and written.\n");
  if (has_mark) std::printf("*: every sample was disturbed; the median of all, of the fastest probe.\n");
  for (const std::string& note : x.notes) std::printf("%s\n", note.c_str());
}

std::string json_of(const Cases& x, int rounds) {
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const Case& row : x.cases) {
    const Shares shares = shares_of(row);
    rows.push_back({{"type", row.type},
                    {"what", row.what},
                    {"by", row.by},
                    {"threads", row.threads},
                    {"shape", row.shape},
                    {"share", shares.median()},
                    {"per_second", fastest(row)},
                    {"probe_per_second", row.probe->fastest},
                    {"unit", row.probe->unit},
                    {"quiet_samples", shares.quiet_samples},
                    {"samples", row.samples.size()}});
  }
  const nlohmann::ordered_json all = {
      {"processor", processor()}, {"compiler", compiler()}, {"rounds", rounds}, {"rows", rows}};
  return all.dump(2) + '\n';
}

std::string machine_name() {
  std::string name;
  for (const char c : processor()) {
    if (std::isalnum(static_cast<unsigned char>(c))) {
      name += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    } else if (!name.empty() && name.back() != '_') {
      name += '_';
    }
  }
  while (name.ends_with('_')) name.pop_back();
  return name;
}

}  // namespace attest::bench
