// Equation (1) of docs/statistics.md for parts of an output.
#include "verify/statistics/region_statistics.hpp"

#include <algorithm>
#include <cmath>

#include "verify/axes/axis_names.hpp"
#include "verify/statistics/error_samples.hpp"
#include "verify/statistics/statistics.hpp"

namespace attest {
namespace {

constexpr Index most_regions = 32;               // along an axis
constexpr Index smallest_block = 16;             // of rows: the smallest tile of a matrix unit
constexpr Index most_elements = Index{1} << 18;  // that are looked at

/// The samples of each block of indices along an axis.
using Members = std::vector<std::vector<std::size_t>>;

RegionSpread spread_of(std::span<const std::size_t> members, std::span<const double> square,
                       std::span<const ErrorPlace> places, double false_alarm) {
  std::vector<ErrorPlace> where;
  std::vector<double> x, one(members.size(), 1.0);
  for (const std::size_t n : members) {
    where.push_back(places[n]);
    x.push_back(square[n]);
  }
  const double mean = weighted_mean(one, x);
  const double limit = 1 + model_slack + Scatter(where, false_alarm).of(one, x, mean);
  return {0, 0, std::sqrt(mean), std::sqrt(limit)};
}

}  // namespace

std::vector<SpreadByRegion> spread_by_region(const Op& op, const std::vector<Axis>& axes,
                                             const Expected& expected, std::span<const Index> flat_of) {
  if (expected.dumped->size() == 0 || expected.dumped->shape.empty()) return {};
  const Index width = expected.dumped->shape.back();
  std::vector<ErrorPlace> places;
  const std::vector<ErrorSample> samples = error_samples(expected, places, most_elements);
  std::vector<double> square;
  for (const ErrorSample& s : samples) square.push_back(s.error * s.error / s.predicted());

  std::vector<SpreadByRegion> all;
  std::vector<Members> members;
  std::vector<Index> blocks, ends;
  Index stride = 1, regions = 0;
  for (std::size_t axis = axes.size(); axis-- > 0; stride *= axes[axis].extent) {
    const auto [kind, extent] = axes[axis];
    const bool has_rows = kind == AxisKind::row || kind == AxisKind::key;
    if (!has_rows && kind != AxisKind::head && kind != AxisKind::batch) continue;
    Index block = has_rows ? smallest_block : 1;
    while ((extent + block - 1) / block > most_regions) block *= 2;
    if (block >= extent) continue;
    Members of_axis((extent + block - 1) / block);
    for (std::size_t n = 0; n < samples.size(); ++n) {
      const Index at = places[n].row * width + places[n].column;
      const Index flat = flat_of.empty() ? at : flat_of[at];
      of_axis[flat / stride % extent / block].push_back(n);
    }
    regions += std::ranges::count_if(of_axis, [](const auto& m) { return !m.empty(); });
    const std::string name = axis_name(op, axes, axis);
    all.push_back({name, plural(name), {}});
    members.push_back(std::move(of_axis));
    blocks.push_back(block);
    ends.push_back(extent);
  }
  for (std::size_t axis = 0; axis < all.size(); ++axis) {
    for (Index first = 0; const std::vector<std::size_t>& m : members[axis]) {
      if (!m.empty()) {
        // Of all regions together as often as of one statistic.
        RegionSpread found =
            spread_of(m, square, places, statistic_false_alarm / static_cast<double>(regions));
        found.first = first;
        found.last = std::min(first + blocks[axis], ends[axis]) - 1;
        all[axis].regions.push_back(found);
      }
      first += blocks[axis];
    }
  }
  return all;
}

}  // namespace attest
