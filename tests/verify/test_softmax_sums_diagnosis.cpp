// What is said of softmax kernels whose row sums, or sums of dy y, hold what they should not, and of kernels
// that read other rows, clamp elsewhere, or form lse in another way.
#include <cmath>
#include <functional>
#include <string>

#include "tests/catch.hpp"
#include "tests/emulate/judged.hpp"
#include "tests/emulate/softmax.hpp"

namespace {

using namespace attest;
using namespace attest::emulate;

using Values = std::vector<double>;

constexpr DType elements[] = {DType::float16, DType::bfloat16, DType::float32};

SoftmaxSetup setup_of(DType element, Index outer, Index n) {
  SoftmaxSetup setup;
  setup.element = element, setup.outer = outer, setup.n = n;
  return setup;
}

Case dump(const SoftmaxSetup& setup) {
  return softmax_case(setup, {}, 7, [](Index row, Index j) {
    return 3 * std::sin(1.7 * static_cast<double>(j * j % 97) + 0.3 * static_cast<double>(j) +
                        static_cast<double>(row));
  });
}

/// Exponentials of a row, relative to its maximum.
Values exponentials(const Case& c, Index n, Index row) {
  Values e;
  for (Index j = row * n; j < (row + 1) * n; ++j)
    e.push_back(std::exp(c.in.at("x").values[j] - c.out.at("m").values[row]));
  return e;
}

/// y and lse of a kernel with these row sums.
Case with_sums(const Case& right, Index n, const std::function<double(Index row)>& sum) {
  Case c = right;
  Tensor &y = c.out.at("y"), &lse = c.out.at("lse");
  for (Index row = 0; row < lse.size(); ++row) {
    const double l = sum(row);
    const Values e = exponentials(right, n, row);
    for (Index j = 0; j < n; ++j) y.values[row * n + j] = round_to(e[j] / l, *y.dtype);
    lse.values[row] = round_to(right.out.at("m").values[row] + std::log(l), *lse.dtype);
  }
  c.out = {{"y", y}, {"lse", lse}};
  return c;
}

/// dx of a kernel whose sum of dy y is this at column j.
Case with_dots(const Case& right, Index n, const std::function<double(Index row, Index j)>& dot) {
  Case c = right;
  Tensor& dx = c.out.at("dx");
  for (Index row = 0; row < dx.size() / n; ++row) {
    const Values e = exponentials(right, n, row);
    for (Index j = 0; j < n; ++j) {
      const double dy = c.in.at("dy").values[row * n + j], y = e[j] / c.out.at("l").values[row];
      dx.values[row * n + j] = round_to(y * (dy - dot(row, j)), *dx.dtype);
    }
  }
  return c;
}

/// Of products dy y.
Values products(const Case& right, Index n, Index row) {
  Values p = exponentials(right, n, row);
  for (Index j = 0; j < n; ++j) p[j] *= right.in.at("dy").values[row * n + j] / right.out.at("l").values[row];
  return p;
}

double sum_of(
    const Values& x, const std::function<bool(Index j)>& takes = [](Index) { return true; }) {
  double sum = 0;
  for (std::size_t j = 0; j < x.size(); ++j)
    if (takes(static_cast<Index>(j))) sum += x[j];
  return sum;
}

}  // namespace

TEST_CASE("columns at equal distances that a row sum lacks or counts twice are named") {
  for (const DType element : elements) {
    const Index n = 256;
    const Case right = dump(setup_of(element, 12, n));
    INFO(format_of(element).name);
    const auto lost = [](Index j) { return j % 64 == 63 && j != 255; };
    CHECK(first_cause(with_sums(right, n, [&](Index row) {
            return sum_of(exponentials(right, n, row), [&](Index j) { return !lost(j); });
          })) == "columns 63, 127, 191 missing in the row sum");
    CHECK(first_cause(with_sums(right, n, [&](Index row) {
            const Values e = exponentials(right, n, row);
            return sum_of(e) + sum_of(e, [](Index j) { return j % 32 == 0; });
          })) == "columns 0, 32 ... 224 counted twice in the row sum");
    CHECK(first_cause(with_dots(right, n, [&](Index row, Index) {
            return sum_of(products(right, n, row), [&](Index j) { return !lost(j); });
          })) == "columns 63, 127, 191 missing in the sum of dy y");
  }
}

TEST_CASE("a warp's part of the sum of another row is named with its columns") {
  const Index n = 300;
  for (const DType element : elements) {
    const Case right = dump(setup_of(element, 24, n));
    INFO(format_of(element).name);
    const auto is_of_warp = [](Index j) { return j % 128 / 32 == 3; };
    CHECK(first_cause(with_sums(right, n, [&](Index row) {
            const Values e = exponentials(right, n, row);
            if (row < 8) return sum_of(e);
            const double m = right.out.at("m").values[row], of_other = right.out.at("m").values[row - 8];
            return sum_of(e, [&](Index j) { return !is_of_warp(j); }) +
                   sum_of(exponentials(right, n, row - 8), is_of_warp) * std::exp(of_other - m);
          })) == "a row sum with the part of columns 96..127 of every 128 of the row 8 before");
    const auto dot = [&](Index row) { return sum_of(products(right, n, row)); };
    CHECK(first_cause(with_dots(right, n, [&](Index row, Index j) {
            return row >= 8 && is_of_warp(j) ? dot(row - 8) : dot(row);
          })) == "the sum of dy y of the row 8 before, in columns 96..127 of every 128");
  }
}

