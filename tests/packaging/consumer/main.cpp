// Rounds a number through attest.
#include <cstdio>

#include "core/dtype.hpp"

int main() {
  const double rounded = attest::round_to(0.1, attest::DType::float16);
  std::printf("0.1 is %.17g in float16\n", rounded);
  return rounded == 0x1.998p-4 ? 0 : 1;
}
