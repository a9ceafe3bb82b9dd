// The vector kernels of the bounds against plain loops, at every instruction set level that the machine has.
#include "verify/bounds/vector_kernels.hpp"

#include <cmath>
#include <limits>
#include <vector>

#include "tests/catch.hpp"
#include "tests/support/random.hpp"

namespace {

using namespace attest;
using namespace attest::bounds;
using attest::test::Random;

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr long double u = 0x1p-53L;
constexpr double lowest = -0x1.6232bdd7abcd4p9;  // just below ln 2^-1022, where exp stops

/// A sum in long double, and what n additions and products in double may be off: every term meets fewer than
/// n + 4 roundings. A sum of squared running sums squares that.
struct Sum {
  long double value = 0, magnitude = 0;

  void add(long double term) {
    value += term;
    magnitude += std::abs(term);
  }
  bool matches(double got, Index n) const {
    return std::abs(got - value) <= 2 * static_cast<long double>(n + 4) * u * magnitude;
  }
};

std::vector<double> random_values(Random& random, Index n) {
  std::vector<double> x(n);
  for (double& value : x) value = random.symmetric() / 3;  // all bits of a double
  return x;
}

}  // namespace

TEST_CASE("the vector exponentials are within four roundings of the exact ones") {
  std::vector<double> x, y;
  Random random(1);
  for (Index n = 0; n < 40000; ++n) {
    x.push_back(-std::abs(random.symmetric()) * std::exp2(30 * random.symmetric() - 20));
  }
  for (const double special : {0.0, -708.0, lowest, -1.0, -0x1p-1074}) x.push_back(special);
  x.resize(padded(static_cast<Index>(x.size())));
  const Index n = static_cast<Index>(x.size());
  y.resize(n);
  for (const VectorKernels* kernels : available_vector_kernels()) {
    kernels->exp(x.data(), y.data(), n);
    for (Index i = 0; i < n; ++i) {
      const long double want = std::exp(static_cast<long double>(std::max(x[i], lowest)));
      if (!(std::abs(y[i] - want) <= 4 * u * want)) FAIL("exp(" << x[i] << ") = " << y[i]);
    }
    std::vector<double> positive(x);
    for (double& value : positive) value = std::abs(value);
    kernels->expm1(positive.data(), y.data(), n);
    for (Index i = 0; i < n; ++i) {
      const long double want =
          positive[i] > 709 ? infinity : std::expm1(static_cast<long double>(positive[i]));
      if (!(y[i] == want || std::abs(y[i] - want) <= 4 * u * want)) {
        FAIL("expm1(" << positive[i] << ") = " << y[i]);
      }
    }
    double special[lanes] = {710, infinity, std::nan(""), 709, -infinity, -1e300, 0, 1};
    kernels->exp(special, y.data(), lanes);
    CHECK(y[0] == infinity);
    CHECK(y[1] == infinity);
    CHECK(std::isnan(y[2]));
    CHECK(std::isfinite(y[3]));
    CHECK((y[4] > 0 && y[4] < 1e-300 && y[5] == y[4]));
  }
}

