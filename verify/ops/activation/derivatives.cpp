// Derivatives of activations with a factor wrong or missing: f(x) = x g(x), so that f' has two terms, g and
// x g'.
#include <algorithm>
#include <cmath>
#include <numbers>
#include <set>

#include "verify/compare.hpp"
#include "verify/ops/activation/problem.hpp"
#include "verify/statistics/median.hpp"
#include "verify/text.hpp"

namespace attest {
namespace {

using ref::Activation;

struct WrongDerivative {
  std::string name;
  std::function<double(double x)> slope;
};

/// x / 2 (1 - tanh^2) times the derivative of the argument, with another such derivative or another tanh'.
std::vector<WrongDerivative> of_tanh_form() {
  constexpr double a = ref::gelu_tanh_scale, c = ref::gelu_tanh_cubic;
  const auto with = [](auto inner, auto of_tanh) {
    return [=](double x) {
      const double t = std::tanh(a * (x + c * x * x * x));
      return (1 + t) / 2 + x / 2 * of_tanh(t) * inner(x);
    };
  };
  const auto right_inner = [](double x) { return a * (1 + 3 * c * x * x); };
  const auto right_tanh = [](double t) { return 1 - t * t; };
  return {
      {"x^2 in place of 3 x^2 in the derivative",
       with([](double x) { return a * (1 + c * x * x); }, right_tanh)},
      {"a derivative without the term in x^2", with([](double) { return a; }, right_tanh)},
      {"a derivative without that of the argument of tanh", with([](double) { return 1; }, right_tanh)},
      {"1 - tanh in place of 1 - tanh^2 in the derivative",
       with(right_inner, [](double t) { return 1 - t; })},
      {"1 + tanh in place of 1 - tanh^2 in the derivative",
       with(right_inner, [](double t) { return 1 + t; })},
      {"tanh^2 in place of 1 - tanh^2 in the derivative", with(right_inner, [](double t) { return t * t; })},
      {"the second term of the derivative without x", [=](double x) {
         const double t = std::tanh(a * (x + c * x * x * x));
         return (1 + t) / 2 + (1 - t * t) / 2 * right_inner(x);
       }}};
}

std::vector<WrongDerivative> of_erf_form() {
  const auto with = [](auto second) {
    return [=](double x) { return std::erfc(-x / std::numbers::sqrt2) / 2 + second(x); };
  };
  const double density = std::numbers::inv_sqrtpi / std::numbers::sqrt2;
  return {{"exp(-x^2) in place of exp(-x^2 / 2) in the derivative",
           with([=](double x) { return x * density * std::exp(-x * x); })},
          {"the second term of the derivative without x",
           with([=](double x) { return density * std::exp(-x * x / 2); })},
          {"the second term of the derivative without 1/sqrt(2 pi)",
           with([=](double x) { return x * std::exp(-x * x / 2); })}};
}

/// a: of x sigmoid(a x).
std::vector<WrongDerivative> of_sigmoid_form(double a) {
  const auto with = [a](auto slope) {
    return [=](double x) { return slope(x, 1 / (1 + std::exp(-a * x))); };
  };
  std::vector<WrongDerivative> all = {{"the second term of the derivative without the sigmoid",
                                       with([a](double x, double s) { return s + a * x * (1 - s); })},
                                      {"the second term of the derivative without 1 - sigmoid",
                                       with([a](double x, double s) { return s + a * x * s; })},
                                      {"the second term of the derivative without x",
                                       with([a](double, double s) { return s + a * s * (1 - s); })},
                                      {"1 - y in place of 1 - sigmoid in the derivative",
                                       with([a](double x, double s) { return s + a * x * s * (1 - x * s); })},
                                      {"1 in place of the first term of the derivative",
                                       with([a](double x, double s) { return 1 + a * x * s * (1 - s); })},
                                      {"a derivative without the sigmoid outside the brackets",
                                       with([a](double x, double s) { return 1 + a * x * (1 - s); })}};
  if (a != 1)
    all.push_back({"the second term of the derivative without the factor " + number_text(a, 4),
                   with([](double x, double s) { return s + x * s * (1 - s); })});
  return all;
}

}  // namespace

std::vector<Decoy> ActivationProblem::wrong_derivatives(std::span<const Expected> expected) const {
  std::vector<Decoy> all;
  const auto dx = std::ranges::find(expected, "dx", &Expected::output);
  if (dx == expected.end() || !has_wrong_elements(*dx)) return all;
  const auto add = [&](const WrongDerivative& wrong) {
    for (Decoy& answer : sampled(
             wrong.name, [this](double x) { return ref::activation(kind_, x); }, wrong.slope))
      if (answer.output == "dx") all.push_back(std::move(answer));
  };
  if (kind_ == Activation::sigmoid) {
    const auto y = [](double x) { return 1 / (1 + std::exp(-x)); };
    add({"1 - y^2 for the derivative y (1 - y)", [=](double x) { return 1 - y(x) * y(x); }});
    add({"x y (1 - y) for the derivative y (1 - y)", [=](double x) { return x * y(x) * (1 - y(x)); }});
    add({"x (1 - x) for the derivative y (1 - y)", [](double x) { return x * (1 - x); }});
    return all;
  }
  const double a = kind_ == Activation::gelu_quick ? ref::gelu_quick_scale : 1;
  const std::vector<WrongDerivative> forms = kind_ == Activation::gelu_erf    ? of_erf_form()
                                             : kind_ == Activation::gelu_tanh ? of_tanh_form()
                                                                              : of_sigmoid_form(a);
  std::ranges::for_each(forms, add);

  // Either term may have another factor, which is that of most elements.
  const auto first = [this](double x) { return x == 0 ? 0.5 : ref::activation(kind_, x) / x; };
  const auto second = [this, first](double x) { return ref::activation_derivative(kind_, x) - first(x); };
  const std::vector<double>& dy = case_.input("dy")->values;
  const auto add_fitted = [&](const std::string& which, const Function& wrong, const Function& other) {
    std::vector<double> factors;
    for (Index at = 0; at < x_.size(); ++at) {
      const double x = x_.values[at], slope = dx->dumped->values[at] / dy[at];
      if (std::abs(x) < 3 && 2 * std::abs(wrong(x)) >= std::abs(other(x)))
        factors.push_back((slope - other(x)) / wrong(x));
    }
    const double fitted = median(factors);
    // A factor of nearly 0 is that of a term that is missing; without its second, a derivative has a name.
    constexpr double least_factor = 0x1p-6;
    if (std::abs(fitted) < least_factor) {
      if (which == "first") add({"a derivative without its first term", other});
      return;
    }
    std::set<std::string> texts;
    for (int digits = 1; std::isfinite(fitted) && digits <= 4; ++digits) {
      const std::string text = number_text(fitted, digits);
      // What is without the factor a has that name, as far as two stores of dx can be told apart.
      if (std::abs(number_of(text) * a - 1) > 2 * unit_roundoff(dx->dtype)) texts.insert(text);
    }
    for (const std::string& text : texts) {
      const double factor = number_of(text);
      if (factor == 0 || factor == 1 || !std::isfinite(factor)) continue;
      const auto first_of = static_cast<std::ptrdiff_t>(all.size());
      add({"the " + which + " term of the derivative times " + text,
           [=](double x) { return other(x) + factor * wrong(x); }});
      for (auto answer = all.begin() + first_of; answer != all.end(); ++answer)
        answer->is_of_whole_call = true;
    }
  };
  add_fitted("second", second, first);
  add_fitted("first", first, second);
  return all;
}

}  // namespace attest
