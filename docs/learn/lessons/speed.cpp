// What limits speed: operations for each byte, and what is no multiply-add.
#include <cmath>

#include "docs/learn/lessons/lessons.hpp"

namespace attest::lessons {

void speed(Numbers& numbers) {
  constexpr double d = 64, n = 4096;
  std::string& text = numbers["speed.intensity"];
  print(text, "#  N = 4096, D = E = 64, float16: 4 N^2 D operations, forward\n");
  print(text, "#algorithm                   MiB   operations-a-byte\n");
  const auto line = [&](const char* what, double elements) {
    print(text, "%-24s %7.1f %19.0f\n", what, 2 * elements / 1048576, 4 * n * n * d / (2 * elements));
  };
  line("standard", 4 * n * n + 4 * n * d);
  for (const int rows : {64, 128, 256}) {
    const std::string what = "tiled_" + std::to_string(rows) + "_rows";
    line(what.c_str(), 2 * n * d + n / rows * 2 * n * d);
  }
  line("each_operand_once", 4 * n * d);

  std::string& other = numbers["speed.exercise_exponentials"];
  for (const int width : {32, 64, 128}) {
    print(other, "D = E = %3d: %3d multiply-adds an exponential; if it costs 10, %.0f %% more\n", width,
          2 * width, 1000.0 / (2 * width));
  }
  std::string& half = numbers["speed.exercise_causal"];
  for (const double length : {77.0, 577.0, 4096.0}) {
    const double tile = 96, tiles = std::ceil(length / tile);
    print(half, "N = %4g, %2g tiles a side: of the products %.3f needed, %.3f in whole tiles\n", length,
          tiles, (length + 1) / (2 * length), (tiles + 1) / (2 * tiles));
  }
}

}  // namespace attest::lessons
