// How others decide that a tensor is right, for comparison.
#include "tests/faults/rules.hpp"

#include <algorithm>
#include <cmath>

namespace attest::faults {
namespace {

bool all_close(const Judged& t, double relative, double absolute) {
  for (std::size_t n = 0; n < t.got.size(); ++n) {
    const double got = t.got[n], want = t.want[n];
    if (got == want) continue;  // infinities too
    if (!(std::abs(got - want) <= absolute + relative * std::abs(want)) || std::isinf(want)) return false;
  }
  return true;
}

bool fails_assert_close(const Judged& t) {
  const double relative = t.dtype == DType::float16 ? 1e-3 : t.dtype == DType::bfloat16 ? 1.6e-2 : 1.3e-6;
  return !all_close(t, relative, 1e-5);
}

bool fails_all_close(const Judged& t) {
  return !all_close(t, 1e-2, 1e-2);
}

/// Sums over elements; infinities that are where they belong are left out. NaN makes them NaN.
struct Sums {
  double gg = 0, gw = 0, ww = 0, squared_error = 0;

  explicit Sums(const Judged& t) {
    for (std::size_t n = 0; n < t.got.size(); ++n) {
      const double got = t.got[n], want = t.want[n];
      if (std::isinf(want) && got == want) continue;
      gg += got * got, gw += got * want, ww += want * want;
      squared_error += (got - want) * (got - want);
    }
  }
};

bool fails_cosine(const Judged& t) {
  const Sums s(t);
  return s.ww > 0 && !(s.gw / std::sqrt(s.gg * s.ww) > 0.999);
}

bool fails_nmse(const Judged& t) {
  const Sums s(t);
  return s.ww > 0 && !(s.squared_error / s.ww < 5e-4);
}

bool fails_twice_plain(const Judged& t) {
  if (t.output == "lse") return false;
  const auto largest_error = [&](std::span<const double> x) {
    double largest = 0;
    for (std::size_t n = 0; n < x.size(); ++n) {
      const double error = std::abs(x[n] - t.want[n]);
      if (!(error <= largest)) largest = error;
      if (std::isnan(largest)) break;
    }
    return largest;
  };
  const double factor = t.output == "o" ? 2 : 3;
  return !(largest_error(t.got) <= factor * largest_error(t.plain) + 1e-5);
}

}  // namespace

const std::array<Rule, rule_count>& other_rules() {
  static constexpr std::array<Rule, rule_count> rules = {{{"assert_close", fails_assert_close},
                                                          {"1e-2", fails_all_close},
                                                          {"cosine", fails_cosine},
                                                          {"NMSE", fails_nmse},
                                                          {"2x plain", fails_twice_plain}}};
  return rules;
}

}  // namespace attest::faults
