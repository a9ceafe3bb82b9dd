// Softmax: what overflows, how states merge, and the running maximum.
#include <cmath>

#include "core/dtype.hpp"
#include "docs/learn/lessons/lessons.hpp"
#include "ref/softmax.hpp"
#include "tests/support/random.hpp"

namespace attest::lessons {
namespace {

double half(double x) {
  return round_to(x, DType::float16);
}

/// exp, sum and quotient, each rounded to float16.
void softmax_in_half(std::string& text, const char* label, const std::vector<double>& x, double m) {
  double l = 0;
  std::vector<double> p;
  for (const double score : x) {
    p.push_back(half(std::exp(score - m)));
    l = half(l + p.back());
  }
  print(text, "%-9s", label);
  for (const double e : p) print(text, " %9.4g", e);
  print(text, "  l = %5.4g  p =", l);
  for (const double e : p) {
    const double quotient = half(e / l);
    if (std::isnan(quotient)) {
      text += "     nan";  // without the sign, which differs between processors
    } else {
      print(text, " %7.5f", quotient);
    }
  }
  text += "\n";
}

/// A state and its weighted sum of values.
struct Sum {
  ref::SoftmaxState state;
  double o;
};

Sum sum_of(const Row& row, Index first, Index count) {
  const ref::SoftmaxState state = ref::safe_softmax(row.scores().narrowed(0, first, count));
  double o = 0;
  for (Index j = first; j < first + count; ++j) o += std::exp(row.x[j] - state.m) * row.v[j];
  return {state, o};
}

Sum merged(Sum a, Sum b) {
  const ref::SoftmaxState state =
      ref::merge(a.state, View<double, 1>(&a.o, {1}), b.state, View<double, 1>(&b.o, {1}));
  return {state, a.o};
}

void print_sum(std::string& text, const char* label, Sum x) {
  print(text, "%-20s m = %g  l = %.4f  o = %7.4f", label, x.state.m, x.state.l, x.o);
  print(text, "  o/l = %.4f  lse = %.4f\n", x.o / x.state.l, ref::log_sum_exp(x.state));
}

}  // namespace

void safe_softmax(Numbers& numbers) {
  std::string& text = numbers["safe_softmax.example"];
  const std::vector<double> x{10, 12, 11};
  print(text, "float16, x = (10, 12, 11)\n");
  softmax_in_half(text, "e^x", x, 0);
  softmax_in_half(text, "e^(x-12)", x, 12);

  std::string& range = numbers["safe_softmax.range"];
  print(range, "scores that need no maximum, and where a sum overflows\n");
  print(range, "%-9s %6s %10s %10s %10s\n", "format", "N", "lowest", "highest", "overflow");
  for (const DType dtype : {DType::float16, DType::bfloat16, DType::float32, DType::float64}) {
    for (const Index n : {1, 64, 4096}) {
      const ref::NaiveRange r = ref::range_without_maximum(dtype, n);
      print(range, "%-9s %6td %10.3f %10.3f %10.3f\n", std::string(format_of(dtype).name).c_str(), n,
            r.lowest, r.highest, r.overflow);
    }
  }

  std::string& shift = numbers["safe_softmax.exercise_shift"];
  for (const double c : {0.0, 1000.0, -1000.0}) {
    const std::array<double, 3> shifted{x[0] + c, x[1] + c, x[2] + c};
    std::array<double, 3> y{};
    const View<const double, 1> row(shifted.data(), {3});
    const ref::SoftmaxState state = ref::safe_softmax(row);
    ref::softmax(row, state, 0, View<double, 1>(y.data(), {3}));
    print(shift, "c = %5g: m = %5g  l = %.5f  p = %.5f %.5f %.5f  naive l = %g\n", c, state.m, state.l, y[0],
          y[1], y[2], ref::naive_softmax(row).l);
  }
}

void split_softmax(Numbers& numbers) {
  const Row row;
  const Sum a = sum_of(row, 0, 2), b = sum_of(row, 2, 2);
  std::string& text = numbers["split_softmax.example"];
  print(text, "x = (1, 3, 2, 5), v = (10, 20, 30, 40)\n");
  print_sum(text, "a: keys 0 and 1", a);
  print_sum(text, "b: keys 2 and 3", b);
  print_sum(text, "merge(a,b)", merged(a, b));
  print_sum(text, "merge(b,a)", merged(b, a));
  print_sum(text, "all four at once", sum_of(row, 0, 4));

  const Sum x = sum_of(row, 0, 1), y = sum_of(row, 1, 2), z = sum_of(row, 3, 1);
  std::string& orders = numbers["split_softmax.orders"];
  print_sum(orders, "merge(merge(x,y),z)", merged(merged(x, y), z));
  print_sum(orders, "merge(x,merge(y,z))", merged(x, merged(y, z)));
  print_sum(orders, "merge(merge(z,x),y)", merged(merged(z, x), y));
  print_sum(orders, "merge(x,nothing)", merged(x, {ref::empty_softmax, NAN}));

  const ref::SoftmaxState by_hand = ref::merge({2, 3}, {0, 5});
  print(numbers["split_softmax.exercise_merge"], "merge((2, 3), (0, 5)) = (%g, %.6f), lse = %.6f\n",
        by_hand.m, by_hand.l, ref::log_sum_exp(by_hand));
  const Sum normalised = merged({{ref::log_sum_exp(a.state), 1}, a.o / a.state.l},
                                {{ref::log_sum_exp(b.state), 1}, b.o / b.state.l});
  std::string& normal = numbers["split_softmax.exercise_lse"];
  print(normal, "merge((lse_a, 1, o_a / l_a), (lse_b, 1, o_b / l_b)):\nm = %.6f   l = %.6f   o = %.6f\n",
        normalised.state.m, normalised.state.l, normalised.o);
  print(normal, "o / l = %.6f   lse = m + ln l = %.6f\n", normalised.o / normalised.state.l,
        ref::log_sum_exp(normalised.state));
}

void online_softmax(Numbers& numbers) {
  const Row row;
  std::string& text = numbers["online_softmax.example"];
  print(text, "j   x    v   m_j   e^(m_old - m_j)   e^(x - m_j)        l_j          o_j\n");
  double m = -INFINITY, l = 0, o = 0;
  for (Index j = 0; j < 4; ++j) {
    const double grown = std::max(m, row.x[j]), factor = std::exp(m - grown), p = std::exp(row.x[j] - grown);
    l = l * factor + p;
    o = o * factor + p * row.v[j];
    m = grown;
    print(text, "%td   %g   %g     %g   %15.6f   %11.6f   %8.6f   %10.6f\n", j, row.x[j], row.v[j], m, factor,
          p, l, o);
  }
  const ref::SoftmaxState state = ref::online_softmax(row.scores());
  print(text, "\no / l = %.6f   lse = %.6f\n", o / l, ref::log_sum_exp(state));

  std::string& moves = numbers["online_softmax.exercise_moves"];
  test::Random random(1);
  constexpr int rows = 2000;
  for (const Index n : {16, 256, 4096}) {
    Index changes = 0;
    for (int r = 0; r < rows; ++r) {
      double largest = -2;
      for (Index j = 0; j < n; ++j) {
        const double x = random.symmetric();
        if (x > largest) largest = x, ++changes;
      }
    }
    double harmonic = 0;
    for (Index j = 1; j <= n; ++j) harmonic += 1 / static_cast<double>(j);
    print(moves, "N = %4td: the maximum moves %.2f times; 1 + 1/2 + ... + 1/N = %.2f\n", n,
          static_cast<double>(changes) / rows, harmonic);
  }
  std::string& ascending = numbers["online_softmax.exercise_ascending"];
  for (const bool is_ascending : {true, false}) {
    std::array<double, 4> x =
        is_ascending ? std::array<double, 4>{1, 2, 3, 5} : std::array<double, 4>{5, 3, 2, 1};
    const ref::SoftmaxState s = ref::online_softmax(View<const double, 1>(x.data(), {4}));
    print(ascending, "x = (%g, %g, %g, %g): m = %g  l = %.6f\n", x[0], x[1], x[2], x[3], s.m, s.l);
  }
}

}  // namespace attest::lessons
