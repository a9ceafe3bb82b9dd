// tiled's RMSNorm and RoPE against the golden files. The bounds are those that tests/tiled/test_rms_norm.cpp
// and tests/tiled/test_rope.cpp derive, for tiled alone, with u the unit roundoff of Real and v = 2^-53. dx
// and dweight are functions of tiled's own rstd = r, which is off by delta r:
//   dx = r g - x r^3 mean(g x)  moves by  delta (r |g| + 3 r^3 |x| mean|g x|),  dweight by  delta sum|dy x
//   r|.
// Results may be subnormal in float: an operation is then off by 2^-150 at most, and all of them together by
// `floor`.
#include <cmath>
#include <limits>

#include "core/array.hpp"
#include "tests/catch.hpp"
#include "tests/golden/golden_values.hpp"
#include "tiled/rms_norm.hpp"
#include "tiled/rope.hpp"

using namespace attest;
using test::all_golden_values;

namespace {

constexpr double slack = 1 + 1.0 / 64, v = 0x1p-53;

template <class Real>
std::vector<Real> converted(const Tensor& tensor) {
  std::vector<Real> result;
  for (const double value : tensor.values) result.push_back(static_cast<Real>(value));
  return result;
}

void check_element(const Case& c, const std::string& output, std::size_t at, double got, double want,
                   double bound) {
  const double allowed = slack * bound + test::golden_error(want);
  if (got == want || std::abs(got - want) <= allowed) return;
  FAIL_CHECK(c.object("out/" + output)
             << " element " << at << " is " << got << ", golden " << want << " within " << allowed);
}

template <class Real>
void check_rms_norm(const Case& c, tiled::Level level) {
  const Tensor &x_tensor = c.in.at("x"), &dy_tensor = c.in.at("dy");
  const std::vector<Real> x = converted<Real>(x_tensor), dy = converted<Real>(dy_tensor),
                          weight = converted<Real>(c.in.at("weight"));
  const Index width = x_tensor.shape.back(), rows = x_tensor.size() / width;
  const double offset = c.spec.contains("weight_offset") ? std::get<double>(c.spec.at("weight_offset")) : 0;
  const NormSpec spec{false, std::get<double>(c.spec.at("eps")), offset, {}};
  std::vector<Real> y(x.size()), dx(x.size()), rstd(rows), dweight(width);
  const tiled::RmsNormInputs<Real> in{{x.data(), {rows, width}}, {weight.data(), {width}}};
  const View<Real, 1> rstd_view(rstd.data(), {rows});
  tiled::rms_norm_forward<Real>(spec, in, {{y.data(), {rows, width}}, rstd_view}, level);
  tiled::rms_norm_backward<Real>(spec, in, {dy.data(), {rows, width}}, rstd_view,
                                 {{dx.data(), {rows, width}}, {dweight.data(), {width}}}, level);

  const double u = std::numeric_limits<Real>::epsilon() / 2, n = static_cast<double>(width);
  const double floor = 8 * (n + static_cast<double>(rows)) * std::numeric_limits<Real>::denorm_min();
  const int bytes = level == tiled::Level::v2 ? 16 : level == tiled::Level::v3 ? 32 : 64;
  const int lanes = bytes / static_cast<int>(sizeof(Real));
  const double additions = n / (8 * lanes) + 15 + lanes;
  const double delta = (1 + additions) * u / 2 + u + 4 * v;
  const std::vector<double> want_y = all_golden_values(c, "y"), want_rstd = all_golden_values(c, "rstd"),
                            want_dx = all_golden_values(c, "dx"),
                            want_dweight = all_golden_values(c, "dweight");
  std::vector<double> magnitudes(width);
  for (Index i = 0; i < rows; ++i) {
    const double r = want_rstd[i];
    check_element(c, "rstd", i, rstd[i], r, delta * r);
    double mean = 0;
    const auto g = [&](Index j) {
      return std::abs((c.in.at("weight").values[j] + offset) * dy_tensor.values[i * width + j]);
    };
    for (Index j = 0; j < width; ++j) mean += g(j) * std::abs(x_tensor.values[i * width + j]) * r * r / n;
    for (Index j = 0; j < width; ++j) {
      const std::size_t at = i * width + j;
      const double size = std::abs(x_tensor.values[at]);
      check_element(c, "y", at, y[at], want_y[at], std::abs(want_y[at]) * (delta + 3 * u) + floor);
      const double own = r * (4 * u * g(j) + size * mean * ((3 + additions) * u + 4 * u + 4 * v));
      check_element(c, "dx", at, dx[at], want_dx[at], own + delta * r * (g(j) + 3 * size * mean) + floor);
      magnitudes[j] += std::abs(dy_tensor.values[at]) * size * r;
    }
  }
  for (Index j = 0; j < width; ++j) {
    const double share = (2 + static_cast<double>(rows)) * u + delta;
    check_element(c, "dweight", j, dweight[j], want_dweight[j], share * magnitudes[j] + floor);
  }
}

template <class Real>
void check_rope(const Case& c, const std::string& input, const std::string& output, tiled::Level level) {
  const Tensor& x_tensor = c.in.at(input);
  const std::vector<Real> x = converted<Real>(x_tensor), cos = converted<Real>(c.in.at("cos")),
                          sin = converted<Real>(c.in.at("sin"));
  const Index heads = x_tensor.shape[1], rows = x_tensor.shape[2], width = x_tensor.shape[3];
  const Index pairs = c.in.at("cos").shape[1];
  const bool is_half = std::get<std::string>(c.spec.at("style")) == "half";
  const RopeSpec spec{is_half ? RopeStyle::half : RopeStyle::interleaved, 2 * pairs};
  std::vector<Real> y(x.size());
  const auto turn = output == "y" ? tiled::rope_forward<Real> : tiled::rope_backward<Real>;
  turn(spec, {x.data(), {heads, rows, width}}, {cos.data(), {rows, pairs}}, {sin.data(), {rows, pairs}},
       {y.data(), {heads, rows, width}}, level);

  const double u = std::numeric_limits<Real>::epsilon() / 2, gamma = 2 * u / (1 - 2 * u);
  const std::vector<double> want = all_golden_values(c, output);
  for (Index row = 0; row < heads * rows; ++row) {
    const auto check = [&](Index d, double bound) {
      const std::size_t at = row * width + d;
      check_element(c, output, at, y[at], want[at], bound);
    };
    for (Index k = 0; k < pairs; ++k) {
      const Index i = spec.first(k), j = spec.second(k);
      const double a = std::abs(x_tensor.values[row * width + i]),
                   b = std::abs(x_tensor.values[row * width + j]);
      const double co = std::abs(c.in.at("cos").values[row % rows * pairs + k]);
      const double si = std::abs(c.in.at("sin").values[row % rows * pairs + k]);
      check(i, gamma * (a * co + b * si));
      check(j, gamma * (b * co + a * si));
    }
    for (Index d = 2 * pairs; d < width; ++d) check(d, 0);
  }
}

}  // namespace

