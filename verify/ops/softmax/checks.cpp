// Softmax held against ref on a sample of rows, and the wrong answers that must not pass.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "verify/ops/softmax/problem.hpp"
#include "verify/recheck.hpp"
#include "verify/text.hpp"

namespace attest {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr Index sampled_rows = 64;  // of a case

void add(Decoy& decoy, Index at, double value) {
  decoy.at.push_back(at);
  decoy.value.push_back(value);
}

}  // namespace

bool SoftmaxProblem::may_be_special(Index o, Index i) const {
  if (spec_.subtract_max) return false;
  const View<const double, 3> x = like_x(case_.in.at("x").values.data());
  return !ref::omissible(spec_, column(x, o, i), column(mask(), o, i), compute_).maximum;
}

std::vector<Decoy> SoftmaxProblem::sampled_answers(const std::string& name, const Variant& variant) const {
  const View<const double, 3> x = like_x(case_.in.at("x").values.data());
  std::vector<double> s_data(n_), y_data(n_), dy_data(n_), dx_data(n_);
  const View<double, 1> s(s_data.data(), {n_}), y(y_data.data(), {n_}), dy(dy_data.data(), {n_}),
      dx(dx_data.data(), {n_});
  const double base = variant.base == 0 ? 1 : variant.base;

  std::vector<Decoy> all;
  for (const auto& [output_name, tensor] : case_.out) all.push_back({name, output_name, {}, {}});
  const Index count = std::min(rows(), sampled_rows);
  for (Index n = 0; n_ > 0 && n < count; ++n) {
    const Index row = count == 1 ? 0 : n * (rows() - 1) / (count - 1), o = row / inner_, i = row % inner_;
    if (may_be_special(o, i)) continue;
    ref::softmax_scores(variant.spec, column(x, o, i), column(mask(), o, i), s);
    for (Index j = 0; j < n_; ++j) {
      if (variant.ignores_mask && s(j) == -infinity) s(j) = 0;
      if (variant.is_uniform && s(j) > -infinity) s(j) = 0;
      s(j) *= base;
    }
    const ref::SoftmaxState state = spec_.subtract_max ? ref::online_softmax(s) : ref::naive_softmax(s);
    ref::softmax(s, state, spec_.empty_row, y);
    if (const Tensor* given_dy = case_.input("dy")) {
      for (Index j = 0; j < n_; ++j) dy(j) = like_x(given_dy->values.data())(o, j, i);
      ref::softmax_backward(y, dy, dx);
      for (Index j = 0; j < n_; ++j) {
        const double kept = mask_.empty() ? 1 : mask()(o, j, i);
        const double slope = ref::softmax_score_slope(variant.spec, x(o, j, i), kept);
        if (variant.drops_sum) dx(j) = y(j) * dy(j);
        if (state.l > 0) dx(j) *= slope;
      }
    }
    const double m = state.l > 0 ? state.m : spec_.subtract_max ? -infinity : 0;
    const double lse = ref::log_sum_exp(state);
    for (Decoy& decoy : all) {
      const auto add_copies = [&](double value) {
        const Tensor& tensor = case_.out.at(decoy.output);
        const Index copies = tensor.size() / rows();
        for (Index r = 0; r < copies; ++r) add(decoy, (o * copies + r) * inner_ + i, value);
      };
      if (decoy.output == "lse") {
        const bool is_empty = lse == -infinity;
        add_copies(is_empty ? lse : variant.lse_factor * (lse - variant.lse_offset_m * m));
      }
      if (decoy.output == "m") add_copies(m);
      if (decoy.output == "l") add_copies(state.l);
      for (Index j = 0; j < n_; ++j) {
        const Index at = (o * n_ + j) * inner_ + i;
        if (decoy.output == "y") add(decoy, at, y(j));
        if (decoy.output == "dx") add(decoy, at, dx(j));
      }
    }
  }
  return all;
}

void SoftmaxProblem::recheck(std::span<const Expected> expected) const {
  hold_against_ref(expected, sampled_answers("ref", {.spec = spec_}));
}

std::vector<Decoy> SoftmaxProblem::decoys(std::span<const Expected>) const {
  std::vector<Decoy> all;
  const auto add_variant = [&](const std::string& name, const Variant& variant,
                               const std::string& output_name) {
    for (Decoy& decoy : sampled_answers(name, variant)) {
      if (output_name.empty() || decoy.output == output_name) all.push_back(std::move(decoy));
    }
  };
  Variant scaled{.spec = spec_};
  scaled.spec.scale *= 1.01;
  add_variant("a scale 1 % off", scaled, "");
  add_variant("powers of 2 in place of e", {.spec = spec_, .base = std::numbers::ln2}, "");
  add_variant("equal weights", {.spec = spec_, .is_uniform = true}, "y");
  const std::vector<double>& x = case_.in.at("x").values;
  const bool has_absent = !mask_.empty() || std::find(x.begin(), x.end(), -infinity) != x.end();
  if (has_absent && spec_.clamp == 0)
    add_variant("absent scores counted as 0", {.spec = spec_, .ignores_mask = true}, "");
  add_variant("lse in base 2", {.spec = spec_, .lse_factor = std::numbers::log2e}, "lse");
  if (spec_.subtract_max) add_variant("lse without the maximum", {.spec = spec_, .lse_offset_m = 1}, "lse");
  add_variant("a gradient without the row sum", {.spec = spec_, .drops_sum = true}, "dx");
  if (spec_.scale != 1) {
    Variant unscaled{.spec = spec_};
    unscaled.spec.scale = 1;
    add_variant("scale = 1", unscaled, "");
  }
  return all;
}

}  // namespace attest
