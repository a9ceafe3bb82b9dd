// What is said of sums of P.V, and of outputs that no sum explains.
#include <cmath>
#include <string>

#include "tests/catch.hpp"
#include "tests/emulate/honest_attention.hpp"
#include "tests/emulate/judged.hpp"
#include "tests/support/random.hpp"

namespace {

using namespace attest;
using namespace attest::emulate;
using Catch::Matchers::StartsWith;

constexpr Index rows = 5, keys = 140, heads = 4, width = 64;

Case honest(DType element) {
  Kernel kernel;
  kernel.p_dtype = element;
  Case c = dump_of(plain_setup(element, rows, keys, heads, 2), kernel, false, {"o", "lse"});
  c.in.erase("do");
  return c;
}

/// o added up key by key in a narrow format, of weights relative to the largest score or to the row sum.
Case summed(DType element, DType sum_type, bool is_normalised) {
  Case c = honest(element);
  const AttentionInputs in = views_of(c);
  const double scale = std::get<double>(c.spec.at("scale"));
  std::vector<double>& o = c.out.at("o").values;
  for (Index h = 0; h < heads; ++h) {
    for (Index i = 0; i < rows; ++i) {
      std::vector<double> p(keys);
      double top = -INFINITY, l = 0;
      for (Index j = 0; j < keys; ++j) {
        for (Index d = 0; d < width; ++d) p[j] += scale * in.q(h, i, d) * in.k(in.kv_head(h), j, d);
        top = std::max(top, p[j]);
      }
      for (double& x : p) l += x = std::exp(x - top);
      for (Index e = 0; e < width; ++e) {
        double sum = 0;
        for (Index j = 0; j < keys; ++j) {
          const double weight = round_to(is_normalised ? p[j] / l : p[j], element);
          sum = round_to(sum + weight * in.v(in.kv_head(h), j, e), sum_type);
        }
        o[(h * rows + i) * width + e] = round_to(is_normalised ? sum : sum / l, element);
      }
    }
  }
  return c;
}

}  // namespace

TEST_CASE("sums of P.V key by key in 16 bits have their name") {
  for (const DType element : {DType::float16, DType::float32}) {
    for (const DType sum_type : {DType::float16, DType::bfloat16}) {
      for (const bool is_normalised : {false, true}) {
        INFO(format_of(element).name << ", " << format_of(sum_type).name << ", " << is_normalised);
        CHECK(first_cause(summed(element, sum_type, is_normalised)) ==
              "P.V accumulated in " + std::string(format_of(sum_type).name));
      }
    }
  }
}

TEST_CASE("a number that memory was filled with is named, whatever it is") {
  for (const DType element : {DType::float16, DType::bfloat16, DType::float32}) {
    Case c = honest(element);
    std::vector<double>& o = c.out.at("o").values;
    for (Index n = 0; n < heads * rows; ++n)
      for (Index e = 48; e < width; ++e) o[n * width + e] = 0.375;
    CHECK(first_cause(c) == "the number 0.375, or nothing written");
  }
}

TEST_CASE("one number that all keys have in V is no memory that was not written") {
  Case c = honest(DType::float16);
  for (double& v : c.in.at("v").values) v = 1;
  for (double& o : c.out.at("o").values) o = 0.5;
  CHECK_THAT(first_cause(c), !StartsWith("the number"));
}

TEST_CASE("rows of one factor each do not read a stale row of V") {
  Case c = honest(DType::float16);
  std::vector<double>& o = c.out.at("o").values;
  test::Random random(3);
  for (Index row = 0; row < heads * rows; ++row) {
    const double factor = 1 + 0.5 * random.symmetric();
    for (Index e = 0; e < width; ++e)
      o[row * width + e] = round_to(factor * o[row * width + e], DType::float16);
  }
  for (const DiagnosisEntry& entry : judged(c).diagnosis)
    CHECK_THAT(entry.cause, !StartsWith("the row of V"));
}

TEST_CASE("a row sum is named only if it explains the errors of o") {
  Case c = honest(DType::float32);
  std::vector<double>&o = c.out.at("o").values, &lse = c.out.at("lse").values;
  for (Index row = 0; row < heads * rows; ++row) {
    const double delta = 1e-5 * (row % 2 == 0 ? 1 : -1);
    lse[row] += delta;
    for (Index e = 0; e < width; e += 2) {  // the factor, and what is at a right angle to it
      double &x = o[row * width + e], &y = o[row * width + e + 1];
      const double a = x * (1 - delta), b = y * (1 - delta);
      x = round_to(a - 3e-5 * b, DType::float32), y = round_to(b + 3e-5 * a, DType::float32);
    }
  }
  CHECK(judged(c).verdict == Verdict::fail);
  CHECK(first_cause(c) != "the row sum");
}
