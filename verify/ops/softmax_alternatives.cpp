// What would explain a softmax that failed: other columns, other scales, stages in narrower formats.
#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "verify/ops/sample.hpp"
#include "verify/ops/softmax_problem.hpp"
#include "verify/ops/stages.hpp"
#include "verify/ops/widths.hpp"
#include "verify/text.hpp"

namespace attest {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr Index sampled_elements = 1 << 15, fewest_rows = 4, most_rows = 64;

enum class SoftmaxStage {
  x,
  score,
  difference,
  exponential,
  running_sum,
  row_sum,
  weight,
  product,
  running_dot,
  dot,
  slope
};
using enum SoftmaxStage;

/// One way to get a softmax wrong.
struct SoftmaxVariant {
  std::string name;
  ref::SoftmaxSpec spec;
  std::function<double(SoftmaxStage, double)> change = nullptr;
  Index summed = 0;   // columns that the row sum adds up; 0: all
  Index padding = 0;  // scores of 0 beyond the row
  bool inverts_mask = false, ignores_mask = false, is_logarithm = false;
  bool is_of_whole_call = true;

  double at(SoftmaxStage stage, double value) const { return change ? change(stage, value) : value; }
};

using Values = std::vector<double>;

/// One row as the kernel computes it.
struct SoftmaxRow {
  double m = 0, l = 0;
  Values y, dx;

