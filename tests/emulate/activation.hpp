// Emulated activation kernels: GELU in three forms, SiLU, the sigmoid and their gradients, honest or broken.
// Shares no code with the reference or the bounds.
#pragma once

#include <limits>
#include <optional>

#include "core/dtype.hpp"
#include "verify/case.hpp"

namespace attest::emulate {

enum class Curve { gelu_erf, gelu_tanh, gelu_quick, silu, sigmoid, relu, hard_swish, hard_sigmoid, tanh };

/// What takes the place of f'(x).
enum class Slope {
  right,
  factor_alone,  // of x gate(x): gate(x)
  gate_alone,    // of x gate(x): x gate'(x)
  no_inner,      // gate' without the derivative of its argument
  at_y,          // f'(f(x))
  value,         // f(x)
  one,           // dy goes through
  square_of_y,   // y^2 for y (1 - y)
  rest_of_y      // 1 - y for y (1 - y)
};

/// Which elements of a result are where they do not belong.
enum class Misplaced { none, last_not_written, pairs_exchanged, block_repeated };

/// One pass over the elements. Formats: float64 stands for "not rounded".
struct ActivationPass {
  std::optional<Curve> curve;  // in place of the right one
  double argument_factor = 1, gate_factor = 1, cubic = 0.044715;
  double function_error = 0;  // of erf, tanh or exp: relative, in a fixed pattern of either sign
  double cut_off = std::numeric_limits<double>::infinity();  // beyond it f is its asymptote
  bool lacks_x = false;                                      // of x gate(x): the gate alone
  bool overflows = false;       // e^x / (1 + e^x), and derivatives that multiply 0 by what overflows
  bool has_naive_tanh = false;  // (e^2v - 1) / (e^2v + 1)
  DType x = DType::float64, constants = DType::float64;
  DType argument = DType::float64, function = DType::float64, gate = DType::float64;
  DType every = DType::float64;   // every operation, those included
  DType stored = DType::float64;  // the result, before it is stored in the element type
  bool is_cut_off = false;        // the store truncates
  bool flushes_inputs = false, flushes_results = false;  // what is subnormal in the element type
  Misplaced misplaced = Misplaced::none;
};

struct ActivationKernel {
  ActivationPass forward{}, backward{};
  Slope slope = Slope::right;
  bool lacks_dy = false, exchanges_x_and_dy = false;
  DType dy = DType::float64;
};

/// The dump of a kernel on the inputs: y, and dx if there is a dy. The element type is that of x; arithmetic
/// is that of float.
Case activation_dump(Case inputs, const ActivationKernel& kernel);

}  // namespace attest::emulate
