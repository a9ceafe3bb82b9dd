// What is said of norms that misread their formula, or whose warps, chunks and tails go wrong: each planted
// fault has its name.
#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "tests/catch.hpp"
#include "tests/emulate/judged.hpp"
#include "tests/emulate/norm.hpp"

namespace {

using namespace attest;
using namespace attest::emulate;

constexpr Index rows = 48, width = 300, warp = 32, block = 128;
constexpr double eps = 1e-5;
constexpr DType elements[] = {DType::float16, DType::bfloat16, DType::float32};

/// A norm in double, stored once, whose steps a test replaces.
struct Norm {
  Case c;
  bool is_centred;
  std::vector<double> mean, rstd;

  Norm(bool centred, DType element, const std::function<void(NormSetup&)>& change = nullptr)
      : is_centred(centred) {
    NormSetup setup;
    setup.is_centred = setup.has_bias = centred;
    setup.element = setup.weight = element;
    setup.shape = {rows, width};
    setup.eps = eps;
    if (change) change(setup);
    c = norm_dump(setup, {}, true);
    for (Index i = 0; i < rows; ++i) {
      double sum = 0, squares = 0;
      for (Index j = 0; j < width; ++j) sum += x(i, j);
      mean.push_back(centred ? sum / width : 0);
      for (Index j = 0; j < width; ++j) squares += square(i, j);
      rstd.push_back(1 / std::sqrt(squares / width + eps));
    }
  }
  double in(const char* name, Index at) const {
    const auto it = c.in.find(name);
    return it == c.in.end() ? 0 : it->second.values[at];
  }
  double x(Index i, Index j) const {
    const double s = in("x", i * width + j) + in("residual", i * width + j);
    return c.in.contains("residual") ? round_to(s, *c.in.at("residual").dtype) : s;
  }
  double square(Index i, Index j) const { return (x(i, j) - mean[i]) * (x(i, j) - mean[i]); }
  double xhat(Index i, Index j) const { return (x(i, j) - mean[i]) * rstd[i]; }
  double w(Index j) const { return in("weight", j); }
  double b(Index j) const { return in("bias", j); }
  double dy(Index i, Index j) const { return in("dy", i * width + j); }

  /// Keeps the outputs that are given, with new values.
  using Element = std::function<double(Index i, Index j)>;
  Norm& with(const std::string& name, Index height, Index columns, const Element& value) {
    Tensor& t = c.out.at(name);
    for (Index i = 0; i < height; ++i)
      for (Index j = 0; j < columns; ++j) t.values[i * columns + j] = round_to(value(i, j), *t.dtype);
    return *this;
  }
  std::string cause_of(std::initializer_list<const char*> names) {
    std::erase_if(c.out, [&](const auto& x) {
      return std::ranges::none_of(names, [&](const char* name) { return x.first == name; });
    });
    return first_cause(c);
  }
  std::string cause_of_y(const Element& value) { return with("y", rows, width, value).cause_of({"y"}); }
  std::string cause_of_dx(const Element& value) { return with("dx", rows, width, value).cause_of({"dx"}); }
  std::string cause_of_dweight(const Element& term) {
    return with("dweight", 1, width,
                [&](Index, Index j) {
                  double sum = 0;
                  for (Index i = 0; i < rows; ++i) sum += term(i, j);
                  return sum;
                })
        .cause_of({"dweight"});
  }
  double mean_over(const std::function<double(Index j)>& term) const {
    double sum = 0;
    for (Index j = 0; j < width; ++j) sum += term(j) / width;
    return sum;
  }
};

}  // namespace

