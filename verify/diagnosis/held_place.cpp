// Where an answer holds that right elements elsewhere speak against.
#include "verify/diagnosis/held_place.hpp"

#include <algorithm>
#include <optional>

#include "verify/axes/region.hpp"
#include "verify/axes/runs.hpp"
#include "verify/text.hpp"

namespace attest {
namespace {

/// Fewer elements of an index have the value of an answer by chance, beside the index that has most.
constexpr double least_of_most = 0.1;

/// Explained elements that have to be in a place.
constexpr double least_held = 0.9;

using Indices = std::vector<Index>;

struct AxisOfElements {
  Index stride, extent;
  Index of(Index flat) const { return flat / stride % extent; }
};

/// How many of the elements have each index.
Indices counts(const Indices& elements, const AxisOfElements& axis) {
  Indices all(axis.extent);
  for (const Index at : elements) ++all[axis.of(at)];
  return all;
}

/// "row 0", "heads 3..7", "every 8th row from 0 on"; "" if there are no such words, or too many.
/// of_axis: behind what has no better word than an index.
std::string indices_text(const std::vector<bool>& holds, const std::vector<bool>& is_known, AxisKind kind,
                         const std::string& of_axis) {
  if (std::ranges::find(is_known, false) != is_known.end()) return "";
  const std::vector<IndexRun> runs = runs_of(holds);
  const Index first = runs.front().first, extent = std::ssize(holds);
  if (runs.size() > 2) {
    const Index step = runs[1].first - first;
    bool is_periodic = first < step;
    for (Index n = 0; n < extent && is_periodic; ++n) is_periodic = holds[n] == (n % step == first);
    if (is_periodic)
      return "every " + ordinal(step) + " " + words_for(kind, true) + of_axis + " from " +
             std::to_string(first) + " on";
  }
  if (runs.size() > most_runs) return "";
  std::string list;
  for (const IndexRun& run : runs)
    list += (list.empty() ? "" : ", ") + std::to_string(run.first) +
            (run.first == run.last ? "" : ".." + std::to_string(run.last));
  return words_for(kind, std::ranges::count(holds, true) == 1) + " " + list + of_axis;
}

}  // namespace

std::string held_place(Indices explained, Indices denied, const std::vector<Axis>& axes, double most_denied) {
  const Indices all_explained = explained, all_denied = denied;
  std::vector<AxisOfElements> places(axes.size());
  Index stride = 1;
  for (std::size_t n = axes.size(); n-- > 0; stride *= axes[n].extent) places[n] = {stride, axes[n].extent};
  struct Part {
    std::size_t axis;
    std::vector<bool> holds;
  };
  std::vector<Part> parts;
  const auto is_free = [&] {
    return static_cast<double>(denied.size()) <= most_denied * static_cast<double>(explained.size());
  };
  // The axis first along which most goes that is denied.
  while (!is_free() && parts.size() < axes.size()) {
    std::optional<Part> best;
    Index most = 0;
    for (std::size_t n = 0; n < axes.size(); ++n) {
      const Indices held = counts(explained, places[n]), against = counts(denied, places[n]);
      const double least = least_of_most * static_cast<double>(*std::ranges::max_element(held));
      std::vector<bool> holds(held.size());
      Index gone = 0;
      for (std::size_t i = 0; i < held.size(); ++i) {
        holds[i] = held[i] > 0 && static_cast<double>(held[i]) >= least;
        if (!holds[i]) gone += against[i];
      }
      if (gone > most) most = gone, best = Part{n, std::move(holds)};
    }
    if (!best) return "";
    for (Indices* elements : {&explained, &denied})
      std::erase_if(*elements, [&](Index at) { return !best->holds[places[best->axis].of(at)]; });
    parts.push_back(std::move(*best));
  }
  if (!is_free() ||
      static_cast<double>(explained.size()) < least_held * static_cast<double>(all_explained.size()))
    return "";
  // From the finest axis to the coarsest, as places are told.
  std::ranges::sort(parts, {}, [&](const Part& part) { return axes[part.axis].kind; });
  std::string text;
  for (const Part& part : parts) {
    const AxisOfElements& place = places[part.axis];
    std::vector<bool> is_known(place.extent);
    for (const Indices* elements : {&all_explained, &all_denied})
      for (const Index at : *elements) is_known[place.of(at)] = true;
    const AxisKind kind = axes[part.axis].kind;
    const std::string indices = indices_text(
        part.holds, is_known, kind, kind == AxisKind::unknown ? " of axis " + std::to_string(part.axis) : "");
    if (indices.empty()) return "";
    text += (text.empty() ? "in " : " of ") + indices;
  }
  return text;
}

}  // namespace attest
