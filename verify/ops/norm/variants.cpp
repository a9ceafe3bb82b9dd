// Ways to get a normalisation wrong: other options, statistics of other columns or rows, terms left out, and
// stages in narrower formats.
#include "verify/ops/norm/variants.hpp"

#include <algorithm>
#include <cmath>

#include "verify/ops/widths.hpp"
#include "verify/text.hpp"

namespace attest {
namespace {

using enum NormStage;

/// Common values of eps: powers of ten, and the spacing at 1 of float32, float16 and bfloat16, which some
/// programs use where none is given.
std::vector<double> common_eps() {
  std::vector<double> all = {0x1p-23, 0x1p-10, 0x1p-7};
  for (int e = -12; e <= -1; ++e) all.push_back(std::pow(10, e));
  return all;
}

class Variants {
 public:
  Variants(const NormSpec& spec, const NormInputs& in, DType compute)
      : right_{"", spec, in}, compute_(compute) {
    options();
    other_columns();
    affine();
    other_rows();
    gradients();
    narrow();
  }
  std::vector<NormVariant> take() { return std::move(all_); }

 private:
  NormVariant& add(std::string name) {
    all_.push_back(right_);
    all_.back().name = std::move(name);
    return all_.back();
  }
  /// One that has `to` in place of what it should have at a stage.
  void replace(std::string name, std::vector<NormStage> stages, double to) {
    NormVariant& v = add(std::move(name));
    v.is_of_whole_call = false;
    v.change = [stages = std::move(stages), to](NormStage stage, double x) {
      return std::ranges::find(stages, stage) == stages.end() ? x : to;
    };
  }

  void multiply(std::string name, std::vector<NormStage> stages, double by) {
    NormVariant& v = add(std::move(name));
    v.is_of_whole_call = false;
    v.change = [stages = std::move(stages), by](NormStage stage, double x) {
      return std::ranges::find(stages, stage) == stages.end() ? x : by * x;
    };
  }

  void options() {
    for (const double eps : common_eps()) {
      if (std::abs(eps - right_.spec.eps) <= 1e-3 * eps) continue;
      add("eps = " + number_text(eps, 3)).spec.eps = eps;
    }
    if (right_.spec.xhat_dtype)
      add("the normalised x not rounded before the weight: cast_before_weight = false").spec.xhat_dtype = {};
    if (right_.in.weight && right_.in.bias) {
      NormVariant& v = add("no weight, no bias");
      v.in.weight = v.in.bias = {};
      v.is_of_whole_call = false;
    }
    if (right_.in.weight && right_.spec.weight_offset != 0)
      add("weight_offset added twice").spec.weight_offset *= 2;
  }

  void other_columns() {
    const Index width = right_.in.width();
    const bool is_centred = right_.spec.is_centred;
    const std::string of = is_centred ? "the variance" : "the mean square";
    for (const Index padded : padded_widths(width)) {
      for (NormVariant& v : over_padded_width(right_.spec, right_.in, padded)) all_.push_back(std::move(v));
      if (is_centred)
        add("columns of padding in the variance, up to " + std::to_string(padded)).padding = padded - width;
    }
    for (const Index summed : cut_widths(width))
      add(of + " of the first " + std::to_string(summed) + " columns only").summed = summed;
    if (is_centred) {
      replace("the mean not subtracted in the variance", {mean_in_variance}, 0);
      replace("the mean not subtracted from x", {mean_in_y}, 0);
    }
  }

  void affine() {
    using enum NormVariant::Affine;
    const auto with = [&](const char* name, NormVariant::Affine affine) {
      NormVariant& v = add(name);
      v.affine = affine, v.is_of_whole_call = false;
    };
    if (right_.in.weight && right_.in.bias)
      with("bias added before the weight: (xhat + bias) weight", bias_then_weight);
    if (right_.spec.weight_offset != 0)
      with("weight_offset added to the product with the weight", offset_after_weight);
  }

  void other_rows() {
    for (const Index by : {Index{1}, Index{-1}}) {
      const std::string row = by > 0 ? "of the next row" : "of the row before";
      NormVariant& v = add("rstd " + row);
      v.rstd_row = by, v.is_of_whole_call = false;
      if (!right_.spec.is_centred) continue;
      NormVariant& both = add("mean and rstd " + row);
      both.mean_row = both.rstd_row = by, both.is_of_whole_call = false;
    }
  }

