// Cases of activations that any function may have written.
#pragma once

#include <functional>
#include <string>

#include "tests/support/random.hpp"
#include "verify/case.hpp"

namespace attest::emulate {

using Function = std::function<double(double)>;

/// y = f(x) and dx = dy g(x), rounded once, of |x| < width.
inline Case dump(const std::string& op, const std::string& approximate, DType element, const Function& f,
                 const Function& g, double width = 4) {
  test::Random random(5);
  Case c;
  c.file = "memory.h5";
  c.name = c.op = op;
  if (!approximate.empty()) c.spec["approximate"] = approximate;
  Tensor x{std::string(format_of(element).name), element, {2000}, {}};
  Tensor dy = x, y = x, dx = x;
  for (Index n = 0; n < x.size(); ++n) {
    x.values.push_back(round_to(width * random.symmetric(), element));
    dy.values.push_back(round_to(random.symmetric(), element));
    y.values.push_back(round_to(f(x.values[n]), element));
    dx.values.push_back(round_to(dy.values[n] * g(x.values[n]), element));
  }
  c.in = {{"x", x}, {"dy", dy}};
  c.out = {{"y", y}, {"dx", dx}};
  return c;
}

}  // namespace attest::emulate