TEST_CASE("tiled RMSNorm is within its rounding errors of the goldens") {
  Index judged = 0;
  for (const Case& c : test::golden_cases()) {
    if (c.op != "rms_norm") continue;
    const bool is_known = !c.input("bias") && !c.input("residual") && !c.spec.contains("cast_before_weight");
    if (!is_known || !test::has_values(c, "y")) continue;
    ++judged;
    for (const tiled::Level level : tiled::available_levels()) {
      INFO(c.object("") << ", " << tiled::name_of(level));
      check_rms_norm<double>(c, level);
      if (c.in.at("x").dtype != DType::float64) check_rms_norm<float>(c, level);
    }
  }
  CHECK(judged > 10);
}

TEST_CASE("tiled RoPE is within its rounding errors of the goldens") {
  Index judged = 0;
  for (const Case& c : test::golden_cases()) {
    if (c.op != "rope") continue;
    const bool is_plain = c.input("cos") && !c.input("positions") && c.in.at("x").shape[0] == 1 &&
                          c.in.at("cos").shape.size() == 2;
    if (!is_plain) continue;
    ++judged;
    for (const tiled::Level level : tiled::available_levels()) {
      INFO(c.object("") << ", " << tiled::name_of(level));
      for (const auto& [input, output] : {std::pair{"x", "y"}, std::pair{"dy", "dx"}}) {
        check_rope<double>(c, input, output, level);
        if (c.in.at("x").dtype != DType::float64) check_rope<float>(c, input, output, level);
      }
    }
  }
  CHECK(judged > 10);
}
