// Emulated activation kernels and their dumps.
#include "tests/emulate/activation.hpp"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "tests/emulate/sums.hpp"
#include "tests/emulate/tensors.hpp"

namespace attest::emulate {
namespace {

float kept(float x, DType dtype) {
  return dtype == DType::float64 ? x : static_cast<float>(round_to(x, dtype));
}

/// e^z through the base of 2, as devices do it.
float exp_of(float z) {
  if (z < -104) return 0;
  return z > 89 ? std::numeric_limits<float>::infinity() : device_exp2(z * 1.44269504F);
}

/// A curve and its derivative at work.
class Device {
 public:
  Device(Curve right, const ActivationPass& pass) : curve_(pass.curve.value_or(right)), pass_(pass) {}

  float value(float x) const {
    if (std::abs(x) > pass_.cut_off) return x < 0 ? 0 : is_bounded() ? 1 : x;
    const float ramp = std::clamp(x / 6 + 0.5F, 0.0F, 1.0F);
    if (curve_ == Curve::relu) return std::max(x, 0.0F);
    if (curve_ == Curve::hard_swish) return x * ramp;
    if (curve_ == Curve::hard_sigmoid) return ramp;
    if (curve_ == Curve::tanh) return std::tanh(x);
    const float g = gate(x);
    return is_bounded() || pass_.lacks_x ? g : kept(x * g, pass_.every);
  }

  float slope(float x, Slope wrong) const {
    const float y = value(x);
    if (wrong == Slope::value) return y;
    if (wrong == Slope::one) return 1;
    if (wrong == Slope::at_y) return slope(y, Slope::right);
    if (wrong == Slope::square_of_y) return y * y;
    if (wrong == Slope::rest_of_y) return 1 - y;
    if (std::abs(x) > pass_.cut_off) return x < 0 || is_bounded() ? 0 : 1;
    const bool is_on_ramp = std::abs(x) < 3;
    const float ramp = std::clamp(x / 6 + 0.5F, 0.0F, 1.0F);
    if (curve_ == Curve::relu) return x > 0 ? 1 : 0;
    if (curve_ == Curve::hard_swish) return ramp + (is_on_ramp ? x / 6 : 0);
    if (curve_ == Curve::hard_sigmoid) return is_on_ramp ? 1.0F / 6 : 0;
    if (curve_ == Curve::tanh) return 1 - y * y;
    const float of_gate = gate_slope(x, wrong != Slope::no_inner);
    if (is_bounded()) return of_gate;
    const float g = wrong == Slope::gate_alone ? 0 : gate(x);
    return kept(g + (wrong == Slope::factor_alone ? 0 : of_gate), pass_.every);
  }

 private:
  bool is_bounded() const {
    return curve_ == Curve::sigmoid || curve_ == Curve::hard_sigmoid || curve_ == Curve::tanh;
  }
  float at(float x, DType stage) const { return kept(kept(x, stage), pass_.every); }
  float constant(double value) const { return kept(static_cast<float>(value), pass_.constants); }

