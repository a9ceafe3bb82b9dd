// attest_goldens: writes the files of data/golden.
#include <algorithm>
#include <chrono>
#include <filesystem>
#include <iostream>
#include <string>
#include <vector>

#include "data/golden/golden_file.hpp"

namespace {

constexpr const char* usage =
    "usage: attest_goldens list\n"
    "       attest_goldens write FOLDER [small | NAME...]\n"
    "list: name, seed, small or large, and what it is for, of each file\n"
    "write: all files, the small ones, or those named\n";

}  // namespace

int main(int argc, char** argv) {
  using attest::golden::GoldenFile;
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  const std::span<const GoldenFile> files = attest::golden::all_files();
  if (arguments == std::vector<std::string>{"list"}) {
    for (const GoldenFile& file : files) {
      std::cout << file.name << '\t' << file.seed << '\t' << (file.is_small ? "small" : "large") << '\t'
                << file.purpose << '\n';
    }
    return 0;
  }
  const auto is_known = [&](const std::string& name) {
    return name == "small" || std::ranges::count(files, name, &GoldenFile::name) == 1;
  };
  if (arguments.size() < 2 || arguments[0] != "write" ||
      !std::all_of(arguments.begin() + 2, arguments.end(), is_known)) {
    std::cerr << usage;
    return 2;
  }
  try {
    std::filesystem::create_directories(arguments[1]);
    for (const GoldenFile& file : files) {
      const auto named = [&](const std::string& name) {
        return std::find(arguments.begin() + 2, arguments.end(), name) != arguments.end();
      };
      if (arguments.size() > 2 && !named(file.name) && !(file.is_small && named("small"))) continue;
      const auto start = std::chrono::steady_clock::now();
      attest::golden::write_goldens(arguments[1] + "/" + file.name + ".h5", file);
      const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
      std::cerr << file.name << ": " << seconds.count() << " s\n";
    }
  } catch (const std::exception& error) {
    std::cerr << "attest_goldens: " << error.what() << '\n';
    return 1;
  }
  return 0;
}
