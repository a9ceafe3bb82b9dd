// attest_lessons: writes the numbers of docs/learn, or checks that they are what the code computes.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>

#include "docs/learn/lessons/lessons.hpp"

namespace {

using namespace attest::lessons;
namespace fs = std::filesystem;

std::string content(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::size_t longest_line(const std::string& text) {
  std::size_t longest = 0;
  for (std::size_t begin = 0, end; (end = text.find('\n', begin)) != text.npos; begin = end + 1) {
    longest = std::max(longest, end - begin);
  }
  return longest;
}

Numbers all_numbers() {
  Numbers numbers;
  for (const auto lesson :
       {standard_attention, safe_softmax, split_softmax, online_softmax, tiled_forward, causal_tiles,
        backward, split_keys, heads_and_windows, rope_and_rmsnorm, error_model, low_precision, speed}) {
    lesson(numbers);
  }
  return numbers;
}

}  // namespace

int main(int count, char** arguments) {
  const std::vector<std::string> rest(arguments + 1, arguments + count);
  const bool only_checks = rest.size() == 2 && rest[0] == "--check";
  if (!only_checks && (rest.size() != 1 || rest[0].starts_with("-"))) {
    std::cerr << "usage: attest_lessons [--check] FOLDER\n"
                 "Writes the numbers of docs/learn to FOLDER (docs/learn/numbers). --check writes nothing "
                 "and fails\n"
                 "if a file there is not what the code computes.\n";
    return 2;
  }
  const fs::path folder = rest.back();
  int status = 0;
  const Numbers numbers = all_numbers();
  for (const auto& [name, text] : numbers) {
    const fs::path path = folder / (name + ".txt");
    if (longest_line(text) > 80)
      std::cerr << path.string() << " has a line of more than 80 characters\n", status = 1;
    if (content(path) == text) continue;
    if (only_checks) {
      std::cerr << path.string() << " is out of date; it would be\n" << text;
      status = 1;
    } else if (!(std::ofstream(path, std::ios::binary) << text)) {
      std::cerr << path.string() << " cannot be written\n";
      status = 1;
    }
  }
  for (const fs::directory_entry& file : fs::directory_iterator(folder)) {
    if (numbers.contains(file.path().stem().string())) continue;
    std::cerr << file.path().string() << ": no lesson writes this file\n";
    status = 1;
  }
  return status;
}