  double lse() const { return m + std::log(l); }
};

View<const double, 1> view_of(const Values& values) {
  return values.empty() ? View<const double, 1>{}
                        : View<const double, 1>{values.data(), {static_cast<Index>(values.size())}};
}

/// mask and dy may be empty. l is 0 if no score has weight.
SoftmaxRow computed_row(const SoftmaxVariant& kernel, Values x, Values mask, const Values& dy) {
  const Index n = static_cast<Index>(x.size());
  for (double& value : x) value = kernel.at(SoftmaxStage::x, value);
  if (kernel.ignores_mask) mask.clear();
  if (kernel.inverts_mask)
    for (double& kept : mask) kept = 1 - kept;
  Values s(n), y(n), dx(dy.size());
  ref::softmax_scores(kernel.spec, view_of(x), view_of(mask), {s.data(), {n}});
  double m = kernel.spec.subtract_max ? -infinity : 0;
  for (double& value : s) {
    value = kernel.at(score, value);
    if (kernel.spec.subtract_max) m = std::max(m, value);
  }
  if (m == -infinity) return {};
  double l = static_cast<double>(kernel.padding) * std::exp(-m);
  for (Index j = 0; j < n; ++j) {
    y[j] = s[j] == -infinity ? 0 : kernel.at(exponential, std::exp(kernel.at(difference, s[j] - m)));
    if (kernel.summed == 0 || j < kernel.summed) l = kernel.at(running_sum, l + y[j]);
  }
  l = kernel.at(row_sum, l);
  double sum = 0, sum_of_dy = 0;
  for (Index j = 0; j < n; ++j) {
    y[j] = kernel.at(weight, y[j] / l);
    if (dy.empty()) continue;
    sum = kernel.at(running_dot, sum + kernel.at(product, y[j] * dy[j]));
    sum_of_dy += dy[j];
  }
  sum = kernel.at(dot, sum);
  for (std::size_t j = 0; j < dx.size(); ++j) {
    const double slope = kernel.at(SoftmaxStage::slope,
                                   ref::softmax_score_slope(kernel.spec, x[j], mask.empty() ? 1 : mask[j]));
    dx[j] = (kernel.is_logarithm ? dy[j] - y[j] * sum_of_dy : y[j] * (dy[j] - sum)) * slope;
  }
  for (Index j = 0; kernel.is_logarithm && j < n; ++j) y[j] = s[j] - m - std::log(l);
  return {m, l, std::move(y), std::move(dx)};
}

/// The slope of ln y over x, by least squares; 0 if there is none.
double slope_of_logarithm(const Values& x, const Values& y) {
  double n = 0, sum_x = 0, sum_y = 0, xx = 0, xy = 0;
  for (std::size_t j = 0; j < x.size(); ++j) {
    if (!(y[j] > 0) || !std::isfinite(x[j]) || !std::isfinite(y[j])) continue;
    const double log_y = std::log(y[j]);
    n += 1, sum_x += x[j], sum_y += log_y, xx += x[j] * x[j], xy += x[j] * log_y;
  }
  const double spread = n * xx - sum_x * sum_x;
  return spread > 0 ? (n * xy - sum_x * sum_y) / spread : 0;
}

/// fitted_scale: rounded to 1 to 4 digits.
std::vector<SoftmaxVariant> variants(const ref::SoftmaxSpec& spec, double fitted_scale, Index width,
                                     bool has_mask, DType compute) {
  std::vector<SoftmaxVariant> all;
  const auto add = [&](std::string name) -> SoftmaxVariant& {
    return all.emplace_back(SoftmaxVariant{std::move(name), spec});
  };
  add("the logarithm of softmax").is_logarithm = true;
  if (spec.subtract_max) {
    SoftmaxVariant& naive = add("the maximum not subtracted");
    naive.spec.subtract_max = false;
    naive.change = [compute](SoftmaxStage stage, double value) {
      return stage == exponential || stage == row_sum ? round_to(value, compute) : value;
    };
  }
  if (has_mask) add("the mask inverted").inverts_mask = true;
  if (has_mask) add("the mask ignored").ignores_mask = true;
  std::set<std::string> scales;
  for (int digits = 1; std::isfinite(fitted_scale) && digits <= 4; ++digits)
    scales.insert(number_text(fitted_scale, digits));
  const double own_names[] = {spec.scale, 1, spec.scale * spec.scale, 1 / spec.scale};
  for (const std::string& scale : scales) {
    const double value = std::stod(scale);
    const auto is_near = [&](double other) { return std::abs(value - other) <= 1e-4 * std::abs(other); };
    if (std::ranges::none_of(own_names, is_near)) add("scale = " + scale).spec.scale = value;
  }
  if (spec.scale != 1) {
    add("the scale applied twice").spec.scale *= spec.scale;
    add("division by the scale").spec.scale = 1 / spec.scale;
    SoftmaxVariant& unscaled = add("a gradient without the scale");
    unscaled.change = [scale = spec.scale](SoftmaxStage stage, double value) {
      return stage == slope ? value / scale : value;
    };
  }
  for (const Index padded : padded_widths(width))
    add("columns of padding as scores of 0, up to " + std::to_string(padded)).padding = padded - width;
  add("one more score of 0 in the row sum").padding = 1;
  for (const Index summed : cut_widths(width))
    add("a row sum of the first " + std::to_string(summed) + " columns only").summed = summed;

  std::vector<std::pair<std::string_view, std::vector<SoftmaxStage>>> named = {
      {"scores", {score}},
      {"score - max", {difference}},
      {"exponentials", {exponential}},
      {"row sum", {row_sum}},
      {"row sum, added up one by one,", {running_sum}},
      {"sum of dy y, added up one by one,", {running_dot}},
      {"exponentials and row sum", {exponential, row_sum}},
      {"weights", {weight}},
      {"sum of dy y", {dot}},
      {"dy y and its sum", {product, dot}}};
  if (spec.scale != 1) named.push_back({"x", {SoftmaxStage::x}});
  for (const auto& list : {narrow_missteps(named, compute), narrow_throughout<SoftmaxStage>(compute)})
    for (const auto& misstep : list) add(misstep.name).change = misstep.change;
  return all;
}

}  // namespace

