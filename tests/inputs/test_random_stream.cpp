// The generator of inputs: published bits, a quantile that is one, numbers in any order.
#include <cmath>
#include <vector>

#include "tests/catch.hpp"
#include "verify/inputs/random_stream.hpp"

using namespace attest;

TEST_CASE("Philox4x32-10 gives the known answers of its authors") {
  // Random123, tests/kat_vectors: zeros, ones, digits of pi.
  CHECK(philox({0, 0, 0, 0}, {0, 0}) == PhiloxCounter{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(philox({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}) ==
        PhiloxCounter{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(philox({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) ==
        PhiloxCounter{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("the normal quantile inverts the distribution function") {
  const double density_at_0 = 0.3989422804014327;
  std::vector<std::uint32_t> words = {0, 1, 2, 3, 0x13333332, 0x13333333, 0x7FFFFFFF, 0x80000000};
  for (std::uint32_t n = 0; n < 4000; ++n) words.push_back(n * 536871);
  double worst = 0;
  for (const std::uint32_t w : words) {
    const double x = normal_quantile(w), probability = (w + 0.5) * 0x1p-32;
    CHECK(normal_quantile(~w) == -x);
    // One step of Newton's method from x is the error of x, in as many digits as erfc gives: some 1e-15.
    const double step =
        (0.5 * std::erfc(-x / std::sqrt(2.0)) - probability) / (density_at_0 * std::exp(-x * x / 2));
    worst = std::max(worst, std::abs(step) / std::max(std::abs(x), 1.0));
  }
  CHECK(worst < 4e-15);
  CHECK(std::abs(normal_quantile(0)) < 6.34);
}

TEST_CASE("the normal quantile has the bits that it had") {
  // Also the nearest doubles to Python's statistics.NormalDist().inv_cdf((w + 0.5) / 2**32), within 2 ulp.
  CHECK(normal_quantile(0) == -6.3379577545537877);
  CHECK(normal_quantile(12345) == -4.5354227620904286);
  CHECK(normal_quantile(322122547) == -1.4395314704450153);
  CHECK(normal_quantile(2000000000) == -0.086180949004489679);
}

TEST_CASE("numbers of a stream can be had one by one and in runs") {
  const RandomStream stream(7, "q");
  std::vector<double> all(64), run(23);
  stream.normals(0, all);
  for (const Index first : {0, 1, 2, 3, 17, 41}) {
    stream.normals(first, run);
    for (Index n = 0; n < 23; ++n) {
      CHECK(run[n] == all[first + n]);
      CHECK(stream.normal(first + n) == all[first + n]);
    }
  }
  stream.uniforms(5, run);
  for (Index n = 0; n < 23; ++n) CHECK(run[n] == stream.uniform(5 + n));
  CHECK(stream.word(Index{1} << 40) == stream.word(Index{1} << 40));
}

TEST_CASE("streams of other names and seeds are others") {
  CHECK(RandomStream(1, "q").word(0) != RandomStream(1, "k").word(0));
  CHECK(RandomStream(1, "q").word(0) != RandomStream(2, "q").word(0));
  CHECK(RandomStream(1, "q").word(0) != RandomStream(std::uint64_t{1} << 32 | 1, "q").word(0));
}

TEST_CASE("a stream has the moments of its distribution and no correlation with its neighbours") {
  const Index n = 1 << 18;
  std::vector<double> x(n);
  RandomStream(3, "moments").normals(0, x);
  double mean = 0, square = 0, fourth = 0, lag = 0;
  for (Index i = 0; i < n; ++i) {
    mean += x[i] / n;
    square += x[i] * x[i] / n;
    fourth += x[i] * x[i] * x[i] * x[i] / n;
    lag += i > 0 ? x[i] * x[i - 1] / n : 0;
  }
  // Six standard deviations of each: 1, sqrt 2, sqrt 96 and 1 over sqrt n.
  const double root = std::sqrt(static_cast<double>(n));
  CHECK(std::abs(mean) < 6 / root);
  CHECK(std::abs(square - 1) < 6 * std::sqrt(2.0) / root);
  CHECK(std::abs(fourth - 3) < 6 * std::sqrt(96.0) / root);
  CHECK(std::abs(lag) < 6 / root);
  for (const Index count : {1, 2, 3, 1000}) {
    for (Index i = 0; i < 1000; ++i) {
      const Index choice = RandomStream(3, "choice").below(i, count);
      CHECK((0 <= choice && choice < count));
    }
  }
}
