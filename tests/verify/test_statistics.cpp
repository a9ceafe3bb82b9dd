// Statistics of a whole tensor: honest roundings stay below the limits, however alike they are; slight faults
// do not.
#include <algorithm>
#include <cmath>
#include <numbers>

#include "tests/catch.hpp"
#include "tests/support/random.hpp"
#include "verify/statistics/error_samples.hpp"
#include "verify/statistics/statistics.hpp"
#include "verify/statistics/student.hpp"

using namespace attest;
using test::Random;

namespace {

/// A tensor of values that are stored in float16 after noise of half the rounding's spread.
class Stored {
 public:
  Stored(Index rows, Index columns, double bound = 10)  // in spacings of the value
      : tensor_{"float16", DType::float16, {rows, columns}, {}}, bound_(bound) {
    tensor_.values.resize(rows * columns);
  }

  /// value(row, column, random), noise(row, column, random) in standard deviations, store(value).
  template <class Value, class Noise, class Store>
  std::vector<Statistic> judged(std::uint64_t seed, Value value, Noise noise, Store store) {
    Random random(seed);
    Expected expected("o", tensor_);
    const Index columns = tensor_.shape[1];
    for (Index at = 0; at < tensor_.size(); ++at) {
      const double v = value(at / columns, at % columns, random), spacing = ulp(std::abs(v), DType::float16);
      const double sigma = 0.5 * spacing / std::sqrt(12.0);
      const double bound = bound_ * spacing;
      expected.set(at, {v, 0, bound, bound, std::hypot(sigma, spacing / std::sqrt(12.0)), 0});
      tensor_.values[at] = store(v + sigma * noise(at / columns, at % columns, random));
    }
    return statistics(expected);
  }

 private:
  Tensor tensor_;
  double bound_;
};

double uniform_noise(Random& random) {
  return std::sqrt(3.0) * random.symmetric();
}
double normal_noise(Random& random) {
  double sum = 0;
  for (int n = 0; n < 12; ++n) sum += uniform_noise(random);
  return sum / std::sqrt(12.0);
}
double rounded(double x) {
  return round_to(x, DType::float16);
}
double truncated(double x) {
  const double nearest = round_to(x, DType::float16);
  return std::abs(nearest) > std::abs(x) ? nearest - std::copysign(ulp(x, DType::float16), x) : nearest;
}

bool exceeds(const std::vector<Statistic>& all, const std::string& name) {
  for (const Statistic& s : all) {
    if (s.name == name) return s.exceeds();
  }
  FAIL("there is no statistic " << name);
  return false;
}

const auto any_value = [](Index, Index, Random& r) { return r.symmetric() * 3; };
const auto any_noise = [](Index, Index, Random& r) { return uniform_noise(r); };

}  // namespace

TEST_CASE("Student's quantiles of 1 and 2 degrees of freedom are those of their closed forms") {
  for (const double p : {0.3, 0.05, 1e-3, 2e-8, 1e-11}) {
    CHECK(student_quantile(1, p) == Approx(1 / std::tan(std::numbers::pi * p / 2)).epsilon(1e-5));
    CHECK(student_quantile(2, p) == Approx((1 - p) * std::sqrt(2 / (p * (2 - p)))).epsilon(1e-5));
  }
  CHECK(student_quantile(1000, 0.05) == Approx(1.96234).epsilon(1e-5));  // tables
  CHECK(student_quantile(10, 0.01) == Approx(3.16927).epsilon(1e-5));
}

TEST_CASE("independent roundings stay below the limits of spread and gain") {
  Stored stored(40, 50);
  for (std::uint64_t seed = 0; seed < 300; ++seed) {
    for (const Statistic& s : stored.judged(seed, any_value, any_noise, rounded)) {
      INFO(s.name << " " << s.value << " of " << s.limit << ", seed " << seed);
      CHECK(!s.exceeds());
      CHECK(std::isfinite(s.limit));
    }
  }
}

