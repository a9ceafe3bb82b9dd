// ref's softmax: its variants against the oracle and each other, merging, gradients, and the exact edges of
// the range in which the maximum may be left out.
#include "ref/softmax.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "tests/catch.hpp"
#include "tests/oracle/softmax.hpp"
#include "tests/support/random.hpp"

namespace {

using namespace attest;
using namespace attest::ref;
using test::Random;

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();
constexpr double u = 0x1p-53;
constexpr Index lengths[] = {1, 2, 3, 7, 8, 9, 16, 17, 100};

View<double, 1> whole(std::vector<double>& x) {
  return {x.data(), {static_cast<Index>(x.size())}};
}
View<const double, 1> whole(const std::vector<double>& x) {
  return {x.data(), {static_cast<Index>(x.size())}};
}

struct Row {
  std::string name;
  std::vector<double> x;
};

/// Rows of n scores of every kind that a softmax may meet.
std::vector<Row> rows_of(Index n, double largest) {
  Random random(static_cast<std::uint64_t>(n));
  std::vector<Row> rows;
  const auto add = [&](const std::string& name, const std::function<double(Index)>& at) {
    Row& row = rows.emplace_back(Row{name, {}});
    for (Index j = 0; j < n; ++j) row.x.push_back(at(j));
  };
  add("random", [&](Index) { return 4 * random.symmetric(); });
  add("large", [&](Index) { return largest * random.symmetric(); });
  add("all equal", [&](Index) { return -0.25; });
  add("ties", [&](Index) { return static_cast<double>(random.below(3)); });
  add("zeros of both signs", [&](Index j) { return j % 2 == 0 ? 0.0 : -0.0; });
  add("subnormal", [&](Index j) { return static_cast<double>(j) * 0x1p-1074; });
  add("rising", [&](Index j) { return 0.5 * static_cast<double>(j); });
  add("falling", [&](Index j) { return -0.5 * static_cast<double>(j); });
  add("some -inf", [&](Index) { return random.one_in(2) ? -infinity : 3 * random.symmetric(); });
  add("-inf but for one", [&](Index j) { return j == n / 2 ? 1.5 : -infinity; });
  add("all -inf", [&](Index) { return -infinity; });
  return rows;
}

/// Rounding errors of any variant, relative to a weight: the difference of two scores (2 roundings of up to
/// `spread`), at most n rescalings of an exp, a product and a sum, and exp within one ulp each.
double relative_error(const std::vector<double>& x) {
  double lowest = infinity, highest = -infinity;
  for (const double s : x) {
    if (s == -infinity) continue;
    lowest = std::min(lowest, s);
    highest = std::max(highest, s);
  }
  if (highest == -infinity) return 0;
  const double spread = highest - lowest + std::max(std::abs(highest), std::abs(lowest));
  const double n = static_cast<double>(x.size());
  return 2 * u * (2 * spread + 5 * n + 8);  // of the numerator and of the sum
}

struct Variant {
  std::string name;
  std::function<SoftmaxState(View<const double, 1>)> state;
};
std::vector<Variant> variants() {
  std::vector<Variant> all = {{"naive", naive_softmax}, {"safe", safe_softmax}, {"online", online_softmax}};
  for (const Index block : {1, 2, 3, 8, 16, 1000})
    all.push_back({"split " + std::to_string(block),
                   [block](View<const double, 1> x) { return split_softmax(x, block); }});
  return all;
}

std::vector<double> weights(const std::vector<double>& x, SoftmaxState state, double empty_row = 0) {
  std::vector<double> y(x.size());
  softmax(whole(x), state, empty_row, whole(y));
  return y;
}

bool same_bits(SoftmaxState a, SoftmaxState b) {
  return a.m == b.m && a.l == b.l;
}

}  // namespace

