// What is said of norms that fail: each planted fault has its name, and not another's.
#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "tests/catch.hpp"
#include "tests/emulate/judged.hpp"
#include "tests/emulate/norm.hpp"

namespace {

using namespace attest;
using namespace attest::emulate;
using Mistakes = NormKernel::Mistakes;

NormSetup setup_of(bool is_centred, DType element) {
  NormSetup setup;
  setup.is_centred = is_centred;
  setup.element = setup.weight = element;
  setup.shape = {96, 200};
  setup.has_bias = is_centred;
  return setup;
}

struct NamedFault {
  void (*plant)(Mistakes& m);
  const char *of_layer_norm, *of_rms_norm;
  DType element = DType::bfloat16;
  NormValues values = NormValues::normal;
};

const NamedFault named_faults[] = {
    {[](Mistakes& m) { m.eps_outside = true; }, "eps outside the root", "eps outside the root",
     DType::bfloat16, NormValues::small},
    {[](Mistakes& m) { m.over_n_minus_1 = true; }, "a mean square over N - 1", "a mean square over N - 1"},
    {[](Mistakes& m) { m.over_padded_width = true; }, "mean and variance over a padded width of 224",
     "mean square over a padded width of 224"},
    {[](Mistakes& m) { m.squares_in_element = true; }, "squares in float16", "squares in float16",
     DType::float16},
    {[](Mistakes& m) { m.rstd_in_bfloat16 = true; }, "rstd in bfloat16", "rstd in bfloat16"},
    {[](Mistakes& m) { m.rstd_in_bfloat16 = true; }, "rstd in bfloat16", "rstd in bfloat16", DType::float16},
    {[](Mistakes& m) { m.rstd_in_bfloat16 = true; }, "rstd in bfloat16", "rstd in bfloat16", DType::float32},
    {[](Mistakes& m) { m.casts = true; },
     "the normalised x, before the weight, in bfloat16: spec key cast_before_weight",
     "the normalised x, before the weight, in bfloat16: spec key cast_before_weight"},
    {[](Mistakes& m) { m.no_weight = true; }, "no weight", "no weight"},
    {[](Mistakes& m) { m.output_dtype = DType::float16; }, "y stored in float16 on the way",
     "y stored in float16 on the way", DType::float32},
    {[](Mistakes& m) { m.output_dtype = DType::float16; }, "y stored in float16 on the way",
     "y stored in float16 on the way"},
    {[](Mistakes& m) { m.no_mean_of_gx = true; }, "dx without the mean of dy weight xhat",
     "dx without the mean of dy weight xhat"},
    {[](Mistakes& m) { m.no_weight_in_means = true; }, "the mean of dy weight xhat without the weight",
     "the mean of dy weight xhat without the weight"},
    {[](Mistakes& m) { m.dweight_dtype = DType::bfloat16; }, "dbias added up in bfloat16, 4 rows at a time",
     "dweight added up in bfloat16, 4 rows at a time"},
    {[](Mistakes& m) { m.dweight_loses_a_row = true; }, "row 32 missing in dweight",
     "row 32 missing in dweight"},
    {[](Mistakes& m) { m.statistics_of_row_before = true; }, "mean and rstd of the row before",
     "rstd of the row before"},
};

}  // namespace

TEST_CASE("the faults of a norm have names") {
  for (const NamedFault& fault : named_faults) {
    for (const bool is_centred : {false, true}) {
      NormSetup setup = setup_of(is_centred, fault.element);
      setup.values = fault.values;
      NormKernel kernel;
      fault.plant(kernel.mistakes);
      INFO(setup.text());
      CHECK(first_cause(norm_dump(setup, kernel, true)) ==
            std::string(is_centred ? fault.of_layer_norm : fault.of_rms_norm));
    }
  }
}

TEST_CASE("another eps is named by its value, wherever it can be told") {
  for (const DType element : {DType::float16, DType::bfloat16, DType::float32}) {
    for (const auto& [eps, name] : {std::pair{1e-3, "eps = 0.001"}, std::pair{1e-6, "eps = 1e-06"},
                                    std::pair{1e-8, "eps = 1e-08"}, std::pair{0x1p-23, "eps = 1.19e-07"}}) {
      NormSetup setup = setup_of(true, element);
      setup.values = NormValues::small;
      setup.eps = eps;
      Case c = norm_dump(setup, {}, true);
      c.spec["eps"] = 1e-5;
      CHECK(first_cause(c) == name);
    }
  }
}

TEST_CASE("a residual sum that is rounded against its declaration is named") {
  for (const bool rounds : {false, true}) {
    NormSetup setup = setup_of(true, DType::bfloat16);
    setup.has_residual = true;
    setup.rounds_sum = rounds;
    NormKernel kernel;
    kernel.mistakes.other_rounding_of_sum = true;
    CHECK(
        first_cause(norm_dump(setup, kernel, true)) ==
        (rounds ? "x + residual not rounded: round_sum = false" : "x + residual rounded: round_sum = true"));
  }
}

TEST_CASE("rows that dweight has lost or counts twice are named, and so are those of dbias") {
  for (const auto& [factor, what] : {std::pair{-1.0, "missing"}, std::pair{1.0, "twice"}}) {
    Case c = norm_dump(setup_of(true, DType::float32), {}, true);
    for (Index j = 0; j < 200; ++j) {
      for (Index i = 16; i < 48; ++i)
        c.out.at("dbias").values[j] += factor * c.in.at("dy").values[i * 200 + j];
      c.out.at("dbias").values[j] = round_to(c.out.at("dbias").values[j], DType::float32);
    }
    CHECK(first_cause(c) == "rows 16..47 " + std::string(what) + " in dbias");
  }
}

