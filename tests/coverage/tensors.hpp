// Tensors of cases in memory, and where the elements of a layout are.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "tests/support/random.hpp"
#include "verify/case.hpp"

namespace attest::coverage {

/// Unit roundoff of long double on x86, in which the oracles compute.
inline constexpr long double oracle_unit = 0x1p-64L;

using Shape = std::vector<Index>;

/// Of a feature's random data: a row of the table does not change when others come and go.
std::uint64_t seed_of(const std::string& name);

/// A tensor without values yet: an output.
Tensor blank(DType dtype, Shape shape);

/// offset + size * (about normal, deviation 1), rounded to the element type.
Tensor normal(test::Random& random, DType dtype, Shape shape, double size = 1, double offset = 0);

/// True but once in four entries.
Tensor booleans(test::Random& random, Shape shape);
Tensor integers(Shape shape, std::initializer_list<double> values);

/// Spec key `key` of the case, or what stands in for it.
std::string text_of(const Case& c, const std::string& key, const std::string& fallback);
double number_of(const Case& c, const std::string& key, double fallback);
bool flag_of(const Case& c, const std::string& key, bool fallback);

/// Where element (b, h, s, d) lies in a layout that the spec names: bhsd, bshd, sbhd, bsm, sbm or thd. A
/// tensor of packed sequences has b = 1.
class Place {
 public:
  Place(const std::string& layout, Index b, Index h, Index s, Index d);

  Index operator()(Index b, Index h, Index s, Index d) const {
    return b * stride_b_ + h * stride_h_ + s * stride_s_ + d;
  }
  const Shape& shape() const { return shape_; }

 private:
  Index stride_b_ = 0, stride_h_ = 0, stride_s_ = 0;
  Shape shape_;
};

/// Where element (b, h, i, j) of [B, H, Sq, Sk] lies in a tensor that broadcasts to it.
class Broadcast {
 public:
  explicit Broadcast(const Shape& shape);

  Index operator()(Index b, Index h, Index i, Index j) const {
    return b * stride_[0] + h * stride_[1] + i * stride_[2] + j * stride_[3];
  }

 private:
  Index stride_[4] = {0, 0, 0, 0};
};

}  // namespace attest::coverage