TEST_CASE("roundings that a row, a column or equal values share stay below the limits") {
  Stored stored(40, 50);
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    std::vector<double> of_row(40), of_column(50);
    Random random(seed + 1000);
    for (double& x : of_row) x = uniform_noise(random);
    for (double& x : of_column) x = uniform_noise(random);
    const auto row_noise = [&](Index i, Index, Random&) { return of_row[i]; };
    const auto column_noise = [&](Index, Index j, Random&) { return of_column[j]; };
    const auto few_values = [](Index, Index, Random& r) { return 1 + std::round(4 * r.symmetric()) / 3; };
    const auto no_noise = [](Index, Index, Random&) { return 0.0; };
    for (const auto& all : {stored.judged(seed, any_value, row_noise, rounded),
                            stored.judged(seed, any_value, column_noise, rounded),
                            stored.judged(seed, few_values, no_noise, rounded)}) {
      for (const Statistic& s : all) {
        INFO(s.name << " " << s.value << " of " << s.limit << ", seed " << seed);
        CHECK(!s.exceeds());
      }
    }
  }
}

TEST_CASE("rows that repeat another tell nothing new") {
  // As heads or batch entries that are alike: every error of a row is the row's own, and comes 20 times.
  constexpr Index distinct = 12, copies = 20, columns = 50;
  const auto as_it_is = [](double x) { return x; };
  Stored once(distinct, columns), repeated(distinct * copies, columns);
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    Random random(seed + 1000);
    std::vector<double> of_row(distinct), value(distinct * columns);
    for (double& x : of_row) x = std::sqrt(5.0) * normal_noise(random);  // all that is predicted
    for (double& x : value) x = random.symmetric() * 3;
    const auto row_noise = [&](Index i, Index, Random&) { return of_row[i % distinct]; };
    const auto row_value = [&](Index i, Index j, Random&) { return value[i % distinct * columns + j]; };
    const auto expected = once.judged(seed, row_value, row_noise, as_it_is);
    const auto all = repeated.judged(seed, row_value, row_noise, as_it_is);
    REQUIRE(all.size() == expected.size());
    for (std::size_t n = 0; n < all.size(); ++n) {
      INFO(all[n].name << " " << all[n].value << " of " << all[n].limit << ", seed " << seed);
      CHECK(!all[n].exceeds());
      CHECK(all[n].limit == expected[n].limit);
    }
  }
}

TEST_CASE("a truncating store, a gain of 0.1 % and noise twice as large exceed a limit") {
  Stored stored(60, 60);
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    CHECK(exceeds(stored.judged(seed, any_value, any_noise, truncated), "gain"));
    CHECK(exceeds(stored.judged(seed, any_value, any_noise, truncated), "spread"));
    CHECK(exceeds(stored.judged(seed, any_value, any_noise, [](double x) { return rounded(1.001 * x); }),
                  "gain"));
    const auto louder = [](Index, Index, Random& r) { return 3 * uniform_noise(r); };
    CHECK(exceeds(stored.judged(seed, any_value, louder, rounded), "spread"));
  }
}

TEST_CASE("values that zeros could stand for have no gain") {
  for (const double bound : {10.0, 4096.0}) {  // a number of float16 is less than 2048 spacings from 0
    const std::vector<Statistic> all = Stored(64, 64, bound).judged(1, any_value, any_noise, rounded);
    const bool has_gain = std::ranges::any_of(all, [](const Statistic& s) { return s.name == "gain"; });
    CHECK(has_gain == (bound < 2048));
  }
}

TEST_CASE("too few independent parts tell nothing") {
  Stored one_row(1, 4000), few_rows(5, 500);
  for (Stored* stored : {&one_row, &few_rows}) {
    for (const Statistic& s : stored->judged(1, any_value, any_noise, truncated)) CHECK(!s.exceeds());
  }
}

TEST_CASE("rows that are looked at are of all heads, whatever the layout") {
  for (const Index rows : {16 * 1024, 16 * 1025, 16 * 3 * 5 * 7 * 11}) {  // 16 heads
    const Index step = row_step(rows * 64, rows, 1 << 16);
    std::vector<bool> met(16);
    for (Index row = 0; row < rows; row += step) met[row % 16] = true;
    CHECK(std::ranges::count(met, true) == 16);
    CHECK(rows * 64 / step < 2 << 16);
  }
}