TEST_CASE("parts of warps in a narrow format are named") {
  const Index n = 300;
  const Case right = dump(setup_of(DType::float32, 24, n));
  const auto rounded = [&](const Values& terms, DType narrow) {
    double sum = 0;
    for (Index warp = 0; warp < 4; ++warp)
      sum += round_to(sum_of(terms, [&](Index j) { return j % 128 / 32 == warp; }), narrow);
    return sum;
  };
  for (const DType narrow : {DType::float16, DType::bfloat16}) {
    const std::string in_narrow = " of each of 4 warps in " + std::string(format_of(narrow).name);
    CHECK(first_cause(with_sums(right, n, [&](Index row) {
            return rounded(exponentials(right, n, row), narrow);
          })) == "parts of the row sum" + in_narrow);
    CHECK(first_cause(with_dots(right, n, [&](Index row, Index) {
            return rounded(products(right, n, row), narrow);
          })) == "parts of the sum of dy y" + in_narrow);
  }
}

namespace {

/// Of 64 threads that take `at_once` columns together.
double sum_of_threads(const Case& c, Index n, Index row, Index at_once, double lazy_below, DType rounded,
                      bool forgets_own) {
  double m[64], l[64];
  for (Index t = 0; t < 64; ++t) {
    m[t] = -1e30, l[t] = 0;
    for (Index first = t; first < n; first += 64 * at_once) {
      double highest = m[t], sum = 0;
      const Index last = std::min(n, first + 64 * at_once);
      for (Index j = first; j < last; j += 64) highest = std::max(highest, c.in.at("x").values[row * n + j]);
      for (Index j = first; j < last; j += 64) sum += std::exp(c.in.at("x").values[row * n + j] - highest);
      l[t] = round_to((highest - m[t] < lazy_below ? l[t] : l[t] * std::exp(m[t] - highest)) + sum, rounded);
      m[t] = highest;
    }
  }
  for (Index apart = 16; apart > 0; apart /= 2) {
    for (Index t = 0; t < 64; ++t) {
      if (t % 32 >= apart) continue;
      const double high = std::max(m[t], m[t + apart]);
      const bool forgets = forgets_own && m[t + apart] > m[t];
      l[t] = l[t] * (forgets ? 1 : std::exp(m[t] - high)) + l[t + apart] * std::exp(m[t + apart] - high);
      m[t] = high;
    }
  }
  const double high = c.out.at("m").values[row];
  return l[0] * std::exp(m[0] - high) + l[32] * std::exp(m[32] - high);
}

}  // namespace

TEST_CASE("row sums of threads that rescale too seldom, round, or merge wrongly are named") {
  const Index n = 600;
  for (const DType element : elements) {
    const Case right = dump(setup_of(element, 6, n));
    const auto cause_of = [&](Index at_once, double lazy_below, DType rounded, bool forgets_own) {
      return first_cause(with_sums(right, n, [&](Index row) {
        return sum_of_threads(right, n, row, at_once, lazy_below, rounded, forgets_own);
      }));
    };
    INFO(format_of(element).name);
    const std::string threads = "row sums of each of 64 threads";
    CHECK(cause_of(4, 0.5, DType::float64, false) ==
          threads + ", in steps of 4 columns not rescaled when the maximum rises by less than 0.5");
    CHECK(cause_of(4, 0, DType::bfloat16, false) == threads + ", in steps of 4 columns, in bfloat16");
    CHECK(cause_of(1, 0, DType::float64, true) ==
          threads + ": in merges a thread's own sum is not rescaled to a greater maximum");
  }
}

TEST_CASE("other ways to form the lse of a softmax are named") {
  for (const DType element : elements) {
    SoftmaxSetup setup = setup_of(element, 40, 100);
    setup.scale = 0.125;
    const Case right = dump(setup);
    INFO(format_of(element).name);
    const auto cause_of = [&](auto lse_of) {
      Case c = right;
      for (Index row = 0; row < 40; ++row)
        c.out.at("lse").values[row] = round_to(
            lse_of(right.out.at("m").values[row], std::log(right.out.at("l").values[row])), DType::float32);
      return first_cause(c);
    };
    CHECK(cause_of([](double m, double log_l) { return m + std::log2(std::exp(log_l)); }) ==
          "lse = m + log2(l), not ln(l)");
    CHECK(cause_of([](double m, double log_l) { return 8 * m + log_l; }) ==
          "lse with the maximum of x, before the scale");
    CHECK(cause_of([](double m, double log_l) { return m + 0.75 * log_l; }) == "lse = 1 m + 0.75 ln(l)");
  }
}

