// The elementary functions of tiled against the C library in a wider type.
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "tests/catch.hpp"
#include "tests/support/random.hpp"
#include "tiled/dispatch.hpp"

namespace {

using namespace attest;

constexpr Index count = 64 * 4096;

template <class Real>
struct Functions {
  using Function = void (*)(const Real*, Real*, Index);
  static constexpr Real u = std::numeric_limits<Real>::epsilon() / 2;

  /// The largest |got - want| / (u * unit(want)) over arguments that `argument` draws.
  template <class Argument, class Exact, class Unit>
  static long double worst(Function function, const Argument& argument, const Exact& exact,
                           const Unit& unit) {
    test::Random random(1);
    std::vector<Real> x(count), y(count);
    for (Real& value : x) value = argument(random);
    function(x.data(), y.data(), count);
    long double result = 0;
    for (Index n = 0; n < count; ++n) {
      const long double want = exact(static_cast<long double>(x[n]));
      const long double error = std::abs(static_cast<long double>(y[n]) - want) / (u * unit(want));
      result = std::isnan(error) ? std::numeric_limits<long double>::infinity() : std::max(result, error);
    }
    return result;
  }
};

/// A number whose binade is drawn first, so that small ones get their share.
template <class Real>
Real of_any_size(test::Random& random, int smallest, int largest) {
  return std::ldexp(static_cast<Real>(1.5 + 0.5 * random.symmetric()),
                    smallest + static_cast<int>(random.below(largest - smallest + 1)));
}

template <class Real>
void check_functions() {
  using F = Functions<Real>;
  constexpr int emin = std::numeric_limits<Real>::min_exponent - 1;
  const auto relative = [](long double want) { return std::abs(want); };
  for (const tiled::Level level : tiled::available_levels()) {
    INFO(tiled::name_of(level));
    const tiled::Kernels<Real>& kernels = tiled::kernels_for<Real>(level);
    const auto exact_exp2 = [](long double x) { return std::exp2(x); };
    CHECK(F::worst(
              kernels.exp2,
              [](test::Random& r) { return static_cast<Real>(emin * (0.5 + 0.5 * r.symmetric())); },
              exact_exp2, relative) <= 4);
    CHECK(F::worst(
              kernels.exp2, [](test::Random& r) { return -of_any_size<Real>(r, -30, 2); }, exact_exp2,
              relative) <= 4);
    CHECK(F::worst(
              kernels.log2, [](test::Random& r) { return of_any_size<Real>(r, -20, 20); },
              [](long double x) { return std::log2(x); },
              [](long double want) { return 1 + std::abs(want); }) <= 4);
    CHECK(
        F::worst(
            kernels.tanh,
            [](test::Random& r) { return of_any_size<Real>(r, -40, 3) * (r.one_in(2) ? Real{1} : Real{-1}); },
            [](long double x) { return std::tanh(x); }, relative) <= 12);

    const Real special[] = {0, 1, -1, -std::numeric_limits<Real>::infinity(),
                            std::numeric_limits<Real>::quiet_NaN()};
    std::vector<Real> x(64), y(64);
    for (Index n = 0; n < 64; ++n) x[n] = special[n % 5];
    kernels.exp2(x.data(), y.data(), 64);
    CHECK((y[0] == 1 && y[1] == 2 && y[2] == Real(0.5) && y[3] == std::numeric_limits<Real>::min()));
    CHECK(std::isnan(y[4]));
    kernels.tanh(x.data(), y.data(), 64);
    CHECK((y[0] == 0 && y[3] == -1));
    CHECK(std::isnan(y[4]));
    kernels.log2(x.data(), y.data(), 64);
    CHECK(y[1] == 0);
  }
}

}  // namespace

TEST_CASE("exp2 is within 4 unit roundoffs, tanh within 12, log2 within 4 of 1 + its size, at every level") {
  check_functions<float>();
  check_functions<double>();
}
