// Double-double exp, log and tanh against 113-bit arithmetic.
#include <cmath>
#include <limits>
#include <vector>

#include "tests/catch.hpp"
#include "tests/support/random.hpp"
#include "tests/tiled/quad_attention.hpp"
#include "tiled/precise_attention.hpp"

namespace {

using namespace attest;
using namespace attest::test;

constexpr double infinity = std::numeric_limits<double>::infinity();

}  // namespace

TEST_CASE(
    "double-double exp, log and tanh are within 2^-101 and 2^-105 |x|, 2^-99 and 2^-96 at every level") {
  constexpr Index count = 64 * 256;
  std::vector<double> x_hi(count), x_lo(count), y_hi(count), y_lo(count);
  for (const tiled::Level level : tiled::available_levels()) {
    INFO(tiled::name_of(level));
    const tiled::PreciseKernels& kernels = tiled::precise_kernels_for(level);
    const auto off = [&](auto function, auto exact, auto unit, auto argument) {
      Random random(3);
      for (Index n = 0; n < count; ++n) {
        x_hi[n] = argument(random);
        x_lo[n] = x_hi[n] * 0x1p-54 * random.symmetric();
      }
      function(x_hi.data(), x_lo.data(), y_hi.data(), y_lo.data(), count);
      double result = 0;
      for (Index n = 0; n < count; ++n) {
        const Quad want = exact(Quad(x_hi[n]) + x_lo[n]);
        const double share = static_cast<double>(absolute(Quad(y_hi[n]) + y_lo[n] - want) / unit(want));
        result = share <= result ? result : share;
      }
      return result;
    };
    const auto relative = [](Quad want) { return absolute(want); };
    const auto one_and_relative = [](Quad want) { return 1 + absolute(want); };
    const auto of_any_size = [](Random& r) {
      return std::ldexp(r.symmetric(), -static_cast<int>(r.below(40))) * 8;
    };
    const auto of_exp = [](Quad want) { return want * (1 + absolute(quad_log(want)) / 16); };
    CHECK(off(kernels.exp, quad_exp, of_exp, [](Random& r) { return 300 * r.symmetric() - 300; }) <=
          0x1p-101);
    CHECK(off(kernels.exp, quad_exp, of_exp, of_any_size) <= 0x1p-101);
    CHECK(off(kernels.tanh, quad_tanh, relative, of_any_size) <= 0x1p-96);
    CHECK(off(kernels.log, quad_log, one_and_relative, [](Random& r) {
            return std::ldexp(1.5 + r.symmetric() / 4, static_cast<int>(r.below(20)));
          }) <= 0x1p-99);
    const double special[] = {0, -infinity, std::nan(""), -701, 710};
    for (Index n = 0; n < 64; ++n) {
      x_hi[n] = special[n % 5];
      x_lo[n] = 0;
    }
    kernels.exp(x_hi.data(), x_lo.data(), y_hi.data(), y_lo.data(), 64);
    CHECK((y_hi[0] == 1 && y_hi[1] == 0 && std::isnan(y_hi[2]) && y_hi[3] == 0 && y_hi[4] == infinity));
    CHECK((y_lo[0] == 0 && y_lo[1] == 0 && y_lo[3] == 0));
  }
}