TEST_CASE("clamps at another place, and gradients that pass them, are named") {
  for (const DType element : elements) {
    SoftmaxSetup setup = setup_of(element, 40, 100);
    setup.clamp = 1.5, setup.scale = 0.75;
    const Case right = dump(setup);
    INFO(format_of(element).name);
    Case c = right;
    const Values &x = right.in.at("x").values, &dy = right.in.at("dy").values;
    const auto plant = [&](auto score_of, auto slope_of) {
      for (Index row = 0; row < 40; ++row) {
        Values e;
        double sum = 0, dot = 0;
        for (Index j = 0; j < 100; ++j) e.push_back(std::exp(score_of(x[row * 100 + j]))), sum += e.back();
        for (Index j = 0; j < 100; ++j) dot += e[j] / sum * dy[row * 100 + j];
        for (Index j = 0; j < 100; ++j) {
          const Index at = row * 100 + j;
          c.out.at("y").values[at] = round_to(e[j] / sum, element);
          c.out.at("dx").values[at] = round_to(e[j] / sum * (dy[at] - dot) * slope_of(x[at]), element);
        }
        c.out.at("lse").values[row] = round_to(std::log(sum), DType::float32);
      }
      Case planted = c;
      planted.out.erase("m"), planted.out.erase("l");
      return first_cause(planted);
    };
    const auto clamped = [](double value) { return std::clamp(value, -1.5, 1.5); };
    CHECK(plant([&](double value) { return clamped(0.75 * value); },
                [](double value) { return std::abs(0.75 * value) > 1.5 ? 0 : 0.75; }) ==
          "the clamp applied after the scale");
    CHECK(plant([&](double value) { return 0.75 * clamped(value); }, [](double) { return 0.75; }) ==
          "a gradient that is not 0 where x was clamped");
    CHECK(plant([](double value) { return 0.75 * value; }, [](double) { return 0.75; }) ==
          "the clamp ignored");
  }
}

TEST_CASE("x and masks that a softmax reads from other rows are named") {
  for (const DType element : elements) {
    INFO(format_of(element).name);
    SoftmaxSetup setup = setup_of(element, 6, 100);
    setup.inner = 7;
    Case c = dump(setup);
    const Values x = c.in.at("x").values;
    for (Index row = 0; row < 42; ++row) {
      const Index o = row / 7, i = row % 7;
      const auto read = [&](Index j) { return x[(o * 100 + j) * 7 + (j >= 64 ? (i + 1) % 7 : i)]; };
      double sum = 0;
      for (Index j = 0; j < 100; ++j) sum += std::exp(read(j));
      for (Index j = 0; j < 100; ++j)
        c.out.at("y").values[(o * 100 + j) * 7 + i] = round_to(std::exp(read(j)) / sum, element);
      c.out.at("lse").values[row] = round_to(std::log(sum), DType::float32);
    }
    c.out = {{"y", c.out.at("y")}, {"lse", c.out.at("lse")}};
    CHECK(first_cause(c) == "x of the next index behind the axis, from column 64 on");
    c.out.erase("lse");
    CHECK(first_cause(c) == "x of the next index behind the axis, from column 64 on");

    setup = setup_of(element, 60, 100);
    c = dump(setup);
    for (Tensor* t : {&c.in.at("x"), &c.out.at("y")}) t->shape = {3, 20, 100};
    c.spec.erase("axis");
    Tensor& mask = c.in["mask"] = Tensor{"bool", {}, {3, 1, 100}, {}};
    test::Random random(3);
    for (Index j = 0; j < 300; ++j) mask.values.push_back(random.one_in(3) ? 0 : 1);
    for (Index row = 0; row < 60; ++row) {
      double sum = 0;
      const auto e = [&](Index j) {
        return mask.values[row % 3 * 100 + j] * std::exp(c.in.at("x").values[row * 100 + j]);
      };
      for (Index j = 0; j < 100; ++j) sum += e(j);
      for (Index j = 0; j < 100; ++j) c.out.at("y").values[row * 100 + j] = round_to(e(j) / sum, element);
    }
    c.in.erase("dy");
    c.out = {{"y", c.out.at("y")}};
    CHECK(first_cause(c) == "the mask of another row: row r reads r mod 3, as if its rows took turns");
  }
}

TEST_CASE("softmax outputs that are special or of odd shapes can be diagnosed") {
  for (const Index outer : {1, 2, 5}) {
    for (const Index inner : {1, 3}) {
      for (const Index n : {1, 2, 31, 33, 70}) {
        for (const double special : {0.0, HUGE_VAL, std::nan(""), -1.0}) {
          SoftmaxSetup setup = setup_of(DType::float32, outer, n);
          setup.inner = inner, setup.clamp = n == 33 ? 1 : 0, setup.has_mask = n == 70;
          Case c = dump(setup);
          for (auto& [name, tensor] : c.out)
            for (Index at = 0; at < tensor.size(); at += 3) tensor.values[at] = special;
          INFO(outer << " " << n << " " << inner << " " << special);
          CHECK(judged(c).verdict == Verdict::fail);
        }
      }
    }
  }
}
