// Ways to get a softmax wrong that have names: other columns, scales, masks and constants, and stages in
// narrower formats.
#include <cmath>
#include <numbers>
#include <set>

#include "verify/ops/softmax/stages.hpp"
#include "verify/ops/widths.hpp"
#include "verify/text.hpp"

namespace attest {
namespace {

using enum SoftmaxStage;

/// A number to fewer and fewer digits.
std::set<std::string> roundings(double fitted, int fewest, int most) {
  std::set<std::string> all;
  for (int digits = fewest; std::isfinite(fitted) && digits <= most; ++digits)
    all.insert(number_text(fitted, digits));
  return all;
}

/// lse = a m + b ln l with other factors than 1.
void add_ways_to_form_lse(const ref::SoftmaxSpec& spec, const SoftmaxFits& fits,
                          std::vector<SoftmaxVariant>& all) {
  const auto is_near = [](double a, double b) { return std::abs(a - b) <= 1e-3 * std::abs(b); };
  const auto add = [&](const std::string& name, double of_m, double of_log) {
    SoftmaxVariant& v = all.emplace_back(SoftmaxVariant{name, spec});
    v.lse_of_m = of_m, v.lse_of_log = of_log, v.only = "lse";
    return is_near(fits.lse_of_m, of_m) && is_near(fits.lse_of_log, of_log);
  };
  bool has_name = is_near(fits.lse_of_m, 1) && is_near(fits.lse_of_log, 1);
  has_name |= add("lse = m + log2(l), not ln(l)", 1, std::numbers::log2e);
  has_name |= add("lse = m + log10(l), not ln(l)", 1, std::numbers::log10e);
  has_name |= add("lse with the maximum in base 2", std::numbers::log2e, 1);
  has_name |= add("lse without the log of the row sum", 1, 0);
  if (spec.scale != 1) {
    has_name |= add("lse with the maximum of x, before the scale", 1 / spec.scale, 1);
    has_name |= add("lse with the maximum times the scale twice", spec.scale, 1);
    has_name |= add("lse divided by the scale", 1 / spec.scale, 1 / spec.scale);
    has_name |= add("lse times the scale", spec.scale, spec.scale);
  }
  if (has_name || !std::isfinite(fits.lse_of_m) || !std::isfinite(fits.lse_of_log)) return;
  for (int digits = 1; digits <= 4; ++digits) {
    const std::string of_m = number_text(fits.lse_of_m, digits),
                      of_log = number_text(fits.lse_of_log, digits);
    const double a = number_of(of_m), b = number_of(of_log);
    // What other decoys say: base 2, without the maximum.
    if (a != b && a != 0 && std::isfinite(a) && std::isfinite(b))
      add("lse = " + of_m + " m + " + of_log + " ln(l)", a, b);
  }
}

}  // namespace

std::vector<SoftmaxVariant> softmax_variants(const ref::SoftmaxSpec& spec, const SoftmaxFits& fits,
                                             Index width, bool has_mask, DType compute) {
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
  if (has_mask) {
    // Of a lowered row that has no other score nothing but rounding is lost.
    add("masked scores lowered by a number such as 10000, not to -inf").lowered = 1e4;
  }
  if (spec.subtract_max) {
    for (const char* only : {"m", "l"}) {
      SoftmaxVariant& v = add("the smallest score for the largest, as with a negative scale");
      v.takes_smallest = true, v.only = only, v.is_of_whole_call = false;
    }
  }
  for (const Index by : {-1, 1}) {
    SoftmaxVariant& v = add(by < 0 ? "the row sum of the row before" : "the row sum of the next row");
    v.row_of_sum = by, v.is_of_whole_call = false;
  }
  for (const Index summed : cut_widths(width))
    add("a sum of dy y over the first " + std::to_string(summed) + " columns only").dot_summed = summed;
  add("powers of 2 of score - max in place of powers of e").change = [](SoftmaxStage stage, double value) {
    return stage == difference ? std::numbers::ln2 * value : value;
  };
  for (const std::string& text : roundings(fits.exponent * std::numbers::log2e, 3, 7)) {
    const double factor = number_of(text) / std::numbers::log2e;
    if (std::abs(factor - 1) < 0.1 && std::abs(factor - 1) > unit_roundoff(compute))
      add("powers of 2 with log2(e) as " + text).change = [factor](SoftmaxStage stage, double value) {
        return stage == difference ? factor * value : value;
      };
  }
  for (const std::string& text : roundings(fits.dot, 1, 3)) {
    const double factor = number_of(text);
    // A factor of nearly 0 is that of a sum that is missing.
    constexpr double least_factor = 0x1p-6;
    if (std::abs(factor) < least_factor || factor == 1 || !std::isfinite(factor)) continue;
    SoftmaxVariant& v = add("the gradient's sum times " + text);
    v.is_of_whole_call = false;
    v.change = [factor](SoftmaxStage stage, double value) { return stage == dot ? factor * value : value; };
  }
  if (spec.clamp > 0) {
    add("the clamp ignored").spec.clamp = 0;
    if (spec.scale != 1) add("the clamp applied after the scale").clamps_scores = true;
    add("a gradient that is not 0 where x was clamped").passes_clamped = true;
  }
  add_ways_to_form_lse(spec, fits, all);
  std::set<std::string> scales;
  for (int digits = 1; std::isfinite(fits.scale) && digits <= 4; ++digits)
    scales.insert(number_text(fits.scale, digits));
  const double own_names[] = {spec.scale, 1, spec.scale * spec.scale, 1 / spec.scale};
  for (const std::string& scale : scales) {
    const double value = number_of(scale);
    const auto is_near = [&](double other) { return std::abs(value - other) <= 1e-4 * std::abs(other); };
    if (std::isfinite(value) && std::ranges::none_of(own_names, is_near))
      add("scale = " + scale).spec.scale = value;
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
      {"the inverse of the row sum", {inverse_sum}},
      {"row sum, added up one by one,", {running_sum}},
      {"sum of dy y, added up one by one,", {running_dot}},
      {"exponentials and row sum", {exponential, row_sum}},
      {"exponentials, where y is formed,", {exponential_in_y}},
      {"score - max and its exponentials, where y is formed,", {difference_in_y, exponential_in_y}},
      {"weights", {weight}},
      {"sum of dy y", {dot}},
      {"dy y and its sum", {product, dot}}};
  if (spec.scale != 1) named.push_back({"x", {SoftmaxStage::x}});
  for (const auto& list : {narrow_missteps(named, compute), narrow_throughout<SoftmaxStage>(compute)})
    for (const auto& misstep : list) add(misstep.name).change = misstep.change;
  for (const DType narrow : narrow_formats(compute)) {
    SoftmaxVariant& v = add("row sum, where lse is formed," + in_format(narrow));
    v.only = "lse";
    v.change = [narrow](SoftmaxStage stage, double value) {
      return stage == row_sum_in_lse ? round_to(value, narrow) : value;
    };
  }
  return all;
}

std::vector<SoftmaxVariant> softmax_sum_variants(const ref::SoftmaxSpec& spec, Index width, DType compute) {
  constexpr Index most_lanes = 1024, most_vector = 8;
  std::vector<SoftmaxVariant> all;
  const auto add = [&](std::string name, Index lanes, Index vector, bool is_online) -> SoftmaxVariant& {
    SoftmaxVariant& v = all.emplace_back(SoftmaxVariant{std::move(name), spec});
    v.lanes = lanes, v.vector = vector, v.is_online = is_online;
    return v;
  };
  for (Index lanes = 1; lanes <= most_lanes && lanes < width; lanes *= lanes == 1 ? 32 : 2) {
    for (Index vector = 1; vector <= most_vector && (vector == 1 || lanes > 1); vector *= 2) {
      const std::string threads =
          lanes == 1 ? "row sum"
                     : "row sums of each of " + std::to_string(lanes) + " threads" +
                           (vector == 1 ? "" : ", " + std::to_string(vector) + " columns at a time");
      for (const DType narrow : narrow_formats(compute)) {
        for (const bool is_online : {false, true}) {
          if (lanes == 1 && !is_online) continue;  // see softmax_variants
          add(threads + (is_online ? ", online," : ",") + in_format(narrow), lanes, vector, is_online)
              .change = [narrow](SoftmaxStage stage, double value) {
            return stage == running_sum ? round_to(value, narrow) : value;
          };
        }
      }
      for (Index from = 0; from < width; from = from == 0 ? 8 : 2 * from) {
        const std::string where = from == 0 ? "" : " from column " + std::to_string(from) + " on";
        add(threads + " not rescaled when the maximum rises" + where, lanes, vector, true).unscaled_from =
            from;
      }
    }
  }
  // Tiles have their maximum before anything of them is added.
  for (Index tile = 8; tile < width; tile *= 2) {
    const std::string of = " when the maximum rises, in tiles of " + std::to_string(tile) + " columns";
    const Index last = (width - 1) / tile * tile;
    for (const Index from : {tile, last}) {
      if (from == last && last == tile) continue;
      SoftmaxVariant& v = add(
          (from == last ? "row sum not rescaled by the last tile" : "row sum not rescaled") + of, 1, 1, true);
      v.tile = tile, v.unscaled_from = from;
    }
    if (last == tile) all.back().name = "row sum not rescaled" + of;
  }
  return all;
}

}  // namespace attest
