// attest_bench: how much of what the machine can do attest::tiled reaches, with other ways beside it.
#include <CLI/CLI.hpp>
#include <filesystem>
#include <fstream>
#include <iostream>

#include "bench/report.hpp"

int main(int argc, char** argv) {
  using namespace attest::bench;
  int rounds = 15;
  constexpr double seconds = 0.02;  // a sample at least: calls that follow calls, as kernels do
  std::vector<int> threads = {1, 2};
  std::string only;
  std::filesystem::path json;
  CLI::App app("How much of what the machine can do attest::tiled reaches");
  app.add_option("--rounds", rounds, "samples of each case")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--threads", threads, "numbers of threads")
      ->capture_default_str()
      ->check(CLI::PositiveNumber);
  app.add_option("--only", only, "cases whose name contains this text, as in \"fp32 forward v4, 1 thread\"");
  app.add_option("--json", json,
                 "write the results to this file, too, or to one named after the processor in this folder");
  CLI11_PARSE(app, argc, argv);

  Cases x = all_cases(threads, only);
  measure(x.cases, rounds, seconds);
  print_table(x);
  if (json.empty()) return 0;
  if (std::filesystem::is_directory(json)) json /= machine_name() + ".json";
  std::ofstream file(json);
  file << json_of(x, rounds) << std::flush;
  if (!file) {
    std::cerr << "cannot write " << json << '\n';
    return 2;
  }
}
