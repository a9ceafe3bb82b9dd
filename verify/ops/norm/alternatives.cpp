// What would explain a normalisation that failed: what kernels would have written that err in a known way.
#include <algorithm>
#include <iterator>

#include "core/array.hpp"
#include "verify/compare.hpp"
#include "verify/ops/norm/problem.hpp"
#include "verify/ops/norm/variants.hpp"
#include "verify/ops/sample.hpp"

namespace attest {
namespace {

constexpr Index sampled_columns = 32;
/// Of wide rows, fewer are looked at: there are hundreds of variants.
constexpr Index most_sampled_elements = Index{1} << 16, fewest_rows = 4;
/// dweight needs the statistics of all rows, for every variant.
constexpr Index most_elements = Index{1} << 24;

}  // namespace

std::vector<Decoy> NormProblem::alternatives(std::span<const Expected> expected) const {
  const Index rows = norm_.in.rows(), width = norm_.in.width();
  const std::vector<Index> some_columns = evenly_spread(width, sampled_columns);
  std::vector<Index> some_rows;
  const std::vector<Index> sample = sampled_rows();
  for (const Index n :
       evenly_spread(static_cast<Index>(sample.size()), std::max(fewest_rows, most_sampled_elements / width)))
    some_rows.push_back(sample[n]);
  // What a gradient that is right should have been says nothing.
  const auto is_wrong = [&](std::string_view output) {
    const auto e = std::ranges::find(expected, output, &Expected::output);
    return e != expected.end() && has_wrong_elements(*e);
  };
  const bool needs_dx = is_wrong("dx"), needs_dweight = is_wrong("dweight") && rows * width <= most_elements;
  Array<double, 1> y({width}), dx({width});
  std::vector<Decoy> all = narrow_gradient_sums(expected);
  std::vector<NormVariant> variants = norm_variants(norm_.spec, norm_.in, norm_.contract.compute);
  for (NormVariant& v : fitted_variants(expected))
    if (std::ranges::find(variants, v.name, &NormVariant::name) == variants.end())
      variants.push_back(std::move(v));
  std::ranges::move(lost_parts(expected), std::back_inserter(variants));
  std::ranges::move(multiplied_gradients(expected), std::back_inserter(all));
  std::ranges::move(in_some_columns(expected), std::back_inserter(all));
  std::ranges::move(misplaced_partial_sums(expected), std::back_inserter(all));
  std::ranges::move(unshared_sums(expected), std::back_inserter(all));
  std::ranges::move(of_other_rows(expected), std::back_inserter(all));
  if (needs_dx && !is_wrong("y"))
    std::ranges::move(norm_column_variants(norm_.spec, norm_.in, norm_.contract.compute),
                      std::back_inserter(variants));
  if (is_wrong("y") || is_wrong("mean") || is_wrong("rstd"))
    std::ranges::move(norm_forward_variants(norm_.spec, norm_.in, norm_.contract.compute),
                      std::back_inserter(variants));
  for (const char* alone : {"x", "residual"}) {
    if (!case_.input("residual")) continue;
    NormVariant& v = variants.emplace_back(
        NormVariant{std::string("statistics of ") + alone + " alone", norm_.spec, norm_.in});
    v.of_statistics = {case_.input(alone)->values.data(), {rows, width}};
    if (!norm_.spec.is_centred) continue;
    NormVariant& of_mean = variants.emplace_back(
        NormVariant{std::string("the mean of ") + alone + " alone", norm_.spec, norm_.in});
    of_mean.of_mean = v.of_statistics;
  }
  const std::vector<double> other_sum = norm_.other_sum();
  if (!other_sum.empty()) {
    NormVariant& v =
        variants.emplace_back(NormVariant{norm_.rounds_sum() ? "x + residual not rounded: round_sum = false"
                                                             : "x + residual rounded: round_sum = true",
                                          norm_.spec, norm_.in});
    v.in.x = {other_sum.data(), {rows, width}};
    NormVariant& of_statistics = variants.emplace_back(
        NormVariant{norm_.rounds_sum() ? "statistics of x + residual before it is rounded"
                                       : "statistics of x + residual as rounded, y of what is not rounded",
                    norm_.spec, norm_.in});
    of_statistics.of_statistics = {other_sum.data(), {rows, width}};
  }
  // What the spec could have said is named with its key.
  const std::string cast = "the normalised x, before the weight," + in_format(*case_.input("x")->dtype);
  for (NormVariant& v : variants)
    if (v.name == cast) v.name += ": spec key cast_before_weight";
  for (const NormVariant& variant : variants) {
    const NormStages kernel(variant, norm_.dy);
    std::vector<Decoy> answers;
    for (const Expected& e : expected) {
      // How variances are merged is another matter than how means are.
      if (variant.merges_alike && is_wrong("mean") && e.output != "mean") continue;
      answers.push_back({variant.name, e.output, {}, {}});
      answers.back().is_of_whole_call = variant.is_of_whole_call;
    }
    const auto add = [&](std::string_view output, Index at, double value) {
      for (Decoy& answer : answers) {
        if (answer.output != output) continue;
        answer.at.push_back(at);
        answer.value.push_back(value);
      }
    };
    for (const Index i : some_rows) {
      const NormStages::Statistics s = kernel.statistics(i);
      add("mean", i, s.mean);
      add("rstd", i, s.rstd);
      kernel.row(i, s, y.view(), needs_dx ? dx.view() : View<double, 1>{});
      for (Index j = 0; j < width; ++j) {
        add("y", i * width + j, y(j));
        if (needs_dx) add("dx", i * width + j, dx(j));
      }
    }
    if (needs_dweight) {
      std::vector<double> sums(some_columns.size());
      for (Index i = 0; i < rows; ++i) {
        const NormStages::Statistics s = kernel.statistics(i);
        for (std::size_t n = 0; n < sums.size(); ++n) sums[n] += kernel.dweight_term(i, some_columns[n], s);
      }
      for (std::size_t n = 0; n < sums.size(); ++n) add("dweight", some_columns[n], sums[n]);
    }
    std::ranges::move(answers, std::back_inserter(all));
  }
  return all;
}

}  // namespace attest
