// Maps of errors: which axes they show, and the maximum of each cell.
#include "verify/statistics/picture_maker.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "verify/axes/axis_names.hpp"
#include "verify/compare.hpp"

namespace attest {
namespace {

constexpr Index most_cells = 64;  // along each side of a map

/// "8 heads"
std::string count_text(const Op& op, const std::vector<Axis>& axes, std::size_t axis) {
  const std::string name = axis_name(op, axes, axis);
  const Index extent = axes[axis].extent;
  return std::to_string(extent) + " " + (extent == 1 ? name : plural(name));
}

Index size_of(const std::vector<Axis>& axes, const std::vector<std::size_t>& side) {
  return std::accumulate(side.begin(), side.end(), Index{1},
                         [&](Index n, std::size_t axis) { return n * axes[axis].extent; });
}

MapAxis map_axis(const Op& op, const std::vector<Axis>& axes, const std::vector<std::size_t>& side) {
  MapAxis result;
  result.extent = size_of(axes, side);
  while (result.cells() > most_cells) result.per_cell *= 2;
  if (side.empty()) return result;
  result.name = axis_name(op, axes, side.front());
  result.group = result.extent / axes[side.front()].extent;
  result.names = plural(result.name);
  result.unit = axis_name(op, axes, side.back());
  result.units = plural(result.unit);
  for (auto axis = side.begin() + 1; axis != side.end(); ++axis)
    result.each += (result.each.empty() ? "" : " × ") + count_text(op, axes, *axis);
  return result;
}

/// In units of its prediction as in equation (1) of docs/statistics.md, positive away from zero. NaN where
/// nothing is predicted.
double predicted_units(const Expected& expected, Index at) {
  const double value = expected.value[at], sigma = expected.sigma[at],
               systematic = expected.systematic[at] + expected.value_error[at];
  if (!(sigma > 0)) return std::numeric_limits<double>::quiet_NaN();
  const double error = expected.dumped->values[at] - value;
  return (std::signbit(value) ? -error : error) / std::hypot(sigma, systematic);
}

}  // namespace

Index suggested_tile(const std::vector<bool>& wrong) {
  const Index extent = std::ssize(wrong);
  for (Index tile = 256; tile >= 16; tile /= 2) {
    Index touched = 0, filled = 0;  // elements of tiles that have a wrong one; wrong elements
    bool fits = true, was_touched = true;
    for (Index first = 0; first < extent; first += tile) {
      const Index end = std::min(first + tile, extent);
      const Index count = std::count(wrong.begin() + first, wrong.begin() + end, true);
      const bool is_touched = count > 0;
      // Gaps are allowed inside of what is wrong, not at its ends.
      if (is_touched && !was_touched) fits = fits && wrong[first];
      if (!is_touched && was_touched && first > 0) fits = fits && wrong[first - 1];
      was_touched = is_touched;
      touched += is_touched ? end - first : 0;
      filled += count;
    }
    if (fits && touched > 0 && touched < extent && 4 * filled >= 3 * touched) return tile;
  }
  return 0;
}

PictureMaker::PictureMaker(const Op& op, const std::vector<Axis>& axes) : axes_(axes), index_(axes.size()) {
  Side order;  // from the finest to the coarsest, as far as there is more than one index
  for (std::size_t axis = axes.size(); axis-- > 0;)
    if (axes[axis].extent != 1) order.push_back(axis);
  std::ranges::stable_sort(order, {}, [&](std::size_t axis) { return axes[axis].kind; });
  if (order.empty() || size_of(axes, order) == 0) return;

  // Two of columns, rows and keys make a map; heads and batch entries, or what else there is, count as one.
  const auto is_outer = [&](std::size_t axis) {
    const bool is_known = axes[order.front()].kind != AxisKind::unknown;
    return is_known && axes[axis].kind >= AxisKind::head;
  };
  const std::size_t inner = order.size() > 1 && !is_outer(order[1]) ? 2 : 1;
  const Side across = {order[0]}, down(order.begin() + 1, order.begin() + static_cast<Index>(inner));
  Side outer(order.begin() + static_cast<Index>(inner), order.end());
  std::ranges::sort(outer);
  if (down.empty()) {
    add_map(op, outer, across, {});
    return;
  }
  add_map(op, down, across, outer);
  if (!outer.empty()) add_map(op, down, outer, across);
}

void PictureMaker::add_map(const Op& op, const Side& down, const Side& across, const Side& over) {
  ErrorMap map;
  map.down = map_axis(op, axes_, down);
  map.across = map_axis(op, axes_, across);
  for (const std::size_t axis : over)
    map.over += (map.over.empty() ? "" : " × ") + count_text(op, axes_, axis);
  map.ratio.assign(map.down.cells() * map.across.cells(), std::numeric_limits<float>::quiet_NaN());
  sides_.push_back({down, across, std::vector<bool>(map.down.extent), std::vector<bool>(map.across.extent)});
  picture_.maps.push_back(std::move(map));
}

Index PictureMaker::index_of(const Side& side) const {
  Index index = 0;
  for (const std::size_t axis : side) index = index * axes_[axis].extent + index_[axis];
  return index;
}

void PictureMaker::add(const Expected& expected, Index at, Index flat) {
  for (std::size_t axis = axes_.size(); axis-- > 0; flat /= axes_[axis].extent)
    index_[axis] = flat % axes_[axis].extent;
  const bool is_wrong = !within_bound(expected, at, expected.dumped->values[at]);
  const double ratio = error_ratio(expected, at);
  // What is just beyond its bound, or just within, is so in the map as well.
  const float shown = is_wrong ? std::max(static_cast<float>(ratio), std::nextafter(1.0f, 2.0f))
                               : std::min(static_cast<float>(ratio), 1.0f);
  for (std::size_t n = 0; n < sides_.size(); ++n) {
    ErrorMap& map = picture_.maps[n];
    const Index i = index_of(sides_[n].down), j = index_of(sides_[n].across);
    const Index down = i / map.down.per_cell, across = j / map.across.per_cell;
    float& cell = map.ratio[down * map.across.cells() + across];
    if (!(cell >= shown)) cell = shown;
    if (is_wrong) sides_[n].down_wrong[i] = sides_[n].across_wrong[j] = true;
  }
  const double units = predicted_units(expected, at);
  if (!std::isfinite(units)) return;
  const double half = ErrorHistogram::steps / 2, last = half - 1;
  const double step = std::clamp(std::floor(units / ErrorHistogram::width), -half, last);
  ++picture_.histogram.count[static_cast<std::size_t>(step + half)];
  ++picture_.histogram.total;
}

Picture PictureMaker::take() {
  const auto describe = [&](MapAxis& axis, const Side& side, const std::vector<bool>& wrong) {
    axis.wrong = runs_of(wrong);
    if (axis.wrong.size() > most_runs) axis.wrong = {{axis.wrong.front().first, axis.wrong.back().last}};
    const bool can_be_tiled = side.size() == 1 && axes_[side.front()].kind <= AxisKind::row;
    if (can_be_tiled) axis.tile = suggested_tile(wrong);
  };
  for (std::size_t n = 0; n < sides_.size(); ++n) {
    describe(picture_.maps[n].down, sides_[n].down, sides_[n].down_wrong);
    describe(picture_.maps[n].across, sides_[n].across, sides_[n].across_wrong);
  }
  return std::move(picture_);
}

}  // namespace attest
