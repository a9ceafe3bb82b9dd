// ref::rope_* against the oracle, identities of rotations, and numbers that other software computed.
#include "ref/rope.hpp"

#include <array>
#include <cmath>
#include <utility>
#include <vector>

#include "core/array.hpp"
#include "core/dtype.hpp"
#include "tests/catch.hpp"
#include "tests/oracle/rope.hpp"
#include "tests/support/random.hpp"

namespace {

using namespace attest;
using oracle::Real;

constexpr double u = 0x1p-53;
constexpr RopeStyle both_styles[] = {RopeStyle::half, RopeStyle::interleaved};

template <int Rank>
Array<double, Rank> random_array(test::Random& random, typename Array<double, Rank>::Extents extents) {
  Array<double, Rank> array(extents);
  for (Index n = 0; n < array.size(); ++n) array.data()[n] = random.symmetric();
  return array;
}

std::vector<double> inverse_frequencies(const RopeFrequencies& f, Index rotary_dim,
                                        AngleRule rule = AngleRule::exact) {
  Array<long double, 1> all({rotary_dim / 2});
  ref::rope_inverse_frequencies(f, rotary_dim, rule, all.view());
  return {all.data(), all.data() + all.size()};
}

struct Table {
  Array<double, 2> cos, sin;
};
Table table_of(const RopeFrequencies& f, Index rotary_dim, std::vector<double> positions) {
  const Index rows = static_cast<Index>(positions.size());
  Array<long double, 1> inv_freq({rotary_dim / 2});
  ref::rope_inverse_frequencies(f, rotary_dim, AngleRule::exact, inv_freq.view());
  Table t{Array<double, 2>({rows, rotary_dim / 2}), Array<double, 2>({rows, rotary_dim / 2})};
  ref::rope_table(inv_freq.view(), AngleRule::exact, 1, {positions.data(), {rows}}, t.cos.view(),
                  t.sin.view());
  return t;
}

Array<double, 3> forward(const RopeSpec& spec, const Array<double, 3>& x, const Table& t) {
  Array<double, 3> y({x.extent(0), x.extent(1), x.extent(2)});
  ref::rope_forward(spec, x.view(), t.cos.view(), t.sin.view(), y.view());
  return y;
}

Array<double, 3> backward(const RopeSpec& spec, const Array<double, 3>& dy, const Table& t) {
  Array<double, 3> dx({dy.extent(0), dy.extent(1), dy.extent(2)});
  ref::rope_backward(spec, dy.view(), t.cos.view(), t.sin.view(), dx.view());
  return dx;
}

double dot(const Array<double, 3>& a, const Array<double, 3>& b) {
  double sum = 0;
  for (Index n = 0; n < a.size(); ++n) sum += a.data()[n] * b.data()[n];
  return sum;
}

RopeFrequencies llama31() {
  RopeFrequencies f{500000, RopeScaling::llama3};
  f.factor = 8;
  f.original_max_position_embeddings = 8192;
  f.low_freq_factor = 1;
  f.high_freq_factor = 4;
  return f;
}

RopeFrequencies yarn(double theta, double factor, double m) {
  RopeFrequencies f{theta, RopeScaling::yarn};
  f.factor = factor;
  f.original_max_position_embeddings = m;
  f.beta_fast = 32;
  f.beta_slow = 1;
  return f;
}

std::vector<RopeFrequencies> all_scalings() {
  std::vector<RopeFrequencies> all = {
      {10000}, {500000}, {1.5}, llama31(), yarn(10000, 16, 4096), yarn(1e6, 4, 32768)};
  RopeFrequencies f{10000, RopeScaling::linear};
  f.factor = 3;
  all.push_back(f);
  f.scaling = RopeScaling::ntk;
  all.push_back(f);
  f.scaling = RopeScaling::dynamic_ntk;
  f.original_max_position_embeddings = 2048;
  for (const double length : {1000.0, 2048.0, 5000.0}) {
    f.sequence_length = length;
    all.push_back(f);
  }
  return all;
}

TEST_CASE("rope and its gradient are the oracle's matrix and its transpose") {
  test::Random random(1);
  for (const RopeStyle style : both_styles) {
    for (const auto& [heads, rows, width, rotary_dim] :
         {std::array<Index, 4>{1, 1, 2, 2}, {1, 1, 3, 2}, {2, 3, 7, 4}, {3, 2, 8, 8}, {1, 5, 10, 6}}) {
      for (const bool is_full : {false, true}) {
        const RopeSpec spec{style, rotary_dim};
        const Index columns = is_full ? rotary_dim : rotary_dim / 2;
        const Array<double, 3> x = random_array<3>(random, {heads, rows, width});
        const Table t{random_array<2>(random, {rows, columns}), random_array<2>(random, {rows, columns})};
        const Array<double, 3> y = forward(spec, x, t), dx = backward(spec, x, t);
        for (Index h = 0; h < heads; ++h) {
          for (Index s = 0; s < rows; ++s) {
            std::vector<Real> cos, sin, row;
            for (Index d = 0; d < rotary_dim; ++d) {
              const Index w = is_full ? d : style == RopeStyle::half ? d % (rotary_dim / 2) : d / 2;
              cos.push_back(t.cos(s, w));
              sin.push_back(t.sin(s, w));
            }
            for (Index d = 0; d < width; ++d) row.push_back(x(h, s, d));
            const Array<Real, 2> matrix = oracle::rope_matrix(spec, width, cos, sin);
            const std::vector<Real> right_y = oracle::rope_times(matrix, row, false),
                                    right_dx = oracle::rope_times(matrix, row, true);
            for (Index d = 0; d < width; ++d) {
              // Two products below 1 and their sum, each rounded once.
              CHECK(std::abs(y(h, s, d) - right_y[d]) <= 4 * u);
              CHECK(std::abs(dx(h, s, d) - right_dx[d]) <= 4 * u);
            }
          }
        }
      }
    }
  }
}

TEST_CASE("the gradient agrees with differences of the output") {
  test::Random random(2);
  for (const RopeStyle style : both_styles) {
    const RopeSpec spec{style, 6};
    Array<double, 3> x = random_array<3>(random, {2, 3, 7});
    const Array<double, 3> dy = random_array<3>(random, {2, 3, 7});
    const Table t{random_array<2>(random, {3, 6}), random_array<2>(random, {3, 6})};
    const Array<double, 3> dx = backward(spec, dy, t);
    for (Index n = 0; n < x.size(); ++n) {
      // The map is linear, so that a difference has no truncation error.
      const double before = x.data()[n], low = dot(dy, forward(spec, x, t));
      x.data()[n] += 1;
      CHECK(dot(dy, forward(spec, x, t)) - low == Approx(dx.data()[n]).margin(1e-13));
      x.data()[n] = before;
    }
  }
}

TEST_CASE("with one angle a pair the gradient undoes the turn, lengths stay, and turns add up") {
  test::Random random(3);
  for (const RopeStyle style : both_styles) {
    const RopeSpec spec{style, 16};
    const RopeFrequencies f{10000};
    const Array<double, 3> x = random_array<3>(random, {1, 1, 16});
    const Table p = table_of(f, 16, {700}), q = table_of(f, 16, {1234}), both = table_of(f, 16, {1934});
    const Array<double, 3> y = forward(spec, x, p), back = backward(spec, y, p);
    const Array<double, 3> twice = forward(spec, y, q), once = forward(spec, x, both);
    CHECK(dot(y, y) == Approx(dot(x, x)).epsilon(1e-14));
    for (Index n = 0; n < x.size(); ++n) {
      CHECK(back.data()[n] == Approx(x.data()[n]).margin(1e-14));
      CHECK(twice.data()[n] == Approx(once.data()[n]).margin(1e-14));
    }
  }
}

TEST_CASE("products of turned rows depend on the distance of their positions only") {
  test::Random random(4);
  for (const RopeStyle style : both_styles) {
    const RopeSpec spec{style, 8};
    const Array<double, 3> q = random_array<3>(random, {1, 1, 8}), k = random_array<3>(random, {1, 1, 8});
    const auto score = [&](double i, double j) {
      return dot(forward(spec, q, table_of({10000}, 8, {i})), forward(spec, k, table_of({10000}, 8, {j})));
    };
    CHECK(score(5, 2) == Approx(score(3, 0)).margin(1e-14));
    CHECK(score(10000005, 10000002) == Approx(score(3, 0)).margin(1e-11));
    CHECK(score(2, 5) != Approx(score(5, 2)).margin(1e-3));
  }
}

TEST_CASE("inverse frequencies are the oracle's under every scaling") {
  for (const RopeFrequencies& f : all_scalings()) {
    for (const Index rotary_dim : {4, 6, 64, 80, 128, 256}) {
      INFO("theta " << f.theta << ", scaling " << static_cast<int>(f.scaling) << ", R " << rotary_dim);
      const std::vector<Real> right = oracle::rope_inverse_frequencies(f, rotary_dim);
      const std::vector<double> got = inverse_frequencies(f, rotary_dim);
      // ntk changes theta in double; its error grows by at most 1.
      for (std::size_t k = 0; k < right.size(); ++k) CHECK(std::abs(got[k] - right[k]) <= 6 * u * right[k]);
    }
  }
}

TEST_CASE("inverse frequencies are those of Transformers") {
  // The formulas of its modeling_rope_utils.py, written down in numpy and evaluated in float64.
  const auto check = [](const RopeFrequencies& f, Index rotary_dim,
                        std::vector<std::pair<Index, double>> right) {
    const std::vector<double> got = inverse_frequencies(f, rotary_dim);
    for (const auto& [k, value] : right) {
      INFO("pair " << k);
      CHECK(got[k] == Approx(value).epsilon(1e-13));
    }
  };
  check({10000}, 128,
        {{0, 1.0}, {1, 0.8659643233600655}, {17, 0.08659643233600654}, {63, 0.00011547819846894582}});
  check(llama31(), 128,
        {{0, 1.0},
         {20, 0.016560440080994446},
         {29, 0.002166570763503359},
         {30, 0.0013718935677611381},
         {32, 0.0005248461609929549},
         {34, 0.00017850781276799638},
         {35, 9.556212353964683e-05},
         {50, 4.411534674558404e-06},
         {63, 3.068925988914511e-07}});
  check(yarn(10000, 16, 4096), 128,
        {{0, 1.0},
         {20, 0.056234132519034905},
         {21, 0.046940859997959404},
         {30, 0.00852684377296741},
         {45, 0.00015177160473182493},
         {46, 8.334508951020775e-05},
         {63, 7.217387404309114e-06}});
  check(yarn(1e6, 4, 32768), 128,
        {{0, 1.0},
         {23, 0.006978305848598663},
         {24, 0.005375321490790102},
         {30, 0.001064360981247002},
         {39, 6.490394320837028e-05},
         {40, 4.4456985250973074e-05},
         {63, 3.102344401879299e-07}});
  RopeFrequencies dynamic{10000, RopeScaling::dynamic_ntk};
  dynamic.factor = 2;
  dynamic.original_max_position_embeddings = 2048;
  dynamic.sequence_length = 5000;
  check(dynamic, 64,
        {{0, 1.0}, {1, 0.7177864848979212}, {16, 0.0049650591744353715}, {31, 3.434421394706348e-05}});
}

TEST_CASE("cosines and sines are right far beyond a million positions") {
  for (const double position : {0.0, 1.0, -3.0, 4095.0, 1e6 + 1, 1e7, 1e7 + 1, 16777217.0, 1e9 + 7}) {
    const Index rotary_dim = 64;
    const Table t = table_of({10000}, rotary_dim, {position});
    const std::vector<Real> f = oracle::rope_inverse_frequencies({10000}, rotary_dim);
    for (Index k = 0; k < rotary_dim / 2; ++k) {
      const std::complex<Real> right = oracle::rope_turn(f[k], static_cast<long long>(position));
      // Both have f to 2^-63 or so; the oracle's powers are off by |p| 2^-64.
      const double tolerance = 2 * u + std::abs(position) * 0x1p-60;
      INFO("position " << position << ", pair " << k);
      CHECK(std::abs(t.cos(0, k) - right.real()) <= tolerance);
      CHECK(std::abs(t.sin(0, k) - right.imag()) <= tolerance);
    }
  }
}

TEST_CASE("under the float32 rule angles are what float arithmetic makes them") {
  const Index rotary_dim = 96;
  Array<long double, 1> inv_freq({rotary_dim / 2});
  ref::rope_inverse_frequencies({10000}, rotary_dim, AngleRule::float32, inv_freq.view());
  for (const double position : {3.0, 4097.0, 1e7 + 1, 16777217.0}) {
    Array<double, 2> cos({1, rotary_dim / 2}), sin({1, rotary_dim / 2});
    ref::rope_table(inv_freq.view(), AngleRule::float32, 2, {&position, {1}}, cos.view(), sin.view());
    for (Index k = 0; k < rotary_dim / 2; ++k) {
      const float exponent = static_cast<float>(2 * k) / static_cast<float>(rotary_dim);
      const float f = static_cast<float>(std::pow(10000.0L, -static_cast<long double>(exponent)));
      const float angle = static_cast<float>(position) * f;
      CHECK(cos(0, k) == Approx(2 * std::cos(static_cast<double>(angle))).margin(4 * u));
      CHECK(sin(0, k) == Approx(2 * std::sin(static_cast<double>(angle))).margin(4 * u));
    }
  }
}

TEST_CASE("a full table whose columns disagree is used column by column") {
  const RopeSpec spec{RopeStyle::half, 2};
  Table t{Array<double, 2>({1, 2}), Array<double, 2>({1, 2})};
  t.cos(0, 0) = 2, t.cos(0, 1) = 3, t.sin(0, 0) = 5, t.sin(0, 1) = 7;
  Array<double, 3> x({1, 1, 2});
  x(0, 0, 0) = 1, x(0, 0, 1) = 10;
  const Array<double, 3> y = forward(spec, x, t), dx = backward(spec, x, t);
  CHECK(y(0, 0, 0) == 1 * 2 - 10 * 5);
  CHECK(y(0, 0, 1) == 10 * 3 + 1 * 7);
  CHECK(dx(0, 0, 0) == 1 * 2 + 10 * 7);
  CHECK(dx(0, 0, 1) == 10 * 3 - 1 * 5);
}

}  // namespace
