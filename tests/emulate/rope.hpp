// Rotary embeddings in memory: their inputs, honest kernels in float arithmetic, and kernels with one fault.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/rope.hpp"
#include "verify/case.hpp"

namespace attest::emulate {

enum class RopeAngles { theta, inv_freq, half_table, full_table };

/// One case in layout bhsd; rotary_dim and positions as in the dump.
struct RopeSetup {
  RopeStyle style = RopeStyle::half;
  RopeAngles angles = RopeAngles::theta;
  DType element = DType::float16, table = DType::float32;
  Index batch = 1, heads = 2, rows = 64, width = 64, rotary_dim = 64;
  RopeFrequencies frequencies{10000};
  double position_start = 0;
  AngleRule rule = AngleRule::float32;
  double magnitude = 1;       // of x
  bool has_outliers = false;  // a few columns a hundred times larger
  std::uint64_t seed = 1;

  std::string text() const;
};

/// How a kernel gets its inverse frequencies.
enum class RopePow {
  reciprocal,  // 1 / powf(theta, 2k/R), as PyTorch code does
  negative,    // powf(theta, -2k/R)
  exponential  // expf(-2k/R ln theta), within 4 ulp for theta = 10000
};

enum class RopeFault {
  none,
  other_style,
  position_plus_one,
  position_minus_one,
  last_row_plus_one,
  table_bfloat16,
  table_float16,
  inv_freq_bfloat16,
  theta_10001,
  position_bfloat16,
  rotary_dim_ignored,
  sin_sign,
  sum_float16,  // products and sum rounded to float16
  scaling_ignored,
  transposed_gradient  // dx = the turn by the positive angle
};
inline constexpr RopeFault all_rope_faults[] = {
    RopeFault::other_style,        RopeFault::position_plus_one,  RopeFault::position_minus_one,
    RopeFault::last_row_plus_one,  RopeFault::table_bfloat16,     RopeFault::table_float16,
    RopeFault::inv_freq_bfloat16,  RopeFault::theta_10001,        RopeFault::position_bfloat16,
    RopeFault::rotary_dim_ignored, RopeFault::sin_sign,           RopeFault::sum_float16,
    RopeFault::scaling_ignored,    RopeFault::transposed_gradient};
std::string_view name_of(RopeFault fault);

struct RopeKernel {
  RopePow pow = RopePow::reciprocal;
  bool fused = false;     // multiply-add
  int sincos_ulps = 0;    // cosines and sines this many ulp off, up or down
  int inv_freq_ulps = 0;  // inverse frequencies this many ulp off, up or down; not theta^0
  RopeFault fault = RopeFault::none;
};

/// The dump of a kernel: y from x, and dx from dy.
Case rope_dump(const RopeSetup& setup, const RopeKernel& kernel);

/// The same on inputs that are given, in layout bhsd: angles by theta, or a table.
Case rope_dump(Case inputs, const RopeSetup& setup, const RopeKernel& kernel);

}  // namespace attest::emulate
