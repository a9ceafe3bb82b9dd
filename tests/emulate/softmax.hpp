// Softmax as a device computes it, honest or broken, and cases made of its results.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "tests/emulate/sums.hpp"
#include "tests/support/random.hpp"
#include "verify/case.hpp"

namespace attest::emulate {

enum class Way { naive, safe, split, online, online_blocks };

struct SoftmaxKernel {
  Way way = Way::safe;
  bool reversed = false;       // scores are visited from the last to the first
  bool fused_gradient = true;  // false: dy * y is stored, and y read back
  // Faults
  double exp_error = 0;            // relative, with the sign of a fixed pattern
  DType sum = DType::float64;      // the running sum is rounded to this
  DType weights = DType::float64;  // y is rounded to this before it is stored
  DType dy_sum = DType::float64;   // sum of dy * y
  double scale_factor = 1;
  Index dropped = 0;             // of the last scores, from the sum only
  Index padded = 0;              // scores of 0 beyond the row, in the sum only
  bool forgets_rescale = false;  // the first time the maximum grows
  bool truncates = false;        // stores toward zero
  bool ignores_clamp = false, ignores_mask = false;
  double lse_factor = 1;
  bool lse_lacks_m = false;
  bool drops_row_sum = false;  // of the gradient
};

struct SoftmaxSetup {
  DType element = DType::float32;
  Index outer = 6, n = 100, inner = 1;
  double scale = 1, clamp = 0;
  bool subtract_max = true, has_mask = false;
};

inline Tensor tensor_of(DType dtype, std::vector<Index> shape) {
  Tensor t{std::string(format_of(dtype).name), dtype, std::move(shape), {}};
  t.values.resize(t.size());
  return t;
}

/// One row in arithmetic Real.
template <class Real>
struct SoftmaxResult {
  std::vector<Real> y, dx;
  Real m, l, lse;
};

template <class Real>
class SoftmaxDevice {
 public:
  SoftmaxDevice(const SoftmaxSetup& setup, const SoftmaxKernel& kernel) : setup_(setup), kernel_(kernel) {}

  SoftmaxResult<Real> row(const std::vector<double>& x, const std::vector<double>& mask,
                          const std::vector<double>& dy) const {
    const Index n = static_cast<Index>(x.size());
    std::vector<Real> s(n);
    for (Index j = 0; j < n; ++j) {
      double value = x[j];
      if (setup_.clamp > 0 && !kernel_.ignores_clamp) value = std::clamp(value, -setup_.clamp, setup_.clamp);
      const bool is_absent = (mask[j] == 0 && !kernel_.ignores_mask) || value == -infinity;
      const Real factor = static_cast<Real>(setup_.scale) * static_cast<Real>(kernel_.scale_factor);
      s[j] = is_absent ? -std::numeric_limits<Real>::infinity() : factor * static_cast<Real>(value);
    }
    SoftmaxResult<Real> r{std::vector<Real>(n), std::vector<Real>(n), 0, 0, 0};
    statistics(s, r);
    if (r.l == 0 && kernel_.way != Way::naive) {
      r.lse = -std::numeric_limits<Real>::infinity();
      return r;
    }
    r.lse = static_cast<Real>(kernel_.lse_factor) * ((kernel_.lse_lacks_m ? 0 : r.m) + std::log(r.l));
    const Real reciprocal = 1 / r.l;
    for (Index j = 0; j < n; ++j) r.y[j] = stored(exp(s[j] - r.m) * reciprocal, kernel_.weights);
    gradient(x, mask, dy, r);
    return r;
  }

 private:
  static constexpr double infinity = std::numeric_limits<double>::infinity();

  Real exp(Real z) const {
    const Real power = z * static_cast<Real>(1.4426950408889634);
    if (z == 0 || std::isinf(power)) return z < 0 ? 0 : 1;  // as ex2.approx promises
    const Real e = device_exp2(power);
    if (kernel_.exp_error == 0) return e;
    const double place = 8 * static_cast<double>(z);
    return static_cast<Real>(e * (1 + kernel_.exp_error * std::cos(place)));
  }
  Real stored(Real x, DType dtype) const {
    return dtype == DType::float64 ? x : static_cast<Real>(round_to(x, dtype));
  }
  Real added(Real l, Real e) const { return stored(l + e, kernel_.sum); }

  void statistics(const std::vector<Real>& s, SoftmaxResult<Real>& r) const {
    const Index n = static_cast<Index>(s.size()), summed = n - kernel_.dropped;
    const auto at = [&](Index j) { return s[kernel_.reversed ? n - 1 - j : j]; };
    const Real none = -std::numeric_limits<Real>::infinity();
    bool forgets = kernel_.forgets_rescale;
    const Index block = kernel_.way == Way::split           ? (n + 7) / 8
                        : kernel_.way == Way::online        ? 1
                        : kernel_.way == Way::online_blocks ? 16
                                                            : n;
    r.m = kernel_.way == Way::naive ? 0 : none;
    r.l = 0;
    for (Index first = 0; first < n; first += block) {
      const Index last = std::min(first + block, n);
      Real m = r.m;
      if (kernel_.way != Way::naive) {
        for (Index j = first; j < last; ++j) m = std::max(m, at(j));
        if (m == none) continue;
      }
      Real factor = r.l == 0 ? 0 : exp(r.m - m), sum = 0;
      if (r.l > 0 && m > r.m && forgets) factor = 1, forgets = false;
      for (Index j = first; j < last; ++j) {
        if (j < summed) sum = added(sum, exp(at(j) - m));
      }
      r.l = added(stored(r.l * factor, kernel_.sum), sum);
      r.m = m;
    }
    for (Index k = 0; k < kernel_.padded; ++k) r.l = added(r.l, exp(0 - r.m));
  }

