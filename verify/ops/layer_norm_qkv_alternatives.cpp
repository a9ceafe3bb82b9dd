// What would explain a layer_norm_qkv that failed: another norm, or another projection.
#include <algorithm>
#include <cmath>
#include <functional>
#include <span>

#include "core/array.hpp"
#include "verify/ops/layer_norm_qkv_problem.hpp"
#include "verify/ops/norm_variants.hpp"
#include "verify/ops/quantised.hpp"

namespace attest {
namespace {

/// What an answer may cost, and how many tokens it speaks of.
constexpr Index most_products = Index{1} << 26, fewest_tokens = 4, most_tokens = 32;
/// Weights of more elements than this are not quantised for a diagnosis.
constexpr Index most_elements = Index{1} << 24;

using Row = std::vector<double>;

}  // namespace

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
  }

  if (heads_ > 1 && tokens_ > 1) {
    const auto first = static_cast<std::ptrdiff_t>(all.size());
    add(heads_outside_ ? "layout = bshd" : "layout = bhsd", rows, weight, with_bias, false);
    for (Decoy& answer : std::span(all.begin() + first, all.end())) answer.at.clear();
    for (Index o = 0; o < 3 * width; ++o)
      for (const Index token : tokens) all[first + o / width].at.push_back(place(token, o, !heads_outside_));
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
  }
  if (in_.qkv_weight.extent(0) * width > most_elements) return all;
  for (const Quantised& q : quantised(in_.qkv_weight))
    add(
        "qkv_weight" + q.how, rows, [&](Index o, Index j) { return q.values[o * width + j]; }, with_bias,
        true);
  return all;
}

}  // namespace attest
