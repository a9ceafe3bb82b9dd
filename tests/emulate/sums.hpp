// How an emulated device adds up products and takes exponentials: float arithmetic, tensor-core truncation,
// and the running sums of broken kernels.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "core/dtype.hpp"
#include "core/view.hpp"

namespace attest::emulate {

struct Adder {
  enum class Kind {
    sequential,  // one fused multiply-add after another
    blocked,     // blocks of `block` products, each added to the running sum
    tensor_core  // the same, but aligned to the largest and cut off; float only
  };
  Kind kind = Kind::sequential;
  int block = 16, extra_bits = 2;
  DType dtype = DType::float64;  // the running sum is rounded to this after every block: for faults
  bool splits = false;           // a tensor core that takes tf32: three products of parts make one of float32
};

/// c + sum of products as a tensor core forms it: c and all products lose what lies more than `extra_bits`
/// bits below the last place of the largest of them, the sum is cut off to float.
inline float tensor_core_sum(float c, const double* products, int count, int extra_bits) {
  double largest = std::abs(static_cast<double>(c));
  for (int n = 0; n < count; ++n) largest = std::max(largest, std::abs(products[n]));
  if (largest == 0 || !std::isfinite(largest)) {
    double plain = c;
    for (int n = 0; n < count; ++n) plain += products[n];
    return static_cast<float>(plain);
  }
  const auto biased = static_cast<std::int64_t>(std::bit_cast<std::uint64_t>(largest) >> 52);
  const std::int64_t places = 23 + extra_bits;
  const auto power = [](std::int64_t field) {
    return std::bit_cast<double>(static_cast<std::uint64_t>(field) << 52);
  };
  const double grid = power(biased - places), per_grid = power(2 * 1023 - biased + places);
  std::int64_t units = static_cast<std::int64_t>(c * per_grid);
  for (int n = 0; n < count; ++n) units += static_cast<std::int64_t>(products[n] * per_grid);
  const double sum = static_cast<double>(units) * grid;
  const std::uint64_t below_float = (std::uint64_t{1} << 29) - 1;
  return static_cast<float>(std::bit_cast<double>(std::bit_cast<std::uint64_t>(sum) & ~below_float));
}

/// To 11 bits, as tensor cores read float32; all its exponents.
inline double to_tf32(double x, bool cuts_off = false) {
  if (x == 0 || !std::isfinite(x)) return x;
  const double spacing = std::ldexp(1.0, std::ilogb(x) - 10);
  return (cuts_off ? std::trunc(x / spacing) : std::nearbyint(x / spacing)) * spacing;
}

/// x is their sum but for the last place or two: CUTLASS's OpMultiplyAddFastF32 cuts both off.
struct Tf32Parts {
  explicit Tf32Parts(double x) : big(to_tf32(x, true)), small(to_tf32(x - big, true)) {}
  double big, small;
};

/// start + sum over n < count of a(n) b(n).
template <class Real, class A, class B>
Real add_products(const Adder& adder, Real start, Index count, A a, B b) {
  // The product of two floats is exact in double.
  const auto fma = [](double x, double y, Real z) {
    return static_cast<Real>(x * y + static_cast<double>(z));
  };
  if (adder.kind == Adder::Kind::sequential) {
    for (Index n = 0; n < count; ++n) start = fma(a(n), b(n), start);
    return start;
  }
  for (Index first = 0; first < count; first += adder.block) {
    const Index last = std::min(first + adder.block, count);
    if (adder.kind == Adder::Kind::tensor_core) {
      const auto add = [&](auto product) {
        double products[64];
        for (Index n = first; n < last; ++n) products[n - first] = product(a(n), b(n));
        start = static_cast<Real>(tensor_core_sum(static_cast<float>(start), products,
                                                  static_cast<int>(last - first), adder.extra_bits));
      };
      if (adder.splits) {
        add([](double x, double y) { return Tf32Parts(x).small * Tf32Parts(y).big; });
        add([](double x, double y) { return Tf32Parts(x).big * Tf32Parts(y).small; });
        add([](double x, double y) { return Tf32Parts(x).big * Tf32Parts(y).big; });
      } else {
        add([](double x, double y) { return x * y; });
      }
    } else {
      Real sum = 0;
      for (Index n = first; n < last; ++n) sum = fma(a(n), b(n), sum);
      start += sum;
    }
    if (adder.dtype != DType::float64) start = static_cast<Real>(round_to(start, adder.dtype));
  }
  return start;
}

/// 2^x as a device approximates it: off by up to 0.7 of the two ulp that contracts allow, in a pattern of 64
/// segments per binade whose mean is not 0; exact at 0, as ex2.approx is (PTX ISA); results below the normal
/// values are 0.
inline float device_exp2(float x) {
  if (x == 0) return 1;
  const double place = 64 * static_cast<double>(x), t = place - std::floor(place);
  const double y = std::exp2(static_cast<double>(x)) * (1 + 0.7 * 0x1p-22 * (1 - 8 * t * (1 - t)));
  return y < 0x1p-126 ? 0 : static_cast<float>(y);
}
inline double device_exp2(double x) {
  return std::exp2(x);
}

}  // namespace attest::emulate