  void gradient(const std::vector<double>& x, const std::vector<double>& mask, const std::vector<double>& dy,
                SoftmaxResult<Real>& r) const {
    const DType element = setup_.element;
    Real sum = 0;
    std::vector<Real> y = r.y, product(r.y.size());
    for (std::size_t j = 0; j < y.size(); ++j) {
      if (!kernel_.fused_gradient) y[j] = stored(y[j], element);
      product[j] = static_cast<Real>(dy[j]) * y[j];
      if (!kernel_.fused_gradient) product[j] = stored(product[j], element);
      sum = stored(sum + product[j], kernel_.dy_sum);
    }
    if (kernel_.drops_row_sum) sum = 0;
    for (std::size_t j = 0; j < y.size(); ++j) {
      const bool is_constant = mask[j] == 0 || (setup_.clamp > 0 && std::abs(x[j]) > setup_.clamp);
      const Real d =
          kernel_.fused_gradient ? y[j] * (static_cast<Real>(dy[j]) - sum) : product[j] - y[j] * sum;
      r.dx[j] = is_constant ? 0 : static_cast<Real>(setup_.scale) * d;
    }
  }

  const SoftmaxSetup& setup_;
  const SoftmaxKernel& kernel_;
};

/// score(row, j) and gradients in [-1, 1] are rounded to the element type. y and dx are stored in it, the
/// rest in float32 or wider.
template <class ScoreAt>
Case softmax_case(const SoftmaxSetup& setup, const SoftmaxKernel& kernel, std::uint64_t seed, ScoreAt score) {
  const bool is_double = setup.element == DType::float64;
  const DType wide = is_double ? DType::float64 : DType::float32;
  const std::vector<Index> shape = {setup.outer, setup.n, setup.inner}, reduced = {setup.outer, setup.inner};
  Case c;
  c.file = "memory.h5";
  c.name = "softmax";
  c.op = "softmax";
  c.spec = {{"axis", std::int64_t{1}}, {"scale", setup.scale}, {"subtract_max", setup.subtract_max}};
  if (setup.clamp > 0) c.spec["clamp"] = setup.clamp;
  Tensor &x = c.in["x"] = tensor_of(setup.element, shape), &dy = c.in["dy"] = tensor_of(setup.element, shape);
  Tensor &y = c.out["y"] = tensor_of(setup.element, shape),
         &dx = c.out["dx"] = tensor_of(setup.element, shape);
  Tensor &lse = c.out["lse"] = tensor_of(wide, reduced), &m = c.out["m"] = tensor_of(wide, reduced),
         &l = c.out["l"] = tensor_of(wide, reduced);
  std::vector<double> kept(x.values.size(), 1);
  test::Random random(seed);
  if (setup.has_mask) {
    for (double& value : kept) value = random.one_in(3) ? 0 : 1;
    Tensor& mask = c.in["mask"] = Tensor{"bool", {}, shape, kept};
    (void)mask;
  }
  const Rounding rounding = kernel.truncates ? Rounding::toward_zero : Rounding::to_nearest_even;
  for (Index o = 0; o < setup.outer; ++o) {
    for (Index i = 0; i < setup.inner; ++i) {
      const auto at = [&](Index j) { return (o * setup.n + j) * setup.inner + i; };
      std::vector<double> row_x, row_mask, row_dy;
      for (Index j = 0; j < setup.n; ++j) {
        row_x.push_back(x.values[at(j)] = round_to(score(o * setup.inner + i, j), setup.element));
        row_dy.push_back(dy.values[at(j)] = round_to(random.symmetric(), setup.element));
        row_mask.push_back(kept[at(j)]);
      }
      const auto write = [&](auto r) {
        for (Index j = 0; j < setup.n; ++j) {
          y.values[at(j)] = round_to(r.y[j], setup.element, rounding);
          dx.values[at(j)] = round_to(r.dx[j], setup.element, rounding);
        }
        lse.values[o * setup.inner + i] = r.lse;
        m.values[o * setup.inner + i] = r.m;
        l.values[o * setup.inner + i] = r.l;
      };
      if (is_double) {
        write(SoftmaxDevice<double>(setup, kernel).row(row_x, row_mask, row_dy));
      } else {
        write(SoftmaxDevice<float>(setup, kernel).row(row_x, row_mask, row_dy));
      }
    }
  }
  return c;
}

}  // namespace attest::emulate
