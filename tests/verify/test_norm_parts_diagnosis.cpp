// What is said of norms whose statistics lack the parts of threads or warps, or round them, of weights of
// columns further on, of the mean that dx subtracts, and of an approximate rsqrt, which is no other eps.
#include <bit>
#include <cmath>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "tests/catch.hpp"
#include "tests/emulate/judged.hpp"
#include "tests/emulate/norm.hpp"

namespace {

using namespace attest;
using namespace attest::emulate;

constexpr Index rows = 16, width = 300;
constexpr double eps = 1e-5;
constexpr DType elements[] = {DType::float16, DType::float32};

Case dump(bool is_centred, DType element, bool with_gradients = false) {
  NormSetup setup;
  setup.is_centred = setup.has_bias = is_centred;
  setup.element = setup.weight = element;
  setup.shape = {rows, width};
  return norm_dump(setup, {}, with_gradients);
}

double in(const Case& c, const char* name, Index at) {
  return c.in.contains(name) ? c.in.at(name).values[at] : 0;
}

using ColumnsOf = std::function<bool(Index j)>;

bool all_columns(Index) {
  return true;
}

/// How a kernel goes about a row.
struct Faults {
  ColumnsOf in_mean = all_columns, in_variance = all_columns, are_read = all_columns;
  std::function<double(double variance)> rstd_of = [](double v) { return 1 / std::sqrt(v + eps); };
  DType sums_of_threads = DType::float64;  // of x, of 128 threads
  Index weight_from = 0;                   // columns further on
};

std::string cause_of(Case c, const Faults& faults) {
  const bool is_centred = c.out.contains("mean");
  for (Index i = 0; i < rows; ++i) {
    const auto x = [&](Index j) { return faults.are_read(j) ? in(c, "x", i * width + j) : 0; };
    double mean = 0, variance = 0;
    for (Index thread = 0; is_centred && thread < 128; ++thread) {
      double sum = 0;
      for (Index j = thread; j < width; j += 128)
        if (faults.in_mean(j)) sum = round_to(sum + x(j), faults.sums_of_threads);
      mean += sum / width;
    }
    for (Index j = 0; j < width; ++j)
      if (faults.in_variance(j)) variance += (x(j) - mean) * (x(j) - mean) / width;
    const double rstd = faults.rstd_of(variance);
    for (Index j = 0; j < width; ++j) {
      const double weight = in(c, "weight", (j + faults.weight_from) % width), bias = in(c, "bias", j);
      Tensor& y = c.out.at("y");
      y.values[i * width + j] = round_to((x(j) - mean) * rstd * weight + bias, *y.dtype);
    }
    c.out.at("rstd").values[i] = round_to(rstd, DType::float32);
    if (is_centred) c.out.at("mean").values[i] = round_to(mean, DType::float32);
  }
  return first_cause(c);
}

}  // namespace

TEST_CASE("parts of threads and warps that mean and variance lack are named") {
  for (const DType element : elements) {
    const Case centred = dump(true, element), other = dump(false, element);
    INFO(format_of(element).name);
    const ColumnsOf even = [](Index j) { return j % 2 == 0; };
    const std::string step = "column 1 of every 2 missing in ", shuffle = ", as without a step of a shuffle";
    CHECK(cause_of(centred, {.in_mean = even, .in_variance = even}) == step + "mean and variance" + shuffle);
    CHECK(cause_of(other, {.in_variance = even}) == step + "the mean square" + shuffle);
    const ColumnsOf three_warps = [](Index j) { return j % 128 < 96; };
    CHECK(cause_of(centred, {.in_mean = three_warps, .in_variance = three_warps}) ==
          "warp 3 of 4 missing in mean and variance");
    CHECK(cause_of(centred, {.in_mean = three_warps}) == "warp 3 of 4 missing in the mean");
  }
}

TEST_CASE("a tail that a LayerNorm does not add up, or reads as 0, is named") {
  const ColumnsOf head = [](Index j) { return j < 296; };
  for (const DType element : elements) {
    const Case right = dump(true, element);
    INFO(format_of(element).name);
    CHECK(cause_of(right, {.in_mean = head, .in_variance = head}) ==
          "columns from 296 on missing in mean and variance");
    CHECK(cause_of(right, {.are_read = head}) == "columns from 296 on read as 0");
  }
}

TEST_CASE("sums of x of the threads of a LayerNorm in a narrow format are named") {
  for (const DType element : elements) {
    const Case right = dump(true, element);
    for (const DType narrow : {DType::float16, DType::bfloat16}) {
      INFO(format_of(element).name);
      CHECK(cause_of(right, {.sums_of_threads = narrow}) ==
            "the sum of x of each of 128 threads in " + std::string(format_of(narrow).name));
    }
  }
}

TEST_CASE("weights of columns a vector further on are named") {
  for (const bool is_centred : {false, true})
    for (const Index by : {2, 8})
      CHECK(cause_of(dump(is_centred, DType::float16), {.weight_from = by}) ==
            "weight of column c + " + std::to_string(by));
}

TEST_CASE("an approximate rsqrt is not taken for another eps") {
  for (const DType element : elements) {
    for (const bool is_centred : {false, true}) {
      const Faults approximate = {.rstd_of = [](double variance) {
        const float v = static_cast<float>(variance + eps);
        float r = std::bit_cast<float>(0x5f3759dfu - (std::bit_cast<std::uint32_t>(v) >> 1));
        for (int step = 0; step < 2; ++step) r = r * (1.5f - 0.5f * v * r * r);
        return static_cast<double>(r);
      }};
      INFO(format_of(element).name << " " << is_centred);
      CHECK(cause_of(dump(is_centred, element), approximate) ==
            (is_centred ? "rstd, or the variance that it is made of"
                        : "rstd, or the mean square that it is made of"));
    }
  }
}

TEST_CASE("sums for means in dx, and means that are added to it, are named") {
  for (const bool is_centred : {false, true}) {
    const Case right = dump(is_centred, DType::float16, true);
    INFO(is_centred);
    // Of dy weight, and of dy weight xhat.
    const auto cause_with = [&](double of_g, double of_gx) {
      Case c = right;
      Tensor& dx = c.out.at("dx");
      for (Index i = 0; i < rows; ++i) {
        const double rstd = c.out.at("rstd").values[i], mean = is_centred ? c.out.at("mean").values[i] : 0;
        const auto g = [&](Index j) { return in(c, "dy", i * width + j) * in(c, "weight", j); };
        const auto xhat = [&](Index j) { return (in(c, "x", i * width + j) - mean) * rstd; };
        double mean_g = 0, mean_gx = 0;
        for (Index j = 0; j < width; ++j) mean_g += g(j) / width, mean_gx += g(j) * xhat(j) / width;
        if (!is_centred) mean_g = 0;
        for (Index j = 0; j < width; ++j)
          dx.values[i * width + j] =
              round_to(rstd * (g(j) - of_g * mean_g - of_gx * xhat(j) * mean_gx), *dx.dtype);
      }
      return first_cause(c);
    };
    CHECK(cause_with(1, width) == "dx with the sum of dy weight xhat, not its mean");
    CHECK(cause_with(1, -1) == "dx with the mean of dy weight xhat added, not subtracted");
    if (!is_centred) continue;
    CHECK(cause_with(-1, -1) == "dx with both means added, not subtracted");
    CHECK(cause_with(width, 1) == "dx with the sum of dy weight, not its mean");
  }
}
