// Rotary embeddings in memory: their inputs, honest kernels in float arithmetic, and kernels with one fault.
#include "tests/emulate/rope.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>
#include <utility>

#include "tests/oracle/rope.hpp"
#include "tests/support/random.hpp"

namespace attest::emulate {
namespace {

float rounded(float x, DType dtype) {
  return static_cast<float>(round_to(x, dtype));
}

float nudged(float x, int ulps) {
  const float to =
      ulps > 0 ? std::numeric_limits<float>::infinity() : -std::numeric_limits<float>::infinity();
  for (int n = std::abs(ulps); n > 0; --n) x = std::nextafter(x, to);
  return x;
}

/// Up, down or not at all, by a pattern that does not look like a rounding error.
int pattern(int most, Index n) {
  return most == 0 ? 0 : (static_cast<int>(n % 3) - 1) * most;
}

Tensor tensor_of(DType dtype, std::vector<Index> shape) {
  Tensor t{std::string(format_of(dtype).name), dtype, std::move(shape), {}};
  t.values.resize(t.size());
  return t;
}

double normal(test::Random& random) {
  double sum = 0;
  for (int n = 0; n < 12; ++n) sum += random.symmetric();
  return sum / 2;
}

Tensor random_rows(const RopeSetup& setup, test::Random& random) {
  Tensor t = tensor_of(setup.element, {setup.batch, setup.heads, setup.rows, setup.width});
  for (Index n = 0; n < t.size(); ++n) {
    const bool is_outlier = setup.has_outliers && n % setup.width % 11 == 3;
    t.values[n] = round_to(normal(random) * setup.magnitude * (is_outlier ? 100 : 1), setup.element);
  }
  return t;
}

struct Angles {
  std::vector<float> cos, sin;  // [rows, R/2]
};

/// Positions 0 .. rows - 1 after the start, in float arithmetic.
class AngleUnit {
 public:
  AngleUnit(const RopeSetup& setup, const RopeKernel& kernel, Index rotary_dim)
      : setup_(setup), kernel_(kernel), rotary_dim_(rotary_dim) {
    for (Index k = 0; k < rotary_dim / 2; ++k) {
      inv_freq_.push_back(float_inv_freq(k));
      inv_freq64_.push_back(double_inv_freq(k));
    }
  }

  Angles angles() const {
    Angles a;
    for (Index s = 0; s < setup_.rows; ++s) {
      for (Index k = 0; k < rotary_dim_ / 2; ++k) {
        const Index n = s * 31 + k;
        float c, d;
        if (setup_.rule == AngleRule::float32) {
          const float angle = static_cast<float>(position(s)) * inv_freq_[k];
          c = static_cast<float>(std::cos(static_cast<double>(angle)));
          d = static_cast<float>(std::sin(static_cast<double>(angle)));
        } else {
          const double angle = position(s) * inv_freq64_[k];
          c = static_cast<float>(std::cos(angle));
          d = static_cast<float>(std::sin(angle));
        }
        a.cos.push_back(in_table(nudged(c, pattern(kernel_.sincos_ulps, n))));
        a.sin.push_back(in_table(nudged(d, pattern(kernel_.sincos_ulps, n + 1))) *
                        (kernel_.fault == RopeFault::sin_sign ? -1.0F : 1.0F));
      }
    }
    return a;
  }

  const std::vector<float>& inv_freq() const { return inv_freq_; }

 private:
  float float_inv_freq(Index k) const {
    RopeFrequencies f = setup_.frequencies;
    if (kernel_.fault == RopeFault::theta_10001) f.theta = 10001;
    if (f.scaling != RopeScaling::none && kernel_.fault != RopeFault::scaling_ignored) {
      const float x = nudged(static_cast<float>(oracle::rope_inverse_frequencies(f, rotary_dim_)[k]),
                             k == 0 ? 0 : pattern(kernel_.inv_freq_ulps, k));
      return kernel_.fault == RopeFault::inv_freq_bfloat16 ? rounded(x, DType::bfloat16) : x;
    }
    const float theta = static_cast<float>(f.theta);
    const float exponent = static_cast<float>(2 * k) / static_cast<float>(rotary_dim_);
    float x = kernel_.pow == RopePow::reciprocal ? 1 / std::pow(theta, exponent)
              : kernel_.pow == RopePow::negative ? std::pow(theta, -exponent)
                                                 : static_cast<float>(std::exp(-exponent * std::log(theta)));
    if (k > 0) x = nudged(x, pattern(kernel_.inv_freq_ulps, k));
    return kernel_.fault == RopeFault::inv_freq_bfloat16 ? rounded(x, DType::bfloat16) : x;
  }