  void gradients() {
    replace("dx without the mean of dy weight xhat", {mean_gx}, 0);
    if (right_.spec.is_centred) replace("dx without the mean of dy weight", {mean_g}, 0);
    const double n = static_cast<double>(right_.in.width());
    multiply("dx with the sum of dy weight xhat, not its mean", {mean_gx}, n);
    multiply("dx with the mean of dy weight xhat added, not subtracted", {mean_gx}, -1);
    if (right_.spec.is_centred) {
      multiply("dx with the sum of dy weight, not its mean", {mean_g}, n);
      multiply("dx with sums of dy weight and of dy weight xhat, not their means", {mean_gx, mean_g}, n);
      multiply("dx with the mean of dy weight added, not subtracted", {mean_g}, -1);
      multiply("dx with both means added, not subtracted", {mean_gx, mean_g}, -1);
    }
    replace("dx without rstd", {rstd_in_dx}, 1);
    if (right_.in.weight) replace("the mean of dy weight xhat without the weight", {weight_in_mean_gx}, 1);
    if (right_.in.weight && right_.spec.is_centred)
      replace("means of dx without the weight", {weight_in_mean_gx, weight_in_mean_g}, 1);
    if (right_.in.weight && right_.spec.is_centred)
      replace("the mean of dy weight without the weight", {weight_in_mean_g}, 1);
    // Either of the two factors may be without it: the product is the same.
    replace("rstd missing once in xhat times the mean of dy weight xhat", {rstd_in_dx_xhat}, 1);
    replace("rstd missing twice in xhat times the mean of dy weight xhat", {rstd_in_mean_gx, rstd_in_dx_xhat},
            1);
    NormVariant& plain = add("dweight of x that is not normalised");
    plain.is_of_whole_call = false;
    plain.change = [](NormStage stage, double x) {
      return stage == mean_in_dweight ? 0 : stage == rstd_in_dweight ? 1 : x;
    };
  }

  void narrow() {
    std::vector<std::pair<std::string_view, std::vector<NormStage>>> named = {
        {"rstd", {rstd}},
        {"rstd, where y is formed,", {rstd_in_y}},
        {"squares", {square}},
        {"sums over the columns, one by one,", {running_sum}},
        {"squares and their sum", {square, sum_of_squares}},
        {"the normalised x of dweight", {xhat_in_dweight}},
        {"the normalised x of dx", {xhat_in_dx}},
        {"dy times the weight", {g}},
        {"the mean of dy weight xhat", {mean_gx}},
        {right_.spec.is_centred ? "variance" : "mean square", {variance}}};
    if (right_.spec.is_centred) {
      named.push_back({"mean", {mean}});
      named.push_back({"mean and rstd, as they are stored,", {stored_mean, rstd}});
      named.push_back({"x - mean, before it is squared,", {centred}});
      named.push_back({"the mean of dy weight", {mean_g}});
    }
    // Where the normalised x is rounded, its gradient is.
    std::vector<NormStage> parts = {dx_direct, dx_through_means};
    if (right_.spec.xhat_dtype) parts.push_back(g);
    named.push_back({"dx as the sum of two parts, each of them", parts});
    if (!right_.spec.xhat_dtype) named.push_back({"the normalised x, before the weight,", {xhat}});
    if (right_.in.bias) named.push_back({"the product with the weight, before the bias,", {product}});
    if (right_.spec.weight_offset != 0) named.push_back({"weight + offset", {NormStage::weight}});
    for (const DType narrow : narrow_formats(compute_)) {
      add("y stored in " + std::string(format_of(narrow).name) + " on the way").change =
          [narrow](NormStage stage, double x) { return stage == y ? round_to(x, narrow) : x; };
    }
    for (const auto& list : {narrow_missteps(named, compute_), narrow_throughout<NormStage>(compute_)})
      for (const auto& misstep : list) add(misstep.name).change = misstep.change;
  }

  NormVariant right_;
  DType compute_;
  std::vector<NormVariant> all_;
};

}  // namespace

std::vector<NormVariant> over_padded_width(const NormSpec& spec, const NormInputs& in, Index padded) {
  std::vector<NormVariant> all;
  const double share = static_cast<double>(in.width()) / static_cast<double>(padded);
  const auto add = [&](const std::string& which, std::vector<NormStage> means) {
    NormVariant& v =
        all.emplace_back(NormVariant{which + " over a padded width of " + std::to_string(padded), spec, in});
    v.change = [share, means = std::move(means)](NormStage stage, double x) {
      return std::ranges::find(means, stage) == means.end() ? x : x * share;
    };
  };
  add(spec.is_centred ? "mean and variance" : "mean square", {mean, variance});
  add("the mean of dy weight xhat", {mean_gx});
  if (!spec.is_centred) return all;
  add("the mean", {mean});
  add("the variance", {variance});
  add("the mean of dy weight", {mean_g});
  add("both means of dx", {mean_gx, mean_g});
  return all;
}

std::vector<NormVariant> norm_variants(const NormSpec& spec, const NormInputs& in, DType compute) {
  return Variants(spec, in, compute).take();
}

}  // namespace attest
