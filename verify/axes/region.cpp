// A set of elements of a tensor, in words.
#include "verify/axes/region.hpp"

#include <algorithm>
#include <numeric>

namespace attest {

std::string words_for(AxisKind kind, bool is_one) {
  switch (kind) {
    case AxisKind::column:
      return is_one ? "column" : "columns";
    case AxisKind::copy:
      return is_one ? "copy" : "copies";
    case AxisKind::key:
      return is_one ? "key" : "keys";
    case AxisKind::row:
      return is_one ? "row" : "rows";
    case AxisKind::head:
      return is_one ? "head" : "heads";
    case AxisKind::batch:
      return is_one ? "batch entry" : "batch entries";
    case AxisKind::unknown:
      return is_one ? "index" : "indices";
  }
  return {};
}

namespace {

/// "row 7", "rows 0, 3, 64..127", "37 of the rows 3..490".
std::string indices_text(AxisKind kind, const std::vector<bool>& touched) {
  const std::vector<IndexRun> runs = runs_of(touched);
  const Index count = std::ranges::count(touched, true);
  const std::string word = words_for(kind, count == 1);
  const auto range = [](Index first, Index last) {
    return std::to_string(first) + (first == last ? "" : ".." + std::to_string(last));
  };
  if (runs.size() > most_runs)
    return std::to_string(count) + " of the " + word + " " + range(runs.front().first, runs.back().last);
  std::string list;
  for (const auto& [first, last] : runs) list += (list.empty() ? "" : ", ") + range(first, last);
  return word + " " + list;
}

}  // namespace

Region::Region(std::vector<Axis> axes) : axes_(std::move(axes)) {
  for (const Axis& axis : axes_) touched_.emplace_back(axis.extent, false);
}

void Region::add(Index flat) {
  ++count_;
  for (std::size_t axis = axes_.size(); axis-- > 0; flat /= axes_[axis].extent)
    touched_[axis][flat % axes_[axis].extent] = true;
}

std::string Region::text() const {
  const Index elements = std::accumulate(axes_.begin(), axes_.end(), Index{1},
                                         [](Index n, const Axis& axis) { return n * axis.extent; });
  if (count_ == elements && elements > 1) return "everywhere";
  std::vector<std::size_t> order(axes_.size());
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, {}, [&](std::size_t i) { return axes_[i].kind; });
  std::string text;
  for (const std::size_t i : order) {
    if (std::ranges::find(touched_[i], false) == touched_[i].end()) continue;
    text += (text.empty() ? "" : " of ") + indices_text(axes_[i].kind, touched_[i]);
    if (axes_[i].kind == AxisKind::unknown) text += " of axis " + std::to_string(i);
  }
  if (text.empty()) return elements > 1 ? "spread over the whole tensor" : "the only element";
  return (count_ > 1 ? "all in " : "in ") + text;
}

}  // namespace attest