  double double_inv_freq(Index k) const {
    const double theta = kernel_.fault == RopeFault::theta_10001 ? 10001 : setup_.frequencies.theta;
    if (kernel_.fault == RopeFault::inv_freq_bfloat16) return float_inv_freq(k);
    return 1 / std::pow(theta, static_cast<double>(2 * k) / static_cast<double>(rotary_dim_));
  }

  double position(Index s) const {
    double p = setup_.position_start + static_cast<double>(s);
    if (kernel_.fault == RopeFault::position_plus_one) p += 1;
    if (kernel_.fault == RopeFault::position_minus_one) p -= 1;
    if (kernel_.fault == RopeFault::last_row_plus_one && s == setup_.rows - 1) p += 1;
    if (kernel_.fault == RopeFault::position_bfloat16) p = round_to(p, DType::bfloat16);
    return p;
  }

  float in_table(float x) const {
    if (kernel_.fault == RopeFault::table_bfloat16) return rounded(x, DType::bfloat16);
    if (kernel_.fault == RopeFault::table_float16) return rounded(x, DType::float16);
    return x;
  }

  const RopeSetup& setup_;
  const RopeKernel& kernel_;
  Index rotary_dim_;
  std::vector<float> inv_freq_;
  std::vector<double> inv_freq64_;
};

/// What a kernel reads from a table [rows, R] or [rows, R/2]. A faulty position is a row of the table.
Angles angles_of_table(const Case& c, const RopeSetup& setup, const RopeKernel& kernel) {
  const Tensor &cos = c.in.at("cos"), &sin = c.in.at("sin");
  const Index width = cos.shape[1], pairs = setup.rotary_dim / 2;
  const bool is_full = width == setup.rotary_dim;
  Angles a;
  for (Index s = 0; s < setup.rows; ++s) {
    Index row = s;
    if (kernel.fault == RopeFault::position_plus_one) ++row;
    if (kernel.fault == RopeFault::position_minus_one) --row;
    if (kernel.fault == RopeFault::last_row_plus_one && s == setup.rows - 1) row = 0;  // it wraps
    row = std::clamp<Index>(row, 0, setup.rows - 1);
    for (Index k = 0; k < pairs; ++k) {
      const Index at = row * width + (!is_full || setup.style == RopeStyle::half ? k : 2 * k);
      for (const auto& [from, to, sign] : {std::tuple{&cos, &a.cos, 1.0F}, std::tuple{&sin, &a.sin, -1.0F}}) {
        float x = static_cast<float>(from->values[at]);
        if (kernel.fault == RopeFault::table_bfloat16) x = rounded(x, DType::bfloat16);
        if (kernel.fault == RopeFault::table_float16) x = rounded(x, DType::float16);
        to->push_back(kernel.fault == RopeFault::sin_sign ? sign * x : x);
      }
    }
  }
  return a;
}

/// a c + b s in float.
float product_sum(const RopeKernel& kernel, float a, float c, float b, float s) {
  if (kernel.fault == RopeFault::sum_float16) {
    const DType half = DType::float16;
    return rounded(rounded(a * c, half) + rounded(b * s, half), half);
  }
  return kernel.fused ? std::fma(a, c, b * s) : a * c + b * s;
}

Tensor turned(const RopeSetup& setup, const RopeKernel& kernel, const Angles& angles, RopeSpec spec,
              const Tensor& x, bool backward) {
  if (kernel.fault == RopeFault::other_style)
    spec.style = spec.style == RopeStyle::half ? RopeStyle::interleaved : RopeStyle::half;
  Tensor y = x;
  for (Index row = 0; row < x.size() / setup.width; ++row) {
    for (Index k = 0; k < spec.pairs(); ++k) {
      const Index i = row * setup.width + spec.first(k), j = row * setup.width + spec.second(k);
      const Index at = row % setup.rows * spec.pairs() + k;
      const float c = angles.cos[at];
      const float s =
          backward && kernel.fault != RopeFault::transposed_gradient ? -angles.sin[at] : angles.sin[at];
      const float a = static_cast<float>(x.values[i]), b = static_cast<float>(x.values[j]);
      y.values[i] = round_to(product_sum(kernel, a, c, b, -s), setup.element);
      y.values[j] = round_to(product_sum(kernel, b, c, a, s), setup.element);
    }
  }
  return y;
}

}  // namespace

std::string RopeSetup::text() const {
  return std::string(style == RopeStyle::half ? "half" : "interleaved") + ", angles " +
         std::to_string(static_cast<int>(angles)) + ", " + std::string(format_of(element).name) + ", from " +
         std::to_string(position_start) + ", R " + std::to_string(rotary_dim) + ", scaling " +
         std::to_string(static_cast<int>(frequencies.scaling)) + ", seed " + std::to_string(seed);
}

std::string_view name_of(RopeFault fault) {
  static constexpr std::string_view names[] = {
      "none",           "other style",       "position + 1",           "position - 1",
      "last row + 1",   "table bfloat16",    "table float16",          "inv_freq bfloat16",
      "theta 10001",    "position bfloat16", "rotary_dim ignored",     "sin sign",
      "sum in float16", "scaling ignored",   "gradient not transposed"};
  return names[static_cast<int>(fault)];
}

Case rope_dump(const RopeSetup& setup, const RopeKernel& kernel) {
  Case c;
  c.file = "emulated.h5";
  c.name = "case";
  c.op = "rope";
  test::Random random(setup.seed);
  c.in["x"] = random_rows(setup, random);
  c.in["dy"] = random_rows(setup, random);
  c.spec = {{"style", setup.style == RopeStyle::half ? "half" : "interleaved"},
            {"rotary_dim", std::int64_t{setup.rotary_dim}}};
  const RopeFrequencies& f = setup.frequencies;
  const bool has_table = setup.angles == RopeAngles::half_table || setup.angles == RopeAngles::full_table;
  if (!has_table) {
    c.spec["position_start"] = setup.position_start;
    c.spec["angle_dtype"] = setup.rule == AngleRule::float32 ? "float32" : "float64";
  }
  const Index pairs = setup.rotary_dim / 2;

  if (setup.angles == RopeAngles::theta) {
    c.spec["theta"] = f.theta;
    if (f.scaling != RopeScaling::none) {
      c.spec["scaling"] = f.scaling == RopeScaling::linear   ? "linear"
                          : f.scaling == RopeScaling::ntk    ? "ntk"
                          : f.scaling == RopeScaling::yarn   ? "yarn"
                          : f.scaling == RopeScaling::llama3 ? "llama3"
                                                             : "dynamic_ntk";
      c.spec["factor"] = f.factor;
      if (f.original_max_position_embeddings > 0)
        c.spec["original_max_position_embeddings"] = f.original_max_position_embeddings;
      if (f.sequence_length > 0) c.spec["sequence_length"] = f.sequence_length;
      if (f.scaling == RopeScaling::yarn) c.spec["attention_factor"] = 1.0;
      if (f.low_freq_factor > 0) c.spec["low_freq_factor"] = f.low_freq_factor;
      if (f.high_freq_factor > 0) c.spec["high_freq_factor"] = f.high_freq_factor;
    }
  }
  const RopeKernel honest{kernel.pow, false, 0, kernel.inv_freq_ulps, RopeFault::none};
  if (setup.angles == RopeAngles::inv_freq) {
    Tensor& inv_freq = c.in["inv_freq"] = tensor_of(DType::float32, {pairs});
    const AngleUnit unit(setup, honest, setup.rotary_dim);
    std::copy(unit.inv_freq().begin(), unit.inv_freq().end(), inv_freq.values.begin());
  }

  if (has_table) {
    const Angles right = AngleUnit(setup, honest, setup.rotary_dim).angles();
    const bool is_full = setup.angles == RopeAngles::full_table;
    const Index width = is_full ? setup.rotary_dim : pairs;
    Tensor& cos = c.in["cos"] = tensor_of(setup.table, {setup.rows, width});
    Tensor& sin = c.in["sin"] = tensor_of(setup.table, {setup.rows, width});
    for (Index n = 0; n < cos.size(); ++n) {
      const Index w = n % width, row = n / width;
      const Index k = !is_full ? w : setup.style == RopeStyle::half ? w % pairs : w / 2;
      cos.values[n] = round_to(right.cos[row * pairs + k], setup.table);
      sin.values[n] = round_to(right.sin[row * pairs + k], setup.table);
    }
  }
  return rope_dump(std::move(c), setup, kernel);
}

Case rope_dump(Case c, const RopeSetup& setup, const RopeKernel& kernel) {
  const bool ignores_width = kernel.fault == RopeFault::rotary_dim_ignored;
  const Index rotary_dim = ignores_width ? setup.width : setup.rotary_dim;
  const Angles angles = c.in.contains("cos") ? angles_of_table(c, setup, kernel)
                                             : AngleUnit(setup, kernel, rotary_dim).angles();
  const RopeSpec spec{setup.style, c.in.contains("cos") ? setup.rotary_dim : rotary_dim};
  c.out["y"] = turned(setup, kernel, angles, spec, c.in.at("x"), false);
  if (c.in.contains("dy")) c.out["dx"] = turned(setup, kernel, angles, spec, c.in.at("dy"), true);
  return c;
}

}  // namespace attest::emulate