TEST_CASE("a bias before the weight, an offset behind it and a mean of x alone are named") {
  for (const DType element : elements) {
    INFO(format_of(element).name);
    Norm before(true, element);
    CHECK(before.cause_of_y([&](Index i, Index j) {
      return (before.xhat(i, j) + before.b(j)) * before.w(j);
    }) == "bias added before the weight: (xhat + bias) weight");
    Norm offset(false, element, [](NormSetup& setup) { setup.weight_offset = 1; });
    CHECK(offset.cause_of_y([&](Index i, Index j) { return offset.xhat(i, j) * offset.w(j) + 1; }) ==
          "weight_offset added to the product with the weight");
    Norm alone(true, element, [](NormSetup& setup) { setup.has_residual = true; });
    for (Index i = 0; i < rows; ++i) {
      alone.mean[i] = alone.mean_over([&](Index j) { return alone.in("x", i * width + j); });
      alone.rstd[i] = 1 / std::sqrt(alone.mean_over([&](Index j) { return alone.square(i, j); }) + eps);
    }
    CHECK(alone.cause_of_y([&](Index i, Index j) { return alone.xhat(i, j) * alone.w(j) + alone.b(j); }) ==
          "the mean of x alone");
  }
}

TEST_CASE("terms of dx without the weight or without rstd, and a xhat in 16 bits, are named") {
  for (const DType element : elements) {
    INFO(format_of(element).name);
    for (const int fault : {0, 1, 2}) {
      Norm norm(true, element);
      const auto h = [&](Index i, Index j) {
        return fault == 2 ? round_to(norm.xhat(i, j), DType::bfloat16) : norm.xhat(i, j);
      };
      std::vector<double> of_g, of_gx;
      for (Index i = 0; i < rows; ++i) {
        of_g.push_back(norm.mean_over([&](Index j) { return (fault == 0 ? 1 : norm.w(j)) * norm.dy(i, j); }));
        of_gx.push_back(norm.mean_over([&](Index j) { return norm.w(j) * norm.dy(i, j) * h(i, j); }) /
                        (fault == 1 ? norm.rstd[i] : 1));
      }
      CHECK(norm.cause_of_dx([&](Index i, Index j) {
        return norm.rstd[i] * (norm.w(j) * norm.dy(i, j) - of_g[i] - h(i, j) * of_gx[i]);
      }) == (fault == 0   ? "the mean of dy weight without the weight"
             : fault == 1 ? "rstd missing once in xhat times the mean of dy weight xhat"
                          : "the normalised x of dx in bfloat16"));
    }
  }
}

TEST_CASE("means of dx that warps do not share, and that are added up in 16 bits, are named") {
  for (const DType element : elements) {
    INFO(format_of(element).name);
    Norm own(false, element);
    std::vector<std::vector<double>> parts(rows, std::vector<double>(4));
    for (Index i = 0; i < rows; ++i)
      for (Index j = 0; j < width; ++j)
        parts[i][j % block / warp] += own.w(j) * own.dy(i, j) * own.xhat(i, j) / width;
    CHECK(own.cause_of_dx([&](Index i, Index j) {
      const std::vector<double>& p = parts[i];
      const double of_gx = j % block < warp ? p[0] + p[1] + p[2] + p[3] : p[j % block / warp];
      return own.rstd[i] * (own.w(j) * own.dy(i, j) - own.xhat(i, j) * of_gx);
    }) == "the mean of dy weight xhat not shared among 4 warps: each but the first has its own part");
    Norm narrow(false, element);
    CHECK(narrow.cause_of_dx([&](Index i, Index j) {
      static double sum;  // of the row at hand
      if (j == 0) {
        std::vector<double> lanes(64);
        for (Index n = 0; n < width; ++n)
          lanes[n % 64] =
              round_to(lanes[n % 64] + narrow.w(n) * narrow.dy(i, n) * narrow.xhat(i, n), DType::bfloat16);
        sum = 0;
        for (const double lane : lanes) sum += lane;
      }
      return narrow.rstd[i] * (narrow.w(j) * narrow.dy(i, j) - narrow.xhat(i, j) * sum / width);
    }) == "sums over the columns for dx, of each of 64 threads in bfloat16");
  }
}

