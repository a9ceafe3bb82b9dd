// Activations of other elements than their own, as their values tell, and of elements that are taken twice.
#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <optional>
#include <string>

#include "verify/compare.hpp"
#include "verify/ops/activation/problem.hpp"
#include "verify/ops/norm/places.hpp"
#include "verify/ops/sample.hpp"

namespace attest {
namespace {

constexpr Index most_elements = 2048;

// Of elements whose place is looked for.
constexpr Index most_searched = 48, most_offset = 1 << 20, most_xor = 64;
/// By chance an element may agree with some hundredths of all others, but not at the same distance again.
constexpr double least_share = 0.75;
constexpr Index least_elements = 3;

struct OtherElement {
  std::string name;
  std::function<Index(Index at)> of;
};

/// Places that a kernel may take elements from whose indices wrap around or are those of other rows.
std::vector<OtherElement> likely_places(const Tensor& x, Index first_wrong) {
  std::vector<OtherElement> all;
  // Modulo a power of 2, the elements before it are right.
  const Index size = static_cast<Index>(std::bit_floor(static_cast<std::size_t>(first_wrong)));
  if (size > 1)
    all.push_back(
        {"elements at their index modulo " + std::to_string(size), [=](Index at) { return at % size; }});
  if (first_wrong > size)
    all.push_back({"elements from " + std::to_string(first_wrong) + " on are those from 0 on",
                   [=](Index at) { return at - first_wrong; }});
  const std::size_t rank = x.shape.size();
  if (rank < 2) return all;
  const Index columns = x.shape[rank - 1], rows = x.shape[rank - 2], matrix = rows * columns;
  if (rows > 1 && columns > 1) {
    all.push_back({"elements of the row before", [=](Index at) { return at - columns; }});
    all.push_back({"elements of the next row", [=](Index at) { return at + columns; }});
    all.push_back({"rows and columns exchanged", [=](Index at) {
                     const Index in = at % matrix;
                     return at - in + in % rows * columns + in / rows;
                   }});
  }
  return all;
}

std::string exchange_text(Index by) {
  const auto bits = static_cast<std::size_t>(by);
  if (by == 1) return "neighbouring elements exchanged";
  if (std::has_single_bit(bits)) return "elements " + std::to_string(by) + " apart exchanged";
  if (std::has_single_bit(bits + 1)) return "groups of " + std::to_string(by + 1) + " elements reversed";
  return "elements at their index xor " + std::to_string(by);
}

/// Places by their distance, or by their index xor a number, where most wrong elements find their value: that
/// of element `at` would be factor(at) * value[from].
template <class Factor>
std::vector<OtherElement> places_found(const Expected& e, const std::vector<Index>& wrong,
                                       const std::vector<double>& value, const Factor& factor) {
  const Index n = std::ssize(value), farthest = std::min(n, most_offset);
  std::vector<Index> at_offset(2 * farthest + 1), at_xor(most_xor);
  Index searched = 0;
  for (const Index k : evenly_spread(std::ssize(wrong), most_searched)) {
    const Index at = wrong[k];
    const double got = e.dumped->values[at], scale = factor(at);
    if (got == 0 || scale == 0 || !std::isfinite(got)) continue;
    ++searched;
    const double tolerance = 4 * ulp(std::abs(got), e.dtype);
    for (Index from = std::max<Index>(at - farthest, 0); from < std::min(at + farthest, n); ++from) {
      if (!(std::abs(scale * value[from] - got) <= tolerance) || from == at) continue;
      ++at_offset[from - at + farthest];
      if (const Index bits = from ^ at; bits < most_xor) ++at_xor[bits];
    }
  }
  std::vector<OtherElement> all;
  const auto are_most = [&](Index count) {
    return count >= least_elements &&
           static_cast<double>(count) >= least_share * static_cast<double>(searched);
  };
  if (const auto best = std::ranges::max_element(at_offset); are_most(*best)) {
    const Index by = best - at_offset.begin() - farthest;
    all.push_back({"elements " + std::to_string(std::abs(by)) + (by < 0 ? " before" : " further on"),
                   [by](Index at) { return at + by; }});
  }
  if (const auto best = std::ranges::max_element(at_xor); are_most(*best)) {
    const Index by = best - at_xor.begin();
    all.push_back({exchange_text(by), [by](Index at) { return at ^ by; }});
  }
  return all;
}

}  // namespace

std::vector<Decoy> ActivationProblem::misplaced(std::span<const Expected> expected) const {
  std::vector<Decoy> all;
  const Index n = x_.size();
  for (const Expected& e : expected) {
    std::vector<Index> wrong, some;
    for (Index at = 0; at < n; ++at)
      if (!within_bound(e, at, e.dumped->values[at])) wrong.push_back(at);
    if (wrong.empty()) continue;
    for (const Index k : evenly_spread(std::ssize(wrong), most_elements)) some.push_back(wrong[k]);
    const auto slope_at = [&](Index at) { return ref::activation_derivative(kind_, x_.values[at]); };

    Decoy twice{
        e.output == "y" ? "the activation taken twice" : "the derivative taken twice", e.output, some, {}};
    for (const Index at : some)
      twice.value.push_back(e.output == "y" ? ref::activation(kind_, round_to(e.value[at], e.dtype))
                                            : slope_at(at) * e.value[at]);
    all.push_back(std::move(twice));

    const std::vector<OtherElement> likely = likely_places(x_, wrong.front());
    const std::optional<ColumnPlace> columns =
        x_.shape.size() > 1 ? place_of_wrong_columns(e, x_.shape.back()) : std::nullopt;
    const auto add = [&](const std::string& which, const std::vector<double>& value, const auto& factor) {
      std::vector<OtherElement> places = likely;
      for (const OtherElement& found : places_found(e, wrong, value, factor)) {
        const bool is_likely = std::ranges::any_of(likely, [&](const OtherElement& other) {
          return std::ranges::all_of(some, [&](Index at) { return other.of(at) == found.of(at); });
        });
        if (!is_likely) places.push_back(found);
      }
      for (std::size_t k = 0; k < places.size(); ++k) {
        const bool is_found = k >= likely.size();
        Decoy decoy{
            places[k].name + which + (is_found && columns ? "," + columns->text : ""), e.output, {}, {}};
        for (const Index at : some) {
          const Index from = places[k].of(at);
          if (from < 0 || from >= n || from == at) continue;
          decoy.at.push_back(at);
          decoy.value.push_back(factor(at) * value[from]);
        }
        if (std::ssize(decoy.at) >= std::min<Index>(std::ssize(wrong), least_elements))
          all.push_back(std::move(decoy));
      }
    };
    add("", e.value, [](Index) { return 1.0; });
    if (e.output != "dx") continue;
    // A gradient may read one of its inputs there.
    const std::vector<double>& dy = case_.input("dy")->values;
    std::vector<double> slope;
    for (Index at = 0; at < n; ++at) slope.push_back(slope_at(at));
    add(", of x alone", slope, [&](Index at) { return dy[at]; });
    add(", of dy alone", dy, slope_at);
  }
  return all;
}

}  // namespace attest