TEST_CASE("every way to compute softmax is within its rounding errors of the oracle") {
  for (const Index n : lengths) {
    for (const Row& row : rows_of(n, 300)) {
      const oracle::Softmax exact = oracle::softmax(whole(row.x));
      const double error = relative_error(row.x);
      for (const Variant& variant : variants()) {
        INFO(variant.name << ", " << row.name << ", n = " << n);
        const SoftmaxState state = variant.state(whole(row.x));
        const std::vector<double> y = weights(row.x, state);
        for (Index j = 0; j < n; ++j) {
          const auto want = exact.y[j];
          CHECK(std::abs(y[j] - want) <= error * want + 0x1p-1022);
        }
        const double lse = log_sum_exp(state);
        const bool is_close = lse == static_cast<double>(exact.lse) ||
                              std::abs(lse - exact.lse) <= error + 4 * u * std::abs(exact.lse);
        CHECK(is_close);
      }
    }
  }
}

TEST_CASE("scores that overflow exp leave all but the naive softmax unharmed") {
  for (const Index n : lengths) {
    for (const Row& row : rows_of(n, 4000)) {
      const oracle::Softmax exact = oracle::softmax(whole(row.x));
      for (const Variant& variant : variants()) {
        if (variant.name == "naive") continue;
        INFO(variant.name << ", " << row.name << ", n = " << n);
        const std::vector<double> y = weights(row.x, variant.state(whole(row.x)));
        for (Index j = 0; j < n; ++j)
          CHECK(std::abs(y[j] - exact.y[j]) <= relative_error(row.x) * exact.y[j] + 0x1p-1022);
      }
    }
  }
  CHECK(naive_softmax(whole(std::vector{709.7})).l < infinity);
  const std::vector<double> over = {0, 709.8, -3};
  CHECK(naive_softmax(whole(over)).l == infinity);
  const std::vector<double> y = weights(over, naive_softmax(whole(over)));
  CHECK(y[0] == 0);
  CHECK(std::isnan(y[1]));
  CHECK(y[2] == 0);
}

TEST_CASE("partial states merge to the whole in any order and any tree") {
  Random random(7);
  for (const Index n : lengths) {
    for (const Row& row : rows_of(n, 300)) {
      const SoftmaxState whole_row = safe_softmax(whole(row.x));
      const double error = relative_error(row.x);
      for (int repeat = 0; repeat < 8; ++repeat) {
        std::vector<SoftmaxState> states = {empty_softmax};
        for (Index first = 0; first < n;) {
          const Index count = 1 + random.below(n - first);
          states.push_back(safe_softmax(whole(row.x).narrowed(0, first, count)));
          first += count;
        }
        while (states.size() > 1) {  // two of them, anywhere
          const Index a = random.below(static_cast<Index>(states.size()));
          std::swap(states[a], states.back());
          const SoftmaxState last = states.back();
          states.pop_back();
          SoftmaxState& other = states[random.below(static_cast<Index>(states.size()))];
          other = random.one_in(2) ? merge(last, other) : merge(other, last);
        }
        INFO(row.name << ", n = " << n);
        CHECK(states[0].m == whole_row.m);
        CHECK(std::abs(states[0].l - whole_row.l) <= error * whole_row.l);
      }
    }
  }
}

TEST_CASE("merging with a state without weight changes no bit, whatever its maximum is") {
  const SoftmaxState some{1.25, 3.5};
  for (const SoftmaxState empty :
       {empty_softmax, SoftmaxState{0, 0}, SoftmaxState{-5e4, 0}, SoftmaxState{9, 0}}) {
    CHECK(same_bits(merge(some, empty), some));
    CHECK(same_bits(merge(empty, some), some));
    std::vector<double> o = {1, 2}, garbage = {not_a_number, infinity}, other = o;
    CHECK(same_bits(merge(some, whole(o), empty, whole(std::as_const(garbage))), some));
    CHECK(o == other);
    CHECK(same_bits(merge(empty, whole(garbage), some, whole(std::as_const(other))), some));
    CHECK(garbage == other);
  }
  CHECK(log_sum_exp(merge(empty_softmax, empty_softmax)) == -infinity);
  const std::vector<double> absent(3, -infinity);
  for (const Variant& variant : variants()) {
    CHECK(variant.state(whole(absent)).l == 0);
    CHECK(log_sum_exp(variant.state(whole(absent))) == -infinity);
    CHECK(same_bits(merge(some, variant.state(whole(absent))), some));
  }
  CHECK(weights(absent, empty_softmax, 0) == std::vector<double>(3, 0.0));
  CHECK(std::isnan(weights(absent, empty_softmax, not_a_number)[0]));
}