std::vector<Decoy> SoftmaxProblem::other_axes() const {
  std::vector<Decoy> all;
  const std::vector<Index>& shape = given().shape;
  const View<const double, 3> kept = mask();
  if (!case_.out.contains("y")) return all;
  std::vector<double> s(given().size());
  for (Index o = 0; o < outer_; ++o)
    for (Index i = 0; i < inner_; ++i)
      ref::softmax_scores(spec_, column(like_x(given().values.data()), o, i), column(kept, o, i),
                          {&like_x(s.data())(o, 0, i), {n_}, {inner_}});
  Index step = 1;
  for (std::size_t a = shape.size(); a-- > 0; step *= shape[a]) {
    if (step == inner_ && shape[a] == n_) continue;  // its own
    if (shape[a] < 2) continue;
    Decoy decoy{"softmax along axis " + std::to_string(a), "y", {}, {}};
    for (const Index at : evenly_spread(given().size(), std::max<Index>(sampled_elements / shape[a], 64))) {
      double sum = 0;
      for (Index n = 0, other = at - at / step % shape[a] * step; n < shape[a]; ++n, other += step)
        sum += std::exp(s[other] - s[at]);
      decoy.at.push_back(at);
      decoy.value.push_back(1 / sum);
    }
    all.push_back(std::move(decoy));
  }
  return all;
}

std::vector<Decoy> SoftmaxProblem::alternatives(std::span<const Expected> expected) const {
  if (n_ == 0) return {};
  std::vector<Decoy> all = other_axes();
  const Index wanted = std::clamp(sampled_elements / n_, fewest_rows, most_rows);
  const View<const double, 3> x = like_x(given().values.data());
  const Tensor* given_dy = case_.input("dy");
  const View<const double, 3> dy = given_dy ? like_x(given_dy->values.data()) : View<const double, 3>{};
  const auto values = [](View<const double, 1> row) {
    Values copy;
    for (Index j = 0; row && j < row.extent(0); ++j) copy.push_back(row(j));
    return copy;
  };
  std::vector<double> slopes = {0};
  if (const Tensor* y = case_.output("y")) {
    for (const Index row : evenly_spread(rows(), wanted)) {
      const Index o = row / inner_, i = row % inner_;
      slopes.push_back(
          slope_of_logarithm(values(column(x, o, i)), values(column(like_x(y->values.data()), o, i))));
    }
  }
  const auto middle = slopes.begin() + static_cast<std::ptrdiff_t>(slopes.size() / 2);
  std::ranges::nth_element(slopes, middle);
  for (const SoftmaxVariant& variant : variants(spec_, *middle, n_, !mask_.empty(), compute_)) {
    for (const Expected& e : expected) {
      Decoy& decoy = all.emplace_back(Decoy{variant.name, e.output, {}, {}});
      decoy.is_of_whole_call = variant.is_of_whole_call;
    }
    const std::span<Decoy> answers(all.end() - static_cast<std::ptrdiff_t>(expected.size()), all.end());
    for (const Index row : evenly_spread(rows(), wanted)) {
      const Index o = row / inner_, i = row % inner_;
      if (may_be_special(o, i)) continue;
      const SoftmaxRow r = computed_row(variant, values(column(x, o, i)), values(column(mask(), o, i)),
                                        values(column(dy, o, i)));
      if (!(r.l > 0)) continue;
      for (Decoy& decoy : answers) {
        const auto add = [&](Index at, double value) {
          decoy.at.push_back(at);
          decoy.value.push_back(value);
        };
        if (decoy.output == "y" || decoy.output == "dx") {
          const Values& of = decoy.output == "y" ? r.y : r.dx;
          for (Index j = 0; j < static_cast<Index>(of.size()); ++j) add((o * n_ + j) * inner_ + i, of[j]);
          continue;
        }
        const double value = decoy.output == "m" ? r.m : decoy.output == "l" ? r.l : r.lse();
        const Index copies = case_.out.at(decoy.output).size() / rows();
        for (Index copy = 0; copy < copies; ++copy) add((o * copies + copy) * inner_ + i, value);
      }
    }
  }
  return all;
}

}  // namespace attest