TEST_CASE("a component of dx with its neighbour's weight is named") {
  Norm norm(true, DType::float32);
  const auto g = [&](Index i, Index j) { return norm.w(j % 4 == 3 ? j - 1 : j) * norm.dy(i, j); };
  std::vector<double> of_g, of_gx;
  for (Index i = 0; i < rows; ++i) {
    of_g.push_back(norm.mean_over([&](Index j) { return g(i, j); }));
    of_gx.push_back(norm.mean_over([&](Index j) { return g(i, j) * norm.xhat(i, j); }));
  }
  CHECK(norm.cause_of_dx([&](Index i, Index j) {
    return norm.rstd[i] * (g(i, j) - of_g[i] - norm.xhat(i, j) * of_gx[i]);
  }) == "weight of column c - 1 in column 3 of every 4");
}

TEST_CASE("faults of some columns of a norm are named with their place") {
  for (const DType element : elements) {
    INFO(format_of(element).name);
    Norm tail(true, element);
    CHECK(tail.cause_of_y([&](Index i, Index j) {
      return tail.xhat(i, j) * tail.w(j) + (j % 128 >= 104 ? 0 : tail.b(j));
    }) == "no bias in columns 104..127 of every 128");
    Norm stale(false, element);
    CHECK(stale.cause_of_y([&](Index i, Index j) {
      const Index row = j % block >= block - warp && i >= 12 ? i - 12 : i;
      return stale.x(i, j) * stale.rstd[row] * stale.w(j);
    }) == "rstd of the row 12 before in columns 96..127 of every 128");
    Norm sum(false, element, [](NormSetup& setup) { setup.has_residual = true; });
    sum.with("sum", rows, width,
             [&](Index i, Index j) { return j < 256 ? sum.x(i, j) : sum.in("x", i * width + j); });
    CHECK(first_cause(sum.c) == "no residual in columns from 256 on");
  }
}

TEST_CASE("residuals of other rows are named") {
  for (const DType element : elements) {
    INFO(format_of(element).name);
    Norm norm(false, element, [](NormSetup& setup) { setup.has_residual = true; });
    std::vector<double>& residual = norm.c.in.at("residual").values;
    const std::vector<double> right = residual;
    for (Index at = 0; at < rows * width; ++at) residual[at] = right[at % (20 * width)];
    std::vector<double> s(rows * width);
    for (Index at = 0; at < rows * width; ++at) s[at] = norm.x(at / width, at % width);
    residual = right;
    norm.with("sum", rows, width, [&](Index i, Index j) { return s[i * width + j]; });
    for (Index i = 0; i < rows; ++i)
      norm.rstd[i] =
          1 / std::sqrt(norm.mean_over([&](Index j) { return std::pow(s[i * width + j], 2); }) + eps);
    norm.with("y", rows, width,
              [&](Index i, Index j) { return s[i * width + j] * norm.rstd[i] * norm.w(j); });
    CHECK(norm.cause_of({"y", "sum"}) == "residual of row i modulo 20");
  }
}

TEST_CASE("sums of warps that a mean square lacks, has of another row or has in 16 bits are named") {
  struct Fault {
    const char* name;
    std::function<double(const std::vector<std::vector<double>>& parts, Index i)> sum;
  };
  const Fault faults[] = {
      {"warps 2..3 of 4 missing in ", [](const auto& parts, Index i) { return parts[i][0] + parts[i][1]; }},
      {"with the share of warp 3 of 4 of the row 5 before",
       [](const auto& parts, Index i) {
         return parts[i][0] + parts[i][1] + parts[i][2] + parts[i < 5 ? i : i - 5][3];
       }},
      {"the sums of squares of 4 warps stored in bfloat16", [](const auto& parts, Index i) {
         double sum = 0;
         for (const double part : parts[i]) sum += round_to(part, DType::bfloat16);
         return sum;
       }}};
  for (const DType element : {DType::float16, DType::float32}) {
    for (const bool is_centred : {false, true}) {
      for (const Fault& fault : faults) {
        if (is_centred && element == DType::float16) continue;  // seen in float32
        Norm norm(is_centred, element);
        std::vector<std::vector<double>> parts(rows, std::vector<double>(4));
        for (Index i = 0; i < rows; ++i)
          for (Index j = 0; j < width; ++j) parts[i][j % block / warp] += norm.square(i, j);
        for (Index i = 0; i < rows; ++i) norm.rstd[i] = 1 / std::sqrt(fault.sum(parts, i) / width + eps);
        norm.with("rstd", rows, 1, [&](Index i, Index) { return norm.rstd[i]; });
        norm.with("y", rows, width,
                  [&](Index i, Index j) { return norm.xhat(i, j) * norm.w(j) + norm.b(j); });
        INFO(format_of(element).name << " " << is_centred);
        CHECK(norm.cause_of({"y", "rstd"}).find(fault.name) != std::string::npos);
      }
    }
  }
}