TEST_CASE("weighted values of two parts merge to those of the whole, normalised or not") {
  Random random(5);
  const Index n = 12, width = 3;
  std::vector<double> x(n), v(n * width);
  for (double& s : x) s = random.one_in(4) ? -infinity : 20 * random.symmetric();
  for (double& value : v) value = random.symmetric();
  const auto sums = [&](Index first, Index count, SoftmaxState state) {
    std::vector<double> o(width, 0.0);
    for (Index j = first; j < first + count; ++j) {
      for (Index e = 0; e < width && state.l > 0; ++e) o[e] += std::exp(x[j] - state.m) * v[j * width + e];
    }
    return o;
  };
  const SoftmaxState all = safe_softmax(whole(x));
  const std::vector<double> want = sums(0, n, all);
  for (Index cut = 0; cut <= n; ++cut) {
    SoftmaxState a = safe_softmax(whole(x).narrowed(0, 0, cut));
    SoftmaxState b = safe_softmax(whole(x).narrowed(0, cut, n - cut));
    std::vector<double> o_a = sums(0, cut, a), o_b = sums(cut, n - cut, b);
    std::vector<double> n_a = o_a, n_b = o_b;
    const SoftmaxState both = merge(a, whole(o_a), b, whole(std::as_const(o_b)));
    for (Index e = 0; e < width; ++e) CHECK(std::abs(o_a[e] - want[e]) <= relative_error(x) * all.l);
    CHECK(both.m == all.m);

    // The same as lse and normalised outputs.
    for (Index e = 0; e < width; ++e) n_a[e] /= a.l, n_b[e] /= b.l;
    a = {log_sum_exp(a), a.l > 0 ? 1.0 : 0.0};
    b = {log_sum_exp(b), b.l > 0 ? 1.0 : 0.0};
    const SoftmaxState merged = merge(a, whole(n_a), b, whole(std::as_const(n_b)));
    for (Index e = 0; e < width; ++e)
      CHECK(std::abs(n_a[e] / merged.l - want[e] / all.l) <= 4 * relative_error(x));
    CHECK(std::abs(log_sum_exp(merged) - log_sum_exp(all)) <= 4 * relative_error(x));
  }
}

TEST_CASE("a shift of all scores changes no weight, and lse by the shift") {
  for (const Index n : lengths) {
    for (Row row : rows_of(n, 4)) {
      for (double& s : row.x) s = std::round(s * 1024) / 1024;  // so that shifted scores are exact
      const SoftmaxState state = online_softmax(whole(row.x));
      const std::vector<double> y = weights(row.x, state);
      for (const double shift : {-4096.0, 1.0, 65536.0}) {
        std::vector<double> shifted = row.x;
        for (double& s : shifted) s += shift;
        const SoftmaxState moved = online_softmax(whole(shifted));
        CHECK(weights(shifted, moved) == y);
        CHECK(moved.l == state.l);
        if (state.l > 0) CHECK(moved.m == state.m + shift);
      }
    }
  }
}

