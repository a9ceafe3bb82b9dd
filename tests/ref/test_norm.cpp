// ref's norms against the oracle, central differences and identities.
//
// u = 2^-53. Sums of n terms are off by n u sum|terms|, so that the mean is off by E = (n + 1) u mean|x|, the
// mean square about it by (n + 6) u v + 2 sqrt(2v) E + E^2, rstd relatively by rho = half of that over v +
// eps plus 4u, and xhat by rstd (E + 2u |x - mean|) + rho |xhat|. The same sums as in docs/bounds_norm.md,
// with room for terms of second order.
#include <cmath>
#include <string>
#include <vector>

#include "core/array.hpp"
#include "ref/norm.hpp"
#include "tests/catch.hpp"
#include "tests/oracle/norm.hpp"
#include "tests/support/random.hpp"

namespace {

using namespace attest;
using test::Random;

constexpr double u = 0x1p-53;

struct Problem {
  NormSpec spec;
  Array<double, 2> x, dy;
  Array<double, 1> weight, bias;
  bool has_weight = true, has_bias = true;

  NormInputs inputs() const {
    NormInputs in{x.view(), {}, {}};
    if (has_weight) in.weight = weight.view();
    if (has_bias) in.bias = bias.view();
    return in;
  }
};

Problem problem_of(bool is_centred, Index rows, Index width, double mean, std::uint64_t seed) {
  Random random(seed);
  Problem p{{is_centred, 1e-3, 0, {}},
            Array<double, 2>({rows, width}),
            Array<double, 2>({rows, width}),
            Array<double, 1>({width}),
            Array<double, 1>({width})};
  for (Index n = 0; n < p.x.size(); ++n) {
    p.x.data()[n] = mean + 2 * random.symmetric();
    p.dy.data()[n] = random.symmetric();
  }
  for (Index j = 0; j < width; ++j) {
    p.weight(j) = 1 + 0.5 * random.symmetric();
    p.bias(j) = random.symmetric();
  }
  return p;
}

struct Results {
  Array<double, 2> y, dx;
  Array<double, 1> mean, rstd, dweight, dbias;
};

Results run(const Problem& p) {
  const Index rows = p.x.extent(0), n = p.x.extent(1);
  Results r{Array<double, 2>({rows, n}), Array<double, 2>({rows, n}), Array<double, 1>({rows}),
            Array<double, 1>({rows}),    Array<double, 1>({n}),       Array<double, 1>({n})};
  ref::norm(p.spec, p.inputs(), p.dy.view(),
            {r.y.view(), r.mean.view(), r.rstd.view(), r.dx.view(), r.dweight.view(), r.dbias.view()});
  return r;
}

/// Bounds of one row's statistics, from the oracle's exact ones.
struct RowErrors {
  double mean, rho, rstd;
};

RowErrors row_errors(const Problem& p, const oracle::Norm& exact, Index i) {
  const double n = static_cast<double>(p.x.extent(1));
  double magnitude = 0;
  for (Index j = 0; j < p.x.extent(1); ++j) magnitude += std::abs(p.x(i, j)) / n;
  const double rstd = static_cast<double>(exact.rstd(i)), a = 1 / (rstd * rstd),
               v = std::max(0.0, a - p.spec.eps);
  const double mean = p.spec.is_centred ? (n + 1) * u * magnitude : 0;
  const double square = (n + 6) * u * v + 2 * std::sqrt(2 * v) * mean + mean * mean;
  return {mean, (0.5 * (square + 8 * u * a) / a + 4 * u) * 1.01, rstd};
}

double xhat_error(const RowErrors& e, double xhat) {
  return (e.rstd * e.mean + (2 * u + e.rho) * std::abs(xhat)) * 1.01;
}

void check(const std::string& what, double got, long double want, double bound) {
  INFO(what << " is " << got << ", the oracle says " << static_cast<double>(want) << " within " << bound);
  CHECK(std::abs(got - want) <= bound);
}

}  // namespace

