// Comparison of dumped and expected elements: special values, overflow, exactness, and what is reported.
#include "verify/compare.hpp"

#include <cmath>
#include <limits>
#include <vector>

#include "tests/catch.hpp"

namespace {

using namespace attest;

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

/// A tensor and what was expected of it, with one bound for all elements.
struct Comparison {
  Tensor tensor;
  Expected expected;

  Comparison(std::vector<double> got, const std::vector<double>& want, double bound,
             DType dtype = DType::float16, std::vector<Index> shape = {})
      : tensor{std::string(format_of(dtype).name), dtype,
               shape.empty() ? std::vector<Index>{static_cast<Index>(got.size())} : std::move(shape),
               std::move(got)},
        expected("o", tensor) {
    expected.value = want;
    expected.probable.assign(want.size(), bound);
    expected.rigorous.assign(want.size(), 2 * bound);
    expected.sigma.assign(want.size(), bound / 4);
  }

  OutputFindings findings() const { return compare(expected); }
};

bool passes(double got, double want, double bound, DType dtype = DType::float16) {
  const Comparison c({got}, {want}, bound, dtype);
  const OutputFindings found = c.findings();
  CHECK(within_bound(c.expected, 0, got) == (found.verdict == Verdict::pass));
  CHECK(found.beyond == (found.verdict == Verdict::pass ? 0 : 1));
  CHECK((found.worst_ratio <= 1) == (found.verdict == Verdict::pass));
  return found.verdict == Verdict::pass;
}

}  // namespace

TEST_CASE("NaN passes where NaN is expected and nowhere else") {
  CHECK_FALSE(passes(not_a_number, 1, 0.5));
  CHECK_FALSE(passes(not_a_number, 0, infinity));
  CHECK_FALSE(passes(not_a_number, infinity, 0.5));
  CHECK_FALSE(passes(1, not_a_number, 0.5));
  CHECK_FALSE(passes(infinity, not_a_number, 0.5));
  CHECK(passes(not_a_number, not_a_number, 0));
}

TEST_CASE("an infinity equals itself and nothing else") {
  CHECK(passes(-infinity, -infinity, 0));
  CHECK(passes(infinity, infinity, 0));
  CHECK_FALSE(passes(infinity, -infinity, 0));
  CHECK_FALSE(passes(-infinity, infinity, 1e300));
  CHECK_FALSE(passes(-infinity, 0, 1));
  CHECK_FALSE(passes(0, -infinity, 1));
  CHECK_FALSE(passes(infinity, 65504, 0));
}

TEST_CASE("a bound of zero needs equality") {
  CHECK(passes(0, 0, 0));
  CHECK(passes(-0.0, 0.0, 0));
  CHECK(passes(1.5, 1.5, 0));
  CHECK_FALSE(passes(0x1p-24, 0, 0));
  CHECK_FALSE(passes(1.5 + 0x1p-10, 1.5, 0));
}

TEST_CASE("an error equal to the bound passes, the next larger one fails") {
  CHECK(passes(1.25, 1, 0.25));
  CHECK(passes(0.75, 1, 0.25));
  CHECK_FALSE(passes(1.25, 1, std::nextafter(0.25, 0)));
  CHECK_FALSE(passes(0.75, 1, std::nextafter(0.25, 0)));
}

TEST_CASE("overflow passes only where the bound reaches beyond the largest value") {
  CHECK(passes(infinity, 65500, 100));
  CHECK(passes(65504, 66000, 1));  // saturated
  CHECK(passes(-infinity, -65500, 100));
  CHECK_FALSE(passes(-infinity, 65500, 100));
  CHECK_FALSE(passes(-65504, 66000, 1));
  CHECK_FALSE(passes(infinity, 65000, 100));
  CHECK_FALSE(passes(not_a_number, 65500, 100));
  CHECK_FALSE(passes(1000, 66000, 1));
  CHECK_FALSE(passes(infinity, 65500, 100, DType::float32));
}

TEST_CASE("a format without infinities overflows to NaN") {
  CHECK(passes(not_a_number, 447, 17, DType::float8_e4m3fn));
  CHECK(passes(448, 470, 1, DType::float8_e4m3fn));
  CHECK_FALSE(passes(not_a_number, 447, 16, DType::float8_e4m3fn));  // 463 rounds to 448
  CHECK_FALSE(passes(not_a_number, 400, 10, DType::float8_e4m3fn));
  CHECK(passes(infinity, 57343, 4097, DType::float8_e5m2));
  CHECK_FALSE(passes(not_a_number, 57343, 4097, DType::float8_e5m2));
}

TEST_CASE("the worst element is named by its place in the dumped tensor") {
  std::vector<double> got(24, 1.0);
  got[7] = 1.5;    // ratio 2
  got[18] = 0.25;  // ratio 3
  const Comparison c(got, std::vector<double>(24, 1.0), 0.25, DType::float16, {2, 3, 4});
  const OutputFindings found = c.findings();
  CHECK(found.verdict == Verdict::fail);
  CHECK(found.name == "o");
  CHECK(found.type_name == "float16");
  CHECK(found.shape == std::vector<Index>{2, 3, 4});
  CHECK(found.at == std::vector<Index>{1, 1, 2});
  CHECK(found.elements == 24);
  CHECK(found.beyond == 2);
  CHECK(found.beyond_rigorous == 1);  // twice the bound is not beyond it
  CHECK(found.got == 0.25);
  CHECK(found.want == 1);
  CHECK(found.bound == 0.25);
  CHECK(found.error == 0.75);
  CHECK(found.worst_ratio == 3);
  CHECK(found.worst_rigorous_ratio == 1.5);
}

TEST_CASE("a wrong special value is the worst element, however small the others' bounds are") {
  const Comparison c({1.4, not_a_number, 1}, {1, 1, 1}, 1e-4);
  const OutputFindings found = c.findings();
  CHECK(found.worst_ratio == infinity);
  CHECK(found.at == std::vector<Index>{1});
  CHECK(std::isnan(found.got));
  CHECK(found.beyond == 2);
  CHECK(found.beyond_rigorous == 2);
}

TEST_CASE("the certified error of the expected value widens the bound") {
  Comparison c({1.375}, {1}, 0.25);
  CHECK(c.findings().verdict == Verdict::fail);
  c.expected.value_error[0] = 0.125;
  CHECK(c.findings().verdict == Verdict::pass);
  CHECK(c.findings().bound == 0.375);
}

TEST_CASE("rms_ratio is the root mean square of error over sigma where there is a sigma") {
  Comparison c({1.25, 1.75, 5, infinity}, {1, 1, 1, infinity}, 1);
  c.expected.sigma = {0.25, 0.25, 0, 0};
  CHECK(c.findings().rms_ratio == std::sqrt((1.0 + 9.0) / 2));
  c.expected.sigma = {0, 0, 0, 0};
  CHECK(c.findings().rms_ratio == 0);
}

TEST_CASE("an output without elements passes") {
  const Comparison c({}, {}, 0, DType::float16, {2, 0, 4});
  const OutputFindings found = c.findings();
  CHECK(found.verdict == Verdict::pass);
  CHECK(found.elements == 0);
  CHECK(found.worst_ratio == 0);
}