TEST_CASE("a sum that fails in a way without a name is at least a place") {
  Case c = norm_dump(setup_of(false, DType::float32), {}, true);
  for (Index j = 0; j < 200; ++j) c.out.at("dweight").values[j] *= j % 3 == 0 ? 1.01 : 0.98;
  CHECK(first_cause(c) == "the sum over rows that dweight is");
}

TEST_CASE(
    "a sum along a row that fails in a way without a name is a place, with rstd in the dump and without") {
  for (const bool has_rstd : {true, false}) {
    NormSetup setup = setup_of(false, DType::float16);
    setup.values = NormValues::large;
    Case c = norm_dump(setup, {}, false);
    Tensor &y = c.out.at("y"), &rstd = c.out.at("rstd");
    const Index width = y.size() / rstd.size();
    for (Index n = 0; n < y.size(); ++n) {
      const Index row = n / width;
      const double factor = row % 3 == 0 ? 1.01 : row % 5 == 0 ? 0.98 : 0.995;
      y.values[n] = round_to(factor * y.values[n], DType::float16);
      if (n % width == 0) rstd.values[row] = round_to(factor * rstd.values[row], DType::float32);
    }
    if (!has_rstd) c.out.erase("rstd");
    CHECK(first_cause(c) == "rstd, or the mean square that it is made of");
  }
}

TEST_CASE("few wrong elements do not look like the arithmetic of a whole kernel") {
  for (const DType element : {DType::float16, DType::bfloat16, DType::float32}) {
    for (const int sign : {1, -1}) {
      Case c = norm_dump(setup_of(true, element), {}, true);
      Tensor& y = c.out.at("y");
      for (const Index at : {7, 207, 5303})
        y.values[at] += sign * (element == DType::float32 ? 200 : 2) * ulp(y.values[at], element);
      INFO(format_of(element).name << " " << sign);
      CHECK(first_cause(c) == "none");
    }
  }
}

namespace {

/// y of a layer_norm in double, stored once; statistics and columns as a faulty kernel has them.
struct RightNorm {
  Case c;
  Index rows, width;
  std::vector<double> mean, variance;

  explicit RightNorm(DType element, NormValues values = NormValues::normal) {
    NormSetup setup = setup_of(true, element);
    setup.values = values;
    c = norm_dump(setup, {}, false);
    rows = 96, width = 200;
    for (Index i = 0; i < rows; ++i) {
      double sum = 0, squares = 0;
      for (Index j = 0; j < width; ++j) sum += x(i, j);
      for (Index j = 0; j < width; ++j) squares += std::pow(x(i, j) - sum / 200, 2);
      mean.push_back(sum / 200), variance.push_back(squares / 200);
    }
  }
  double x(Index i, Index j) const { return c.in.at("x").values[i * width + j]; }
  /// y alone, with variances v[rows] and the bias of column of_bias(j).
  template <class Column>
  std::string cause(const std::vector<double>& v, Column of_bias) {
    Tensor& y = c.out.at("y");
    for (Index i = 0; i < rows; ++i) {
      for (Index j = 0; j < width; ++j) {
        const double h = (x(i, j) - mean[i]) / std::sqrt(v[i] + 1e-5);
        y.values[i * width + j] =
            round_to(h * c.in.at("weight").values[j] + c.in.at("bias").values[of_bias(j)], *y.dtype);
      }
    }
    c.out = {{"y", y}};
    return first_cause(c);
  }
};

constexpr auto own = [](Index j) { return j; };

}  // namespace

TEST_CASE("norms with the bias of other columns or the variance of other rows are named") {
  for (const DType element : {DType::float16, DType::bfloat16, DType::float32}) {
    INFO(format_of(element).name);
    RightNorm norm(element);
    CHECK(norm.cause(norm.variance, [](Index j) { return j < 128 ? j : j - 128; }) ==
          "bias of column c - 128");
    std::vector<double> shared = norm.variance;
    for (Index i = 0; i < 96; ++i) {
      shared[i] = 0;
      for (Index n = i / 4 * 4; n < i / 4 * 4 + 4; ++n) shared[i] += norm.variance[n] / 4;
    }
    RightNorm of_tile(element);
    CHECK(of_tile.cause(shared, own) == "rstd of the mean variance of each 4 rows");
    std::vector<double> lost = norm.variance;
    for (Index i = 0; i < 96; ++i) lost[i] -= std::pow(norm.x(i, 3) - norm.mean[i], 2) / 200;
    RightNorm of_lost(element);
    CHECK(of_lost.cause(lost, own) == "column 3 missing in the variance");
  }
}

TEST_CASE("squares that each thread of a norm adds up in 16 bits are named") {
  for (const DType element : {DType::float16, DType::bfloat16, DType::float32}) {
    RightNorm norm(element);
    std::vector<double> v(96);
    for (Index i = 0; i < 96; ++i) {
      for (Index lane = 0; lane < 32; ++lane) {
        double sum = 0;
        for (Index j = lane; j < 200; j += 32)
          sum = round_to(sum + std::pow(norm.x(i, j) - norm.mean[i], 2), DType::bfloat16);
        v[i] += sum / 200;
      }
    }
    INFO(format_of(element).name);
    CHECK(norm.cause(v, own) == "the sum of squares of each of 32 threads in bfloat16");
  }
}