TEST_CASE("the norms of ref are those of the oracle") {
  std::uint64_t seed = 0;
  for (const bool is_centred : {false, true}) {
    for (const Index width : {1, 2, 3, 16, 33}) {
      for (const Index rows : {1, 5}) {
        for (const double mean : {0.0, 1000.0}) {
          Problem p = problem_of(is_centred, rows, width, mean, ++seed);
          p.has_weight = seed % 3 != 0;
          p.has_bias = seed % 2 != 0;
          p.spec.weight_offset = seed % 3 == 1 ? 1 : 0;
          const Results got = run(p);
          const oracle::Norm exact = oracle::norm(p.spec, p.inputs());
          const oracle::NormGradients gradients = oracle::norm_gradients(p.spec, p.inputs(), p.dy.view());
          const double n = static_cast<double>(width);
          std::vector<double> dweight_error(width), dbias_error(width);
          for (Index i = 0; i < rows; ++i) {
            const RowErrors e = row_errors(p, exact, i);
            check("mean", got.mean(i), exact.mean(i), e.mean);
            check("rstd", got.rstd(i), exact.rstd(i), e.rho * e.rstd);
            // dx: every use of xhat and of rstd, and sums of n + 6 roundings.
            double c = 0, c_error = 0, g_magnitude = 0;
            for (Index j = 0; j < width; ++j) {
              const double w = p.has_weight ? p.weight(j) + p.spec.weight_offset : 1;
              const double g = std::abs(w * p.dy(i, j)),
                           xhat = std::abs(static_cast<double>(exact.xhat(i, j)));
              g_magnitude += g / n;
              c += g * xhat / n;
              c_error += g * (xhat_error(e, xhat) + (n + 6) * u * xhat) / n;
            }
            for (Index j = 0; j < width; ++j) {
              const double w = std::abs(p.has_weight ? p.weight(j) + p.spec.weight_offset : 1);
              const double xhat = std::abs(static_cast<double>(exact.xhat(i, j)));
              const double y = std::abs(static_cast<double>(exact.y(i, j))), error = xhat_error(e, xhat);
              check("y", got.y(i, j), exact.y(i, j), w * (error + 3 * u * xhat) + 2 * u * (y + w * xhat));
              const double g = w * std::abs(p.dy(i, j));
              const double terms = g + g_magnitude + xhat * c;
              check("dx", got.dx(i, j), gradients.dx(i, j),
                    1.01 * e.rstd * ((n + 10) * u * terms + xhat * c_error + error * c + e.rho * terms));
              dweight_error[j] += std::abs(p.dy(i, j)) * (error + (static_cast<double>(rows) + 3) * u * xhat);
              dbias_error[j] += std::abs(p.dy(i, j)) * static_cast<double>(rows) * u;
            }
          }
          for (Index j = 0; j < width; ++j) {
            check("dweight", got.dweight(j), gradients.dweight(j), dweight_error[j]);
            check("dbias", got.dbias(j), gradients.dbias(j), dbias_error[j]);
          }
        }
      }
    }
  }
}

TEST_CASE("the gradients of a norm are the slopes of the loss") {
  for (const bool is_centred : {false, true}) {
    Problem p = problem_of(is_centred, 3, 5, 0.5, 77);
    p.spec.weight_offset = 0.25;
    const Results got = run(p);
    const auto loss = [&] {
      const oracle::Norm exact = oracle::norm(p.spec, p.inputs());
      long double sum = 0;
      for (Index n = 0; n < exact.y.size(); ++n) sum += exact.y.data()[n] * p.dy.data()[n];
      return sum;
    };
    // Central differences at h and 2h: their distance bounds the error of the first; rounding adds 2^-58 / h.
    const auto check_slope = [&](const char* what, double& x, double slope) {
      const double at = x;
      long double difference[2];
      for (const int k : {1, 2}) {
        const double h = k * 0x1p-16;
        x = at + h;
        const long double above = loss();
        x = at - h;
        difference[k - 1] = (above - loss()) / (2 * static_cast<long double>(h));
        x = at;
      }
      check(
          what, slope, difference[0],
          static_cast<double>(std::abs(difference[1] - difference[0])) + 0x1p-40 + 0x1p-46 * std::abs(slope));
    };
    for (Index n = 0; n < p.x.size(); ++n) check_slope("dx", p.x.data()[n], got.dx.data()[n]);
    for (Index j = 0; j < 5; ++j) {
      check_slope("dweight", p.weight(j), got.dweight(j));
      check_slope("dbias", p.bias(j), got.dbias(j));
    }
  }
}

