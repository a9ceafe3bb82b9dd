// What would explain a layer_norm_qkv that failed: another norm, or another projection.
#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <span>

#include "core/array.hpp"
#include "verify/ops/layer_norm_qkv/problem.hpp"
#include "verify/ops/norm/variants.hpp"
#include "verify/ops/quantised.hpp"
#include "verify/ops/stages.hpp"

namespace attest {
namespace {

/// What an answer may cost, and how many tokens it speaks of.
constexpr Index most_products = Index{1} << 26, fewest_tokens = 4, most_tokens = 32;
/// Weights of more elements than this are not quantised for a diagnosis.
constexpr Index most_elements = Index{1} << 24;

using Row = std::vector<double>;

/// Of which column each column of q, k and v, one after the other, has the value.
struct OtherOrder {
  std::string name;
  std::function<Index(Index o)> of;
};

/// Rows of qkv_weight counted through the axes in another order, and heads of q, k or v in another order.
std::vector<OtherOrder> other_orders(Index heads, Index head_width) {
  std::vector<OtherOrder> all;
  const std::array<Index, 3> extents = {3, heads, head_width};
  constexpr std::array<const char*, 3> names = {"3", "H", "D"};
  std::array<std::size_t, 3> order = {0, 1, 2};
  while (std::ranges::next_permutation(order).found) {
    std::string name = "rows of qkv_weight counted as [";
    for (std::size_t n = 0; n < 3; ++n) name += std::string(n == 0 ? "" : ", ") + names[order[n]];
    all.push_back(
        {name + "]", [=](Index o) {
           const std::array<Index, 3> at = {o / (heads * head_width), o / head_width % heads, o % head_width};
           Index place = 0;
           for (const std::size_t axis : order) place = place * extents[axis] + at[axis];
           return place;
         }});
  }
  const Index width = heads * head_width;
  for (Index third = 0; third < 3; ++third) {
    const std::string third_name(qkv_names[third]);
    for (Index other = 0; other < 3; ++other)
      if (other != third)
        all.push_back({std::string(qkv_names[other]) + " in the place of " + third_name,
                       [=](Index o) { return o / width == third ? o % width + other * width : o; }});
    const auto with_heads = [&](const std::string& name, std::function<Index(Index)> head) {
      all.push_back({third_name + name, [=](Index o) {
                       const Index h = o % width / head_width;
                       return o / width == third ? o + (head(h) - h) * head_width : o;
                     }});
    };
    if (heads == 1) continue;
    with_heads(" of the head before", [=](Index h) { return (h + heads - 1) % heads; });
    if (heads == 2) continue;
    with_heads(" of the head before in the last head", [=](Index h) { return std::min(h, heads - 2); });
    with_heads(" of the next head", [=](Index h) { return (h + 1) % heads; });
    with_heads(" of the heads in reverse order", [=](Index h) { return heads - 1 - h; });
    for (Index group = 2; group <= heads; ++group) {
      if (heads % group != 0) continue;
      with_heads(" of head h / " + std::to_string(group), [=](Index h) { return h / group; });
      with_heads(" of the first of each " + std::to_string(group) + " heads",
                 [=](Index h) { return h / group * group; });
    }
  }
  return all;
}

/// Columns that a kernel adds up before it rounds the sum, and rows of weights that it is tried on.
constexpr Index steps[] = {1, 8, 16, 32, 64, 128}, narrow_columns = 96;

}  // namespace

std::vector<Decoy> LayerNormQkvProblem::narrow_products(const std::vector<Index>& tokens,
                                                        const std::vector<Row>& rows) const {
  std::vector<Decoy> all;
  for (const DType narrow : narrow_formats(contract_.accumulate.dtype)) {
    for (const Index step : steps) {
      if (step > 1 && step >= 2 * width_) continue;
      const std::string name = "sums of the product" + in_format(narrow) + ", " + std::to_string(step) +
                               (step == 1 ? " column at a time" : " columns at a time");
      std::array<Decoy, 3> answers;
      for (std::size_t n = 0; n < 3; ++n) {
        answers[n] = {name, std::string(qkv_names[n]), {}, {}};
        answers[n].is_of_whole_call = true;
      }
      for (const Index o : evenly_spread(3 * width_, narrow_columns)) {
        for (std::size_t t = 0; t < tokens.size(); ++t) {
          double sum = 0;
          for (Index first = 0; first < width_; first += step) {
            double part = 0;
            for (Index j = first; j < std::min(first + step, width_); ++j)
              part += in_.qkv_weight(o, j) * rows[t][j];
            sum = round_to(sum + part, narrow);
          }
          answers[o / width_].at.push_back(place(tokens[t], o));
          answers[o / width_].value.push_back(sum + (in_.qkv_bias ? in_.qkv_bias(o) : 0));
        }
      }
      std::ranges::move(answers, std::back_inserter(all));
    }
  }
  return all;
}

std::vector<Decoy> LayerNormQkvProblem::alternatives(std::span<const Expected>) const {
  std::vector<Decoy> all;
  const Index width = width_;
  const std::vector<Index> tokens = evenly_spread(
      batch_ * tokens_, std::clamp(most_products / (3 * width * width), fewest_tokens, most_tokens));
  /// What the product sees of each of the tokens.
  const auto normalised = [&](const NormVariant& variant, std::optional<DType> stored) {
    std::vector<Row> rows(tokens.size(), Row(width));
    const NormStages norm(variant, {});
    for (std::size_t t = 0; t < tokens.size(); ++t) {
      norm.row(tokens[t], norm.statistics(tokens[t]), {rows[t].data(), {width}}, {});
      if (stored)
        for (double& y : rows[t]) y = round_to(y, *stored);
    }
    return rows;
  };
  using Entry = std::function<double(Index o, Index j)>;
  using Finish = std::function<double(Index o, double sum)>;
  const Entry weight = [&](Index o, Index j) { return in_.qkv_weight(o, j); };
  const auto bias = [&](Index o) { return in_.qkv_bias ? in_.qkv_bias(o) : 0; };
  const Finish with_bias = [&](Index o, double sum) { return sum + bias(o); };
  const auto add = [&](const std::string& name, const std::vector<Row>& rows, const Entry& w,
                       const Finish& finish, bool is_of_whole_call) {
    std::vector<Decoy> answers;
    for (const std::string_view output : qkv_names) {
      answers.push_back({name, std::string(output), {}, {}});
      answers.back().is_of_whole_call = is_of_whole_call;
    }
    for (Index o = 0; o < 3 * width; ++o) {
      Row of_weight(width);
      for (Index j = 0; j < width; ++j) of_weight[j] = w(o, j);
      for (std::size_t t = 0; t < tokens.size(); ++t) {
        double sum = 0;
        for (Index j = 0; j < width; ++j) sum += of_weight[j] * rows[t][j];
        answers[o / width].at.push_back(place(tokens[t], o));
        answers[o / width].value.push_back(finish(o, sum));
      }
    }
    std::ranges::move(answers, std::back_inserter(all));
  };

  const NormVariant right{"", spec_, in_.norm};
  const std::vector<Row> rows = normalised(right, contract_.stored);
  for (const NormVariant& variant : norm_variants(spec_, in_.norm, contract_.norm.compute)) {
    const std::vector<Row> wrong = normalised(variant, contract_.stored);
    if (wrong != rows) add(variant.name, wrong, weight, with_bias, variant.is_of_whole_call);
  }
  std::vector<Row> plain(tokens.size(), Row(width));
  for (std::size_t t = 0; t < tokens.size(); ++t)
    for (Index j = 0; j < width; ++j) plain[t][j] = in_.norm.x(tokens[t], j);
  add("no norm", plain, weight, with_bias, false);
  for (const DType dtype :
       {DType::float32, DType::float16, DType::bfloat16, DType::float8_e4m3fn, DType::float8_e5m2}) {
    if (dtype == contract_.stored.value_or(contract_.norm.compute)) continue;
    add("the normalised x stored in " + std::string(format_of(dtype).name) +
            ": contract key intermediate_dtype",
        normalised(right, dtype), weight, with_bias, true);
    if (!contract_.stored) continue;
    std::vector<Row> twice = rows;
    for (Row& row : twice)
      for (double& y : row) y = round_to(y, dtype);
    if (twice != rows)
      add("the normalised x stored in " + std::string(format_of(*contract_.stored).name) + ", then" +
              in_format(dtype),
          twice, weight, with_bias, true);
  }

  if (heads_ > 1 && tokens_ > 1) {
    const auto first = static_cast<std::ptrdiff_t>(all.size());
    add(heads_outside_ ? "layout = bshd" : "layout = bhsd", rows, weight, with_bias, false);
    for (Decoy& answer : std::span(all.begin() + first, all.end())) answer.at.clear();
    for (Index o = 0; o < 3 * width; ++o)
      for (const Index token : tokens) all[first + o / width].at.push_back(place(token, o, !heads_outside_));
  }
  for (const OtherOrder& other : other_orders(heads_, head_width_)) {
    add(
        other.name, rows, [&](Index o, Index j) { return in_.qkv_weight(other.of(o), j); },
        [&](Index o, double sum) { return sum + bias(other.of(o)); }, false);
  }
  const double scale = 1 / std::sqrt(static_cast<double>(head_width_));
  add(
      "q times 1/sqrt(D)", rows, weight,
      [&](Index o, double sum) { return (sum + bias(o)) * (o < width ? scale : 1); }, false);
  add(
      "each third of qkv_weight transposed", rows,
      [&](Index o, Index j) { return in_.qkv_weight(o / width * width + j, o % width); }, with_bias, false);
  for (Index third = 0; in_.qkv_bias && third < 3; ++third) {
    add(
        "no qkv_bias in " + std::string(qkv_names[third]), rows, weight,
        [&](Index o, double sum) { return o / width == third ? sum : sum + bias(o); }, false);
    add(
        "qkv_bias twice in " + std::string(qkv_names[third]), rows, weight,
        [&](Index o, double sum) { return sum + (o / width == third ? 2 : 1) * bias(o); }, false);
    for (Index other = 0; other < 3; ++other) {
      if (other == third) continue;
      add(
          "qkv_bias of " + std::string(qkv_names[other]) + " in " + std::string(qkv_names[third]), rows,
          weight,
          [&](Index o, double sum) { return sum + bias(o / width == third ? o % width + other * width : o); },
          false);
    }
  }
  std::ranges::move(narrow_products(tokens, rows), std::back_inserter(all));
  if (in_.qkv_weight.extent(0) * width > most_elements) return all;
  for (const Quantised& q : quantised(in_.qkv_weight))
    add(
        "qkv_weight" + q.how, rows, [&](Index o, Index j) { return q.values[o * width + j]; }, with_bias,
        true);
  return all;
}

}  // namespace attest
