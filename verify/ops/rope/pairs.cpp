// Pairs of a rotary embedding that turn by the cosine or sine of others, pairs of other columns, and columns
// that are not copied.
#include <algorithm>
#include <functional>
#include <string>
#include <tuple>

#include "verify/compare.hpp"
#include "verify/ops/norm/places.hpp"
#include "verify/ops/rope/problem.hpp"
#include "verify/ops/rope/sample.hpp"
#include "verify/ops/rope/turns.hpp"

namespace attest {
namespace {

/// Which pair's coefficients are read for pair k, and for which of its columns.
struct OtherPair {
  std::string name;
  std::function<Index(Index k, Index column)> of;
};

std::vector<OtherPair> other_pairs(const RopeSpec& spec) {
  std::vector<OtherPair> all;
  const Index pairs = spec.pairs();
  const auto add = [&](const std::string& name, auto of) {
    all.push_back({" of pair " + name + ", not k", [of](Index k, Index) { return of(k); }});
  };
  add("k + 1", [=](Index k) { return std::min(k + 1, pairs - 1); });
  add("k - 1", [](Index k) { return std::max<Index>(k - 1, 0); });
  add("0", [](Index) { return Index{0}; });
  add("R/2 - 1 - k", [=](Index k) { return pairs - 1 - k; });
  add("k / 2 without remainder", [](Index k) { return k / 2; });
  add("2k", [=](Index k) { return std::min(2 * k, pairs - 1); });
  add("2k modulo R/2", [=](Index k) { return 2 * k % pairs; });
  for (Index n = 2; n < pairs; n *= 2) {
    const std::string text = std::to_string(n);
    add("k modulo " + text, [n](Index k) { return k % n; });
    add("k, but at most " + std::to_string(n - 1), [n](Index k) { return std::min(k, n - 1); });
    if (n > 2) add("k / " + text + " without remainder", [n](Index k) { return k / n; });
    add("k rounded down to a multiple of " + text, [n](Index k) { return k / n * n; });
  }
  // A column has its place in the row; the pair follows from it.
  if (spec.style == RopeStyle::half) {
    all.push_back({" in the order of style = interleaved", [](Index, Index d) { return d / 2; }});
  } else {
    all.push_back({" in the order of style = half", [=](Index, Index d) { return d % pairs; }});
  }
  return all;
}

/// Without columns of which nothing is known.
template <class IsKnown>
Decoy restricted(const Decoy& decoy, Index width, const IsKnown& is_known) {
  Decoy some{decoy.name, decoy.output, {}, {}};
  some.is_of_whole_call = decoy.is_of_whole_call;
  for (std::size_t n = 0; n < decoy.at.size(); ++n) {
    if (!is_known(decoy.at[n] % width)) continue;
    some.at.push_back(decoy.at[n]);
    some.value.push_back(decoy.value[n]);
  }
  return some;
}

}  // namespace

std::vector<Decoy> RopeProblem::pairs_elsewhere(const Expected& e, const RopeDirection& direction) const {
  std::vector<Decoy> all;
  const RopeSpec& spec = rope_.spec;
  const RopeSample sample(rope_, case_.input(direction.input)->values, *e.dumped);
  const auto right = [&](Index s, Index k) { return right_coefficients(sample.source, spec, s, k); };
  for (const OtherPair& other : other_pairs(spec)) {
    for (const auto& [which, cos, sin] : {std::tuple{"cos and sin", true, true},
                                          std::tuple{"cos", true, false}, std::tuple{"sin", false, true}})
      all.push_back(computed(which + other.name, spec, sample, direction, [&, cos, sin](Index s, Index k) {
        Coefficients c = right(s, k);
        const Coefficients i = right(s, other.of(k, spec.first(k))),
                           j = right(s, other.of(k, spec.second(k)));
        if (cos) c.cos_i = i.cos_i, c.cos_j = j.cos_j;
        if (sin) c.sin_i = i.sin_i, c.sin_j = j.sin_j;
        return c;
      }));
  }
  // Columns between the pairs are left alone, or copied like those beyond R.
  const Index width = rope_.shape.sizes.width, turned = spec.rotary_dim, half = width / 2;
  if (spec.style == RopeStyle::half && turned < width && half < turned) {
    const Decoy apart = computed("pairs of columns k and k + D/2, not k + R/2", spec, sample, direction,
                                 right, {.apart = half});
    all.push_back(
        restricted(apart, width, [&](Index d) { return d < spec.pairs() || (half <= d && d < turned); }));
  }
  return all;
}

// They have nothing of x, as a rule, and what they have instead is not known.
std::vector<DiagnosisEntry> RopeProblem::columns_not_copied(const Expected& e,
                                                            const RopeDirection& direction) const {
  const Index width = rope_.shape.sizes.width, turned = rope_.spec.rotary_dim;
  if (turned == width) return {};
  const std::vector<double>& input = case_.input(direction.input)->values;
  const auto place = place_of_wrong_columns(e, width);
  if (!place) return {};
  Index wrong = 0, all = 0;
  for (Index at = 0; at < e.dumped->size(); ++at) {
    if (!place->holds(at % width)) continue;
    if (at % width < turned) return {};
    ++all;
    wrong += e.dumped->values[at] != input[at];
  }
  const double share = static_cast<double>(wrong) / static_cast<double>(all);
  constexpr double nearly_all = 0.9;
  if (share < nearly_all) return {};
  return {{"columns that do not turn are not copied from " + direction.input + "," + place->text, share,
           std::to_string(wrong) + " of their " + std::to_string(all) + " elements have other values"}};
}

}  // namespace attest