TEST_CASE("what a norm leaves unchanged") {
  Problem p = problem_of(true, 4, 24, 0.25, 5);
  p.has_weight = p.has_bias = false;
  p.spec.eps = 0;
  const Results base = run(p);
  SECTION("LayerNorm without weight has mean 0 and mean square 1") {
    for (Index i = 0; i < 4; ++i) {
      double sum = 0, squares = 0;
      for (Index j = 0; j < 24; ++j) {
        sum += base.y(i, j);
        squares += base.y(i, j) * base.y(i, j);
      }
      CHECK(std::abs(sum) <= 200 * u);
      CHECK(std::abs(squares / 24 - 1) <= 200 * u);
    }
  }
  SECTION("a factor of 2 and, for LayerNorm, a shift by 1 of x do not change y") {
    for (Index n = 0; n < p.x.size(); ++n)
      p.x.data()[n] = 2 * p.x.data()[n] + 1;  // exact: multiples of 2^-20
    const Results other = run(p);
    for (Index n = 0; n < p.x.size(); ++n) CHECK(std::abs(other.y.data()[n] - base.y.data()[n]) <= 400 * u);
  }
  SECTION("dx is orthogonal to y and, for LayerNorm, to 1") {
    for (Index i = 0; i < 4; ++i) {
      double along_y = 0, along_1 = 0;
      for (Index j = 0; j < 24; ++j) {
        along_y += base.dx(i, j) * base.y(i, j);
        along_1 += base.dx(i, j);
      }
      CHECK(std::abs(along_y) <= 2000 * u);
      CHECK(std::abs(along_1) <= 2000 * u);
    }
  }
  SECTION("RMSNorm is LayerNorm of values and their negatives") {
    Problem mirrored = problem_of(false, 1, 24, 0, 6);
    mirrored.has_weight = mirrored.has_bias = false;
    for (Index j = 0; j < 12; ++j) mirrored.x(0, 12 + j) = -mirrored.x(0, j);
    Problem centred = mirrored;
    centred.spec.is_centred = true;
    const Results a = run(mirrored), b = run(centred);
    for (Index j = 0; j < 24; ++j) CHECK(std::abs(a.y(0, j) - b.y(0, j)) <= 100 * u);
  }
}

TEST_CASE("a cast before the weight rounds xhat once") {
  Problem p = problem_of(false, 3, 17, 0, 9);
  p.spec.xhat_dtype = DType::bfloat16;
  const Results got = run(p);
  const oracle::Norm exact = oracle::norm(p.spec, p.inputs());
  for (Index i = 0; i < 3; ++i) {
    for (Index j = 0; j < 17; ++j) {
      const double xhat = round_to(static_cast<double>(exact.xhat(i, j)), DType::bfloat16);
      CHECK(std::abs(got.y(i, j) - (p.weight(j) * xhat + p.bias(j))) <= 4 * u * (std::abs(xhat) * 1.5 + 1));
    }
  }
}

TEST_CASE("a zero row gives the bias") {
  for (const bool is_centred : {false, true}) {
    Problem p = problem_of(is_centred, 2, 6, 0, 3);
    for (Index j = 0; j < 6; ++j) p.x(1, j) = is_centred ? 7 : 0;
    const Results got = run(p);
    CHECK(got.rstd(1) == 1 / std::sqrt(1e-3));
    for (Index j = 0; j < 6; ++j) CHECK(got.y(1, j) == p.bias(j));
  }
}
