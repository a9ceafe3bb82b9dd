// Faults of some columns only: of a tail that a loop leaves over, of one warp, of a component of each vector.
#include "verify/ops/norm/places.hpp"

#include <algorithm>
#include <iterator>

#include "core/array.hpp"
#include "verify/compare.hpp"
#include "verify/ops/norm/problem.hpp"
#include "verify/ops/norm/variants.hpp"
#include "verify/ops/sample.hpp"

namespace attest {
namespace {

constexpr Index most_rows = 32;

/// Columns of a place that have a wrong element. By chance a column may have none: a bias of nearly 0.
constexpr double least_filled = 0.9;
/// A place that has more of all columns says nothing.
constexpr double most_of_all = 0.9;
constexpr Index longest_period = 4096;

/// Columns whose remainder by `period` is in [first, last].
struct Pattern {
  Index period, first, last;

  bool holds(Index j) const { return first <= j % period && j % period <= last; }
  std::string text(Index width) const {
    const auto range = [](const std::string& word, Index a, Index b) {
      return a == b ? " in " + word + " " + std::to_string(a)
                    : " in " + word + "s " + std::to_string(a) + ".." + std::to_string(b);
    };
    if (period < width) return range("column", first, last) + " of every " + std::to_string(period);
    if (last + 1 == width && first < last) return " in columns from " + std::to_string(first) + " on";
    return range("column", first, last);
  }
};

}  // namespace

std::optional<ColumnPlace> place_of_wrong_columns(const Expected& e, Index width) {
  if (width < 2) return {};
  std::vector<bool> is_wrong(width);
  for (Index at = 0; at < e.dumped->size(); ++at)
    if (!is_wrong[at % width] && !within_bound(e, at, e.dumped->values[at])) is_wrong[at % width] = true;
  const Index count = std::ranges::count(is_wrong, true);
  if (count == 0) return {};
  const auto pattern_of = [&](Index period) -> std::optional<Pattern> {
    Pattern p{period, period, 0};
    for (Index j = 0; j < width; ++j)
      if (is_wrong[j]) p.first = std::min(p.first, j % period), p.last = std::max(p.last, j % period);
    Index held = 0;
    for (Index j = 0; j < width; ++j) held += p.holds(j);
    const double all = static_cast<double>(width), of_place = static_cast<double>(held);
    const bool is_one =
        of_place <= most_of_all * all && static_cast<double>(count) >= least_filled * of_place;
    return is_one ? std::optional(p) : std::nullopt;
  };
  std::optional<Pattern> pattern = pattern_of(width);
  for (Index period = 2; !pattern && period < width && period <= longest_period; period *= 2)
    pattern = pattern_of(period);
  if (!pattern) return {};
  return ColumnPlace{[p = *pattern](Index j) { return p.holds(j); }, pattern->text(width)};
}

std::vector<Index> wrong_rows(const Expected& e, Index width, Index most) {
  std::vector<Index> all, some;
  for (Index at = 0; at < e.dumped->size(); ++at) {
    if (within_bound(e, at, e.dumped->values[at])) continue;
    all.push_back(at / width);
    at = (at / width + 1) * width - 1;
  }
  for (const Index n : evenly_spread(static_cast<Index>(all.size()), most)) some.push_back(all[n]);
  return some;
}

// What a place says of a fault that the whole call could have, too, is where: it denies no right element.
std::vector<Decoy> NormProblem::in_some_columns(std::span<const Expected> expected) const {
  const Index width = norm_.in.width();
  std::vector<Decoy> all;
  Array<double, 1> y({width}), dx({width});
  for (const Expected& e : expected) {
    if (!(e.output == "y" || e.output == "dx" || e.output == "sum") || !has_wrong_elements(e)) continue;
    const std::optional<ColumnPlace> place = place_of_wrong_columns(e, width);
    if (!place) continue;
    std::vector<NormVariant> variants;
    const auto add = [&](const char* name, auto change) {
      NormVariant& v = variants.emplace_back(NormVariant{name, norm_.spec, norm_.in});
      v.is_of_whole_call = false;
      change(v);
    };
    if (const Tensor* x = case_.input("x"); case_.input("residual"))
      add("no residual", [&](NormVariant& v) { v.in.x = {x->values.data(), {norm_.in.rows(), width}}; });
    if (e.output != "sum") {
      if (norm_.in.weight) add("no weight", [](NormVariant& v) { v.in.weight = {}; });
      if (norm_.in.bias) add("no bias", [](NormVariant& v) { v.in.bias = {}; });
      if (norm_.in.weight && norm_.spec.weight_offset != 0)
        add("weight_offset = 0", [](NormVariant& v) { v.spec.weight_offset = 0; });
      for (auto& list : {norm_variants(norm_.spec, norm_.in, norm_.contract.compute),
                         norm_column_variants(norm_.spec, norm_.in, norm_.contract.compute)})
        std::ranges::copy_if(list, std::back_inserter(variants),
                             [](const NormVariant& v) { return !v.is_of_whole_call; });
    }
    const std::vector<Index> rows = wrong_rows(e, width, most_rows);
    for (const NormVariant& variant : variants) {
      const NormStages kernel(variant, norm_.dy);
      Decoy answer{variant.name + place->text, e.output, {}, {}};
      for (const Index i : rows) {
        if (e.output != "sum")
          kernel.row(i, kernel.statistics(i), y.view(), e.output == "dx" ? dx.view() : View<double, 1>{});
        for (Index j = 0; j < width; ++j) {
          if (!place->holds(j)) continue;
          answer.at.push_back(i * width + j);
          answer.value.push_back(e.output == "sum" ? variant.in.x(i, j) : e.output == "y" ? y(j) : dx(j));
        }
      }
      all.push_back(std::move(answer));
    }
  }
  return all;
}

}  // namespace attest