TEST_CASE("permuted scores give permuted weights") {
  Random random(3);
  for (const Index n : lengths) {
    for (const Row& row : rows_of(n, 300)) {
      std::vector<Index> order(n);
      for (Index j = 0; j < n; ++j) order[j] = j;
      for (Index j = n - 1; j > 0; --j) std::swap(order[j], order[random.below(j + 1)]);
      std::vector<double> permuted(n);
      for (Index j = 0; j < n; ++j) permuted[j] = row.x[order[j]];
      const std::vector<double> y = weights(row.x, online_softmax(whole(row.x)));
      const std::vector<double> z = weights(permuted, online_softmax(whole(permuted)));
      for (Index j = 0; j < n; ++j)
        CHECK(std::abs(z[j] - y[order[j]]) <= 2 * relative_error(row.x) * y[order[j]] + 0x1p-1022);
    }
  }
}

TEST_CASE("the gradient is that of the oracle and of finite differences") {
  Random random(11);
  for (const Index n : lengths) {
    for (const Row& row : rows_of(n, 30)) {
      std::vector<double> dy(n), dx(n);
      for (double& g : dy) g = random.symmetric();
      const std::vector<double> y = weights(row.x, safe_softmax(whole(row.x)));
      softmax_backward(whole(y), whole(std::as_const(dy)), whole(dx));
      const std::vector<long double> want = oracle::softmax_gradient(whole(row.x), whole(std::as_const(dy)));
      for (Index j = 0; j < n; ++j) {
        // |dy| <= 1: dy - sum is off by the weights' errors and n + 2 roundings.
        const double error = y[j] * (2 * relative_error(row.x) + u * static_cast<double>(n + 6));
        CHECK(std::abs(dx[j] - want[j]) <= 2 * error + 0x1p-1022);
        if (row.x[j] == -infinity) continue;
        const double h = 0x1p-13;
        double difference = 0;
        for (const double sign : {1.0, -1.0}) {
          std::vector<double> moved = row.x;
          moved[j] += sign * h;
          const std::vector<double> z = weights(moved, safe_softmax(whole(moved)));
          for (Index k = 0; k < n; ++k) difference += sign * dy[k] * z[k];
        }
        // Third derivatives of softmax are at most 1 per unit of dy; rounding errors are divided by h.
        const double tolerance =
            h * h / 6 * static_cast<double>(n) + 2 * (relative_error(row.x) + u * static_cast<double>(n)) / h;
        CHECK(std::abs(difference / (2 * h) - dx[j]) <= tolerance);
      }
    }
  }
}

TEST_CASE("scores are clamped, then scaled, then masked; constants have no slope") {
  const std::vector<double> x = {-infinity, -7, 2, 9, infinity, 1}, mask = {1, 1, 1, 1, 1, 0};
  std::vector<double> s(x.size());
  const SoftmaxSpec spec{-2, 5, true, 0};
  softmax_scores(spec, whole(x), whole(mask), whole(s));
  CHECK(s == std::vector<double>{10, 10, -4, -10, -10, -infinity});
  std::vector<double> slopes;
  for (std::size_t j = 0; j < x.size(); ++j) slopes.push_back(softmax_score_slope(spec, x[j], mask[j]));
  CHECK(slopes == std::vector<double>{0, 0, -2, 0, 0, 0});
  softmax_scores({-2, 0, true, 0}, whole(x).narrowed(0, 0, 3), {}, whole(s).narrowed(0, 0, 3));
  CHECK(s[0] == -infinity);
  CHECK(s[1] == 14);
}

TEST_CASE("exp overflows in a format exactly above the edge, for every value of the format") {
  for (const DType dtype : {DType::float16, DType::bfloat16}) {
    const double edge = range_without_maximum(dtype, 1).overflow;
    for (std::uint64_t bits = 0; bits < 0x10000; ++bits) {
      const double x = decode(bits, dtype);
      if (std::isnan(x)) continue;
      const bool is_finite = std::isfinite(round_to(std::exp(x), dtype));
      if (is_finite != (x < edge)) FAIL("exp(" << x << ") in " << format_of(dtype).name);
    }
  }
  // float32: exp(88.72283...) is the last finite one.
  const double edge = range_without_maximum(DType::float32, 1).overflow;
  double last = round_to(edge, DType::float32, Rounding::toward_zero);
  for (int steps = -1000; steps <= 1000; ++steps) {
    const double x = last + steps * ulp(last, DType::float32);
    CHECK(std::isfinite(round_to(std::exp(x), DType::float32)) == (steps <= 0));
  }
  CHECK(static_cast<float>(last) == 88.72283f);
}