  float factor() const {
    const double right = curve_ == Curve::gelu_erf     ? 0.70710678118654752
                         : curve_ == Curve::gelu_tanh  ? 0.79788456080286536
                         : curve_ == Curve::gelu_quick ? 1.702
                                                       : 1;
    return constant(right * pass_.argument_factor);
  }
  float argument(float x) const {
    if (curve_ != Curve::gelu_tanh) return at(factor() * x, pass_.argument);
    const float cube = kept(kept(x * x, pass_.every) * x, pass_.every);
    return at(factor() * kept(x + constant(pass_.cubic) * cube, pass_.every), pass_.argument);
  }
  float slope_of_argument(float x) const {
    if (curve_ != Curve::gelu_tanh) return factor();
    return factor() * (1 + 3 * constant(pass_.cubic) * kept(x * x, pass_.every));
  }
  /// erf, tanh or exp as the kernel has it.
  float function(float exact, float x) const {
    const double pattern = pass_.function_error == 0 ? 0 : pass_.function_error * std::cos(8.0 * x);
    return at(static_cast<float>(exact * (1 + pattern)), pass_.function);
  }
  float tanh_of(float v) const {
    const float e = exp_of(2 * v);
    return pass_.has_naive_tanh ? (e - 1) / (e + 1) : std::tanh(v);
  }
  float gate(float x) const {
    const float a = argument(x), k = static_cast<float>(pass_.gate_factor);
    if (curve_ == Curve::gelu_erf) return at(k * 0.5F * (1 + function(std::erf(a), x)), pass_.gate);
    if (curve_ == Curve::gelu_tanh) return at(k * 0.5F * (1 + function(tanh_of(a), x)), pass_.gate);
    const float e = function(exp_of(pass_.overflows ? a : -a), x);
    return at(k * (pass_.overflows ? e / (1 + e) : 1 / (1 + e)), pass_.gate);
  }
  /// x gate'(x), or gate'(x) of what is not multiplied by x.
  float gate_slope(float x, bool has_inner) const {
    const float times = is_bounded() ? 1 : x;
    if (curve_ == Curve::gelu_erf) {
      const float density = kept(0.398942280F * function(exp_of(-0.5F * x * x), x), pass_.every);
      return kept(times * (has_inner ? density : density / factor()), pass_.every);
    }
    const float inner = has_inner ? slope_of_argument(x) : 1;
    float of_function = 0;
    if (curve_ == Curve::gelu_tanh) {
      const float t = function(tanh_of(argument(x)), x);
      of_function = kept(0.5F * kept(1 - t * t, pass_.every), pass_.every);
    } else {
      const float s = gate(x);
      of_function = kept(s * kept(1 - s, pass_.every), pass_.every);
    }
    if (pass_.overflows) return of_function * (inner * times);
    // Far out x^2 and 1.702 x are infinite in float: a kernel has to know that the other factor is 0.
    return of_function == 0 ? 0 : kept(of_function * inner * times, pass_.every);
  }

  Curve curve_;
  const ActivationPass& pass_;
};

Curve curve_of(const Case& c) {
  if (c.op == "silu") return Curve::silu;
  if (c.op == "sigmoid") return Curve::sigmoid;
  const auto form = c.spec.find("approximate");
  if (form == c.spec.end()) return Curve::gelu_erf;
  const std::string& name = std::get<std::string>(form->second);
  return name == "tanh" ? Curve::gelu_tanh : name == "quick" ? Curve::gelu_quick : Curve::gelu_erf;
}

double flushed(double x, DType element) {
  return std::abs(x) < std::ldexp(1.0, format_of(element).emin) ? 0 : x;
}

void misplace(std::vector<double>& x, Misplaced how) {
  constexpr std::ptrdiff_t block = 128;
  const std::ptrdiff_t first = std::ssize(x) / 4;
  if (how == Misplaced::last_not_written) std::fill(x.end() - 32, x.end(), 0.0);
  if (how == Misplaced::pairs_exchanged)
    for (std::size_t n = 0; n + 1 < x.size(); n += 2) std::swap(x[n], x[n + 1]);
  if (how == Misplaced::block_repeated) std::copy_n(x.begin() + first, block, x.begin() + first + block);
}

/// One pass: what each element gives, stored.
template <class Element>
Tensor stored_pass(const Tensor& x, const ActivationPass& pass, Element element) {
  Tensor result = tensor_of(*x.dtype, x.shape);
  const Rounding rounding = pass.is_cut_off ? Rounding::toward_zero : Rounding::to_nearest_even;
  for (std::size_t n = 0; n < x.values.size(); ++n) {
    const double loaded = pass.flushes_inputs ? flushed(x.values[n], *x.dtype) : x.values[n];
    const float value = element(kept(static_cast<float>(loaded), pass.x), n);
    const double rounded = round_to(kept(value, pass.stored), *x.dtype, rounding);
    result.values[n] = pass.flushes_results ? flushed(rounded, *x.dtype) : rounded;
  }
  misplace(result.values, pass.misplaced);
  return result;
}

}  // namespace

Case activation_dump(Case c, const ActivationKernel& kernel) {
  const Curve curve = curve_of(c);
  const Tensor& x = c.in.at("x");
  const Device forward(curve, kernel.forward), backward(curve, kernel.backward);
  c.out["y"] = stored_pass(x, kernel.forward, [&](float at, std::size_t) { return forward.value(at); });
  const auto gradient = c.in.find("dy");
  if (gradient == c.in.end()) return c;
  const std::vector<double>& dy = gradient->second.values;
  c.out["dx"] = stored_pass(x, kernel.backward, [&](float at, std::size_t n) {
    float g = kept(static_cast<float>(dy[n]), kernel.dy);
    if (kernel.exchanges_x_and_dy) std::swap(g, at);
    return (kernel.lacks_dy ? 1 : g) * backward.slope(at, kernel.slope);
  });
  return c;
}

}  // namespace attest::emulate