TEST_CASE("rows of every chunk that are wrong in dweight are named") {
  for (const DType element : elements) {
    INFO(format_of(element).name);
    Norm twice(true, element);
    CHECK(twice.cause_of_dweight([&](Index i, Index j) {
      return (i % 10 == 0 && i > 0 ? 2 : 1) * twice.dy(i, j) * twice.xhat(i, j);
    }) == "row 0 of every 10 rows, but for the first 10, twice in dweight");
    Norm rest(true, element);
    CHECK(rest.cause_of_dweight([&](Index i, Index j) {
      const Index length = std::min<Index>(10, rows - i / 10 * 10);
      const double mean = i % 10 < length / 4 * 4 ? rest.mean[i] : 0;
      return rest.dy(i, j) * (rest.x(i, j) - mean) * rest.rstd[i];
    }) == "the mean not subtracted in dweight in rows 8..9 of every 10 rows");
    Norm first(true, element);
    CHECK(first.cause_of_dweight([&](Index i, Index j) {
      return first.dy(i, j) * (first.x(i, j) - first.mean[i]) * first.rstd[i / 6 * 6];
    }) == "dweight with rstd of the first of each 6 rows");
  }
}

TEST_CASE("partial sums of dweight stored in 16 bits, or read where they are not, are named") {
  constexpr Index each = 6, programs = rows / each, padded = 320;
  for (const DType element : elements) {
    INFO(format_of(element).name);
    Norm norm(true, element);
    std::vector<double> part(programs * padded);
    for (Index i = 0; i < rows; ++i)
      for (Index j = 0; j < width; ++j) part[i / each * padded + j] += norm.dy(i, j) * norm.xhat(i, j);
    Norm narrow = norm, moved = norm;
    narrow.with("dweight", 1, width, [&](Index, Index j) {
      double sum = 0;
      for (Index p = 0; p < programs; ++p) sum += round_to(part[p * padded + j], DType::bfloat16);
      return sum;
    });
    CHECK(narrow.cause_of({"dweight"}) == "dweight from partial sums stored in bfloat16, 6 rows at a time");
    moved.with("dweight", 1, width, [&](Index, Index j) {
      double sum = 0;
      for (Index p = 0; p < programs; ++p) sum += part[p * width + j];
      return sum;
    });
    CHECK(moved.cause_of({"dweight"}) ==
          "partial sums written 320 columns apart and read 300 apart, 6 rows at a time");
  }
}

TEST_CASE("norms of any shape that go wrong are diagnosed") {
  for (const bool is_centred : {false, true}) {
    for (const std::vector<Index>& shape :
         {std::vector<Index>{1, 1}, {1, 40}, {40, 1}, {2, 2}, {3, 33}, {9, 3}, {10, 70}}) {
      for (const double wrong : {7.0, std::nan(""), HUGE_VAL}) {
        NormSetup setup;
        setup.is_centred = setup.has_bias = is_centred;
        setup.has_residual = true;
        setup.shape = shape;
        Case c = norm_dump(setup, {}, true);
        for (auto& [name, tensor] : c.out)
          for (Index at = 0; at < tensor.size(); at += 3) tensor.values[at] += wrong;
        INFO(setup.text());
        CHECK_FALSE(first_cause(c).empty());
      }
    }
  }
}
