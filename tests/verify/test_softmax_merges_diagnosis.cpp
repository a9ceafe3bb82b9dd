// What is said of softmax kernels whose threads and warps merge their maxima and row sums wrongly.
#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "tests/catch.hpp"
#include "tests/emulate/judged.hpp"
#include "tests/emulate/softmax.hpp"

namespace {

using namespace attest;
using namespace attest::emulate;

constexpr Index width = 300, rows = 8, threads = 128, warps = 4;
constexpr DType elements[] = {DType::float16, DType::bfloat16, DType::float32};

double e_to(double x) {
  return std::exp(x);
}
double two_to(double x) {
  return std::exp2(x);
}

struct State {
  double m = -HUGE_VAL, l = 0;
};

State merged(State a, State b) {
  const double m = std::max(a.m, b.m);
  return m == -HUGE_VAL ? a : State{m, a.l * std::exp(a.m - m) + b.l * std::exp(b.m - m)};
}

/// How a block of four warps, whose threads take a column at a time, errs.
struct Faults {
  double (*of_scores)(double) = e_to;
  double (*of_rises)(double) = e_to;
  std::function<State(State own, State other)> in_warps = merged, of_warps = merged;
  Index lost_step = 0, lost_warp = warps;
  bool has_maximum = false;                               // in spite of what is lost
  bool keeps_own_maximum = false, keeps_own_sum = false;  // of each warp, where y is formed
};

/// m, l and lse of a row, and its y.
void plant(Case& c, Index row, const Faults& faults) {
  const double* x = c.in.at("x").values.data() + row * width;
  const double highest = *std::max_element(x, x + width);
  std::vector<State> lanes(threads), of_warp;
  for (Index j = 0; j < width; ++j) {
    State& own = lanes[j % threads];
    const double m = std::max(own.m, x[j]);
    own = {m, (own.l > 0 ? own.l * faults.of_rises(own.m - m) : 0) + faults.of_scores(x[j] - m)};
  }
  for (Index apart = 16; apart > 0; apart /= 2) {
    const std::vector<State> before = lanes;
    for (Index t = 0; apart != faults.lost_step && t < threads; ++t)
      lanes[t] = faults.in_warps(before[t], before[t ^ apart]);
  }
  State all = lanes.front();
  for (Index w = 0; w < warps; ++w) {
    of_warp.push_back(lanes[32 * w]);
    if (w > 0 && w != faults.lost_warp) all = faults.of_warps(all, of_warp[w]);
  }
  if (faults.has_maximum) all = {highest, all.l * std::exp(all.m - highest)};
  const auto own = [&](Index w) {
    return State{faults.keeps_own_maximum ? of_warp[w].m : all.m,
                 faults.keeps_own_sum ? of_warp[w].l : all.l};
  };
  Tensor& y = c.out.at("y");
  for (Index j = 0; j < width; ++j) {
    const State s = own(j % threads / 32);
    y.values[row * width + j] = round_to(faults.of_scores(x[j] - s.m) / s.l, *y.dtype);
  }
  const auto write = [&](const char* output, double value) {
    c.out.at(output).values[row] = round_to(value, DType::float32);
  };
  write("m", own(0).m), write("l", own(0).l), write("lse", own(0).m + std::log(own(0).l));
}

std::string cause_of(DType element, const Faults& faults, const std::vector<std::string>& lacks = {}) {
  SoftmaxSetup setup;
  setup.element = element, setup.outer = rows, setup.n = width;
  // Few scores are large, and rows have no two of the largest.
  Case c = softmax_case(setup, {}, 7, [](Index row, Index j) {
    const double n = 1e4 * std::sin(12.9898 * static_cast<double>(j) + 78.233 * static_cast<double>(row));
    return -std::log(n - std::floor(n) + 1e-6);
  });
  for (Index row = 0; row < rows; ++row) plant(c, row, faults);
  c.out.erase("dx");
  for (const std::string& output : lacks) c.out.erase(output);
  return first_cause(c);
}

}  // namespace

TEST_CASE("merges across lanes, and across warps, that do not rescale are named") {
  const auto added_up = [](State a, State b) { return State{std::max(a.m, b.m), a.l + b.l}; };
  const auto own_is_not = [](State a, State b) {
    const double m = std::max(a.m, b.m);
    return State{m, a.l + b.l * std::exp(b.m - m)};
  };
  for (const DType element : elements) {
    INFO(format_of(element).name);
    CHECK(cause_of(element, {.in_warps = added_up, .of_warps = added_up}) ==
          "row sums of each of 128 threads added up without rescaling to a common maximum, nor those of "
          "warps");
    CHECK(cause_of(element, {.in_warps = own_is_not, .of_warps = own_is_not}) ==
          "row sums of each of 128 threads: in merges of threads and of warps the own sum is not rescaled to "
          "a greater maximum");
    CHECK(cause_of(element, {.of_warps = own_is_not}) ==
          "row sums of each of 4 warps: in merges a warp's own sum is not rescaled to a greater maximum");
  }
}

TEST_CASE("parts that merges leave out of maxima and row sums are named") {
  for (const DType element : elements) {
    INFO(format_of(element).name);
    CHECK(cause_of(element, {.lost_warp = 3}) == "the maximum and the sum of warp 3 of 4 missing");
    CHECK(cause_of(element, {.lost_warp = 3, .has_maximum = true}) ==
          "the part of the row sum of warp 3 of 4 missing");
    // y and lse are those of the right maximum.
    CHECK(cause_of(element, {.lost_warp = 3}, {"m", "l"}) ==
          "the part of the row sum of warp 3 of 4 missing");
    CHECK(cause_of(element, {.lost_step = 8}, {"lse"}) ==
          "maxima and row sums with columns 8..15 of every 16 missing, as without a step of a shuffle");
  }
}

TEST_CASE("maxima and sums of warps in place of those of the row are named") {
  for (const DType element : elements) {
    INFO(format_of(element).name);
    CHECK(cause_of(element, {.keeps_own_maximum = true}) ==
          "where y is formed, the maximum of each warp and the row sum of all, of 4 warps");
    CHECK(cause_of(element, {.keeps_own_maximum = true, .keeps_own_sum = true}) ==
          "where y is formed, the maximum and sum of each warp, not of all, of 4 warps");
    CHECK(cause_of(element, {.keeps_own_maximum = true, .keeps_own_sum = true}, {"lse", "m", "l"}) ==
          "where y is formed, the maximum and sum of each warp, not of all, of 4 warps");
  }
}

TEST_CASE("powers of 2 among powers of e are named where sums of threads are rescaled") {
  const std::string powers = "powers of 2 in place of powers of e ";
  for (const DType element : elements) {
    INFO(format_of(element).name);
    CHECK(cause_of(element, {.of_scores = two_to}) ==
          powers + "but where row sums of each of 128 threads are rescaled");
    CHECK(cause_of(element, {.of_rises = two_to}, {"m", "l"}) ==
          powers + "where maxima rise in row sums of each of 128 threads");
  }
}