TEST_CASE("sums of equal exps overflow above the edge, and inside the range nothing overflows or vanishes") {
  for (const DType dtype : {DType::float16, DType::bfloat16, DType::float32}) {
    const Format& f = format_of(dtype);
    const double unit = unit_roundoff(dtype);
    for (const Index n : {1, 2, 4, 64, 100}) {
      const NaiveRange range = range_without_maximum(dtype, n);
      INFO(f.name << ", n = " << n);
      const double terms = static_cast<double>(n);
      // One rounding, at an exact edge.
      CHECK(std::isfinite(round_to(terms * std::exp(range.overflow - 1e-9), dtype)));
      CHECK(!std::isfinite(round_to(terms * std::exp(range.overflow + 1e-9), dtype)));

      CHECK(range.highest < range.overflow);
      CHECK(range.lowest < 0);
      // The worst exp that the contract allows, added up one after another, and its neighbours in the format.
      const double score = round_to(range.highest, dtype, Rounding::toward_zero);
      double sum = 0;
      for (Index k = 0; k < n; ++k)
        sum = round_to(sum + round_to(std::exp(score), dtype, Rounding::toward_zero) * (1 + 2 * unit), dtype);
      CHECK(std::isfinite(sum));
      CHECK(1 / sum >= std::ldexp(1.0, f.emin));
      CHECK(std::exp(range.lowest) * (1 - 4 * unit) >= std::ldexp(1.0, f.emin) * (1 - 1e-12));
      CHECK(std::exp(range.lowest - 1e-3) * (1 - 4 * unit) < std::ldexp(1.0, f.emin));
    }
  }
  CHECK(range_without_maximum(DType::float16, 2048).highest == -infinity);  // no bound for such sums
  CHECK(range_without_maximum(DType::float32, 2048).highest > 79);
}

TEST_CASE("what may be left out is found from the scores") {
  const SoftmaxSpec plain{1, 0, true, 0}, detector{1, 50000, true, 0};
  const auto maximum = [&](const std::vector<double>& x, DType dtype) {
    return omissible(plain, whole(x), {}, dtype).maximum;
  };
  CHECK(maximum({1, 2, 3}, DType::float16));
  CHECK(maximum({1, 2, 85}, DType::float32));
  CHECK(!maximum({1, 2, 89}, DType::float32));
  CHECK(!maximum({1, 2, 9.5}, DType::float16));
  CHECK(!maximum({-90, -95}, DType::float32));  // their sum is no normal number
  CHECK(maximum({0, -95}, DType::float32));     // underflows just as it would after the subtraction
  CHECK(maximum({-80, -300}, DType::float32));
  CHECK(maximum({-infinity, 1}, DType::float32));
  CHECK(maximum({-infinity, -infinity}, DType::float32));

  const auto clamp = [&](const std::vector<double>& x) {
    return omissible(detector, whole(x), {}, DType::float32).clamp;
  };
  CHECK(clamp({-50000, 3, 50000}));
  CHECK(clamp({-60000, 3, -infinity}));  // no weight, with or without
  CHECK(!clamp({-60000, -50010}));       // a tie with the clamp
  CHECK(!clamp({60000, 50010, 0}));
  CHECK(clamp({60000, 0}));      // all weight, with or without
  CHECK(!clamp({infinity, 0}));  // NaN without
  const std::vector<double> mask = {0, 1};
  CHECK(omissible(detector, whole(std::vector<double>{60000, 1}), whole(mask), DType::float32).clamp);
}