TEST_CASE("the vector kernels form the sums that the bounds need") {
  const auto count = GENERATE(Index{1}, Index{7}, Index{8}, Index{9}, Index{17}, Index{64});
  const auto depth = GENERATE(Index{1}, Index{5}, Index{64});
  Random random(static_cast<std::uint64_t>(100 * count + depth));
  const Index keys = padded(count), width = padded(depth), blocks = width / lanes;
  const std::vector<double> a = random_values(random, depth), b = random_values(random, keys * depth),
                            v = random_values(random, count * width);

  for (const VectorKernels* kernels : available_vector_kernels()) {
    std::vector<double> got[5];
    for (auto& x : got) x.assign(keys, infinity);
    const Index first = count / 3;
    kernels->product_sums(a.data(), depth, b.data(), first, count,
                          {got[0].data(), got[1].data(), got[2].data(), got[3].data(), got[4].data()});
    for (Index j = first; j < count; ++j) {
      Sum sum, size, squares, prefix, prefix_sum;
      for (Index d = 0; d < depth; ++d) {
        const long double t = static_cast<long double>(a[d]) * b[(j / lanes * depth + d) * lanes + j % lanes];
        sum.add(t);
        size.add(std::abs(t));
        squares.add(t * t);
        prefix.add(sum.magnitude * sum.magnitude);
        prefix.value += sum.value * sum.value - sum.magnitude * sum.magnitude;
        prefix_sum.add(sum.magnitude);
        prefix_sum.value += sum.value - sum.magnitude;
      }
      CHECK((sum.matches(got[0][j], depth) && size.matches(got[1][j], depth) &&
             squares.matches(got[2][j], depth) && prefix.matches(got[3][j], 3 * depth) &&
             prefix_sum.matches(got[4][j], 2 * depth)));
    }

    enum { p, store, store_variance, predicted, growth = predicted + 3, variance, tangent, spread, arrays };
    std::vector<double> c[arrays];
    for (auto& x : c) x = random_values(random, count);
    for (double& weight : c[p]) weight = std::abs(weight);
    constexpr double vanishing = 0.1;
    std::vector<const double*> rows;
    std::vector<Factor> factors;
    for (Index n = 0; n < count; ++n) {
      rows.push_back(&v[n * width]);
      double f[10];
      for (double& x : f) x = random.symmetric() / 3;
      factors.push_back({f[0], f[1], f[2], f[3], f[4], f[5], {f[6], f[7], f[8], f[9]}});
    }
    const auto value_keys = [&](Index from) {
      const auto at = [&](int array) { return &c[array][from]; };
      return ValueKeys{&rows[from],
                       at(p),
                       at(store),
                       at(store_variance),
                       {at(predicted), at(predicted + 1), at(predicted + 2)},
                       vanishing};
    };
    std::vector<ValueBlock> values(blocks), fewer_sums(blocks);
    std::vector<TermBlock> terms(blocks);
    const Index half = count / 2;
    kernels->add_values(values.data(), blocks, value_keys(0), half);  // continued by the second call
    kernels->add_values(values.data(), blocks, value_keys(half), count - half);
    const CentredKeys centred_keys{rows.data(),        c[p].data(),       c[growth].data(),
                                   c[variance].data(), c[tangent].data(), c[spread].data()};
    kernels->add_centred(values.data(), blocks, centred_keys, count);
    kernels->add_values(fewer_sums.data(), blocks,
                        {rows.data(), c[p].data(), nullptr, nullptr, {}, vanishing}, count);
    CentredKeys without_coherent = centred_keys;
    without_coherent.spread = nullptr;
    kernels->add_centred(fewer_sums.data(), blocks, without_coherent, count);
    kernels->add_terms(terms.data(), blocks, factors.data(), v.data(), half);
    kernels->add_terms(terms.data(), blocks, factors.data() + half, &v[half * width], count - half);
    for (Index e = 0; e < width; ++e) {
      const ValueBlock& g = values[e / lanes];
      const TermBlock& t = terms[e / lanes];
      const Index x = e % lanes;
      Sum value[9], centred[6], term[10];
      for (Index n = 0; n < count; ++n) {
        const Factor& f = factors[n];
        const long double s = v[n * width + e], size = std::abs(s), from_o = s - g.o[x], weight = c[p][n],
                          term_size = weight * std::abs(from_o);
        value[0].add(weight * s);
        value[1].add(weight * size);
        value[2].add(weight * weight * s * s);
        value[3].add(c[store][n] * size);
        value[4].add(c[store_variance][n] * s * s);
        if (weight < vanishing) value[5].add(weight * s);
        for (int k = 0; k < 3; ++k) value[6 + k].add(c[predicted + k][n] * s);
        centred[0].add(c[growth][n] * term_size);
        centred[1].add(term_size);
        centred[2].add(c[variance][n] * term_size);
        centred[3].add(c[variance][n] * term_size * term_size);
        centred[4].add(c[tangent][n] * weight * from_o);
        centred[5].add(c[spread][n] * term_size);
        term[0].add(f.value * s);
        term[1].add(std::abs(f.value * s));
        term[2].add(f.value * s * f.value * s);
        term[3].add(f.worst * size);
        term[4].add(f.variance * s * s);
        term[5].add(f.systematic * size);
        term[6].add(f.spread * size);
        term[7].add(f.rest * s * s);
        term[8].add(f.predicted[0] * s);
        term[9].add(f.predicted[3] * s);
      }
      const double got_values[] = {
          g.o[x],    g.magnitude[x],    g.squares[x],      g.store[x],       g.store_variance[x],
          g.tiny[x], g.predicted[0][x], g.predicted[1][x], g.predicted[2][x]};
      const double got_centred[] = {g.worst[x],    g.spread[x], g.second_order[x],
                                    g.variance[x], g.scale[x],  g.coherent[x]};
      const double got_terms[] = {t.value[x],        t.magnitude[x],   t.squares[x], t.worst[x],
                                  t.variance[x],     t.systematic[x],  t.spread[x],  t.rest[x],
                                  t.predicted[0][x], t.predicted[3][x]};
      for (int k = 0; k < 9; ++k) CHECK(value[k].matches(got_values[k], count));
      for (int k = 0; k < 6; ++k) CHECK(centred[k].matches(got_centred[k], count));
      for (int k = 0; k < 10; ++k) CHECK(term[k].matches(got_terms[k], count));
      const ValueBlock& fewer = fewer_sums[e / lanes];
      CHECK((value[1].matches(fewer.magnitude[x], count) && value[5].matches(fewer.tiny[x], count) &&
             fewer.store[x] == 0 && fewer.store_variance[x] == 0 && fewer.predicted[2][x] == 0));
      CHECK((centred[3].matches(fewer.variance[x], count) && fewer.coherent[x] == 0));
    }
  }
}
