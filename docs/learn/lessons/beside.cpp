// What stands beside attention: rotary embeddings and RMSNorm.
#include <cmath>

#include "docs/learn/lessons/lessons.hpp"
#include "ref/norm.hpp"
#include "ref/rope.hpp"

namespace attest::lessons {
namespace {

constexpr RopeSpec rope{RopeStyle::half, 4};

/// x turned to a position.
Array<double, 3> turned(const Array<double, 3>& x, double position) {
  std::array<long double, 2> inv_freq{};
  const View<long double, 1> frequencies(inv_freq.data(), {2});
  ref::rope_inverse_frequencies({.theta = 10000}, 4, AngleRule::exact, frequencies);
  Array<double, 2> cos({1, 2}), sin = cos;
  ref::rope_table({inv_freq.data(), {2}}, AngleRule::exact, 1, {&position, {1}}, cos.view(), sin.view());
  Array<double, 3> y({1, 1, 4});
  ref::rope_forward(rope, x.view(), cos.view(), sin.view(), y.view());
  return y;
}

double dot(const Array<double, 3>& a, const Array<double, 3>& b) {
  double sum = 0;
  for (Index n = 0; n < a.size(); ++n) sum += a.data()[n] * b.data()[n];
  return sum;
}

}  // namespace

void rope_and_rmsnorm(Numbers& numbers) {
  const Array<double, 3> q = head_of({{1, 2, 3, 4}}), k = head_of({{2, 0, -1, 1}});
  std::string& text = numbers["rope_and_rmsnorm.rope"];
  print(text, "q = (1, 2, 3, 4), k = (2, 0, -1, 1), pairs (0, 2) and (1, 3), theta = 10000\n");
  print(text, "    i     j   i - j        q . k    |q| after the turn\n");
  for (const auto& [i, j] : {std::pair(0.0, 0.0), {5.0, 3.0}, {105.0, 103.0}, {3.0, 5.0}, {105.0, 3.0}}) {
    const Array<double, 3> a = turned(q, i), b = turned(k, j);
    print(text, "%5g %5g %7g %12.6f %14.6f\n", i, j, i - j, dot(a, b), std::sqrt(dot(a, a)));
  }

  std::string& angles = numbers["rope_and_rmsnorm.exercise_angles"];
  for (const double position : {1e3, 1e5, 1e6}) {
    std::array<long double, 64> inv_freq{};
    Array<double, 2> sin[2];
    int rule = 0;
    for (const AngleRule r : {AngleRule::exact, AngleRule::float32}) {
      ref::rope_inverse_frequencies({.theta = 10000}, 128, r, {inv_freq.data(), {64}});
      sin[rule] = Array<double, 2>({1, 64});
      Array<double, 2> cos({1, 64});
      ref::rope_table({inv_freq.data(), {64}}, r, 1, {&position, {1}}, cos.view(), sin[rule].view());
      ++rule;
    }
    double worst = 0;
    for (Index d = 0; d < 64; ++d) worst = std::max(worst, std::abs(sin[0](0, d) - sin[1](0, d)));
    print(angles, "position %7g, R = 128: sines of float32 angles are off by up to %.1e\n", position, worst);
  }

  std::string& norm = numbers["rope_and_rmsnorm.norm"];
  const NormSpec spec{false, 0, 0, {}};
  for (const double factor : {1.0, 10.0}) {
    Array<double, 2> x({1, 4}), dy({1, 4}), y = x, dx = x;
    Array<double, 1> rstd({1});
    for (Index j = 0; j < 4; ++j) x(0, j) = factor * static_cast<double>(j + 1), dy(0, j) = j == 0 ? 1 : 0;
    ref::norm(spec, {x.view(), {}, {}}, dy.view(), {y.view(), {}, rstd.view(), dx.view(), {}, {}});
    print(norm, "x = %g (1, 2, 3, 4), rstd = %.6f\n", factor, rstd(0));
    print_row(norm, "y", y.view().slice(0));
    print_row(norm, "dx, dy = e_0", dx.view().slice(0));
    double along = 0;
    for (Index j = 0; j < 4; ++j) along += dx(0, j) * x(0, j);
    print(norm, "dx . x = %.6f\n", std::abs(along) < 1e-12 ? 0.0 : along);
  }

  std::string& eps = numbers["rope_and_rmsnorm.exercise_eps"];
  for (const double size : {1.0, 1e-2, 1e-4}) {
    Array<double, 1> x({4}, size);
    const ref::NormStats stats = ref::norm_stats({false, 1e-6, 0, {}}, x.view());
    print(eps, "all x = %-6g: y = %.6f with eps = 1e-6\n", size, size * stats.rstd);
  }
}

}  // namespace attest::lessons
