// Spread and gain of the errors of a tensor, with limits from the errors' own scatter over independent parts.
// Equation numbers: docs/statistics.md.
#include "verify/statistics/statistics.hpp"

#include <algorithm>
#include <cmath>
#include <tuple>
#include <utility>

#include "verify/statistics/error_samples.hpp"
#include "verify/statistics/replay_statistics.hpp"
#include "verify/statistics/scatter.hpp"

namespace attest {
namespace {

constexpr Index most_blocks = 32;  // of an ErrorProfile, along rows and along columns

/// What the roundings of stored operands do to the values altogether, where they are known: few distinct
/// weights are rounded alike everywhere, and do not average out.
double replayed_gain(const Expected& expected, const std::vector<ErrorSample>& samples) {
  if (!(expected.not_replayed.upper() < most_not_replayed)) return 0;
  double gain = 0, total = 0;
  for (const ErrorSample& s : samples) {
    const double shift = expected.replay()->shift[s.at];
    if (!std::isfinite(shift)) continue;
    gain += s.value * shift / s.predicted();
    total += s.value * s.value / s.predicted();
  }
  return total > 0 ? std::abs(gain) / total : 0;
}

/// The largest gain that a kernel has which keeps the contract, but for chance. Equation (2).
double systematic_gain(const Expected& expected, const std::vector<ErrorSample>& samples) {
  double leaning = 0, total = 0;
  std::vector<double> of_stores(expected.has_all_replays ? expected.replays.size() : 0);
  for (const ErrorSample& s : samples) {
    leaning += std::abs(s.value) * s.beside_stores / s.predicted();
    total += s.value * s.value / s.predicted();
    for (std::size_t n = 0; n < of_stores.size(); ++n)
      of_stores[n] += s.value * expected.replays[n].shift[s.at] / s.predicted();
  }
  double largest = 0;
  for (const double gain : of_stores) largest = std::max(largest, std::abs(gain));
  return total > 0 ? std::max((leaning + largest) / total, leaning / total + replayed_gain(expected, samples))
                   : 0;
}

/// The blocks that elements belong to: ranks of their rows, or columns, among those that take part.
std::vector<Index> blocks_of(const std::vector<ErrorPlace>& places, Index ErrorPlace::*axis, Index& blocks) {
  Index end = 0, count = 0;
  for (const ErrorPlace& place : places) end = std::max(end, place.*axis + 1);
  std::vector<Index> rank(end, -1), block;
  for (const ErrorPlace& place : places) rank[place.*axis] = 0;
  for (Index& r : rank)
    if (r == 0) r = count++;
  blocks = std::min(count, most_blocks);
  block.reserve(places.size());
  for (const ErrorPlace& place : places) block.push_back(rank[place.*axis] * blocks / count);
  return block;
}

void fill(ErrorProfile& profile, const std::vector<ErrorSample>& samples,
          const std::vector<ErrorPlace>& places) {
  const auto by_block = [&](Index ErrorPlace::*axis) {
    Index blocks = 0;
    const std::vector<Index> block = blocks_of(places, axis, blocks);
    std::vector<double> square(blocks), elements(blocks), slope(blocks), weight(blocks);
    for (std::size_t n = 0; n < samples.size(); ++n) {
      const ErrorSample& s = samples[n];
      const Index b = block[n];
      square[b] += s.error * s.error / s.predicted();
      elements[b] += 1;
      slope[b] += s.value * s.error / s.predicted();
      weight[b] += s.value * s.value / s.predicted();
    }
    for (Index b = 0; b < blocks; ++b) {
      square[b] /= elements[b];
      slope[b] = weight[b] > 0 ? slope[b] / weight[b] : 0;
    }
    return std::pair{square, slope};
  };
  std::tie(profile.spread.rows, profile.gain.rows) = by_block(&ErrorPlace::row);
  std::tie(profile.spread.columns, profile.gain.columns) = by_block(&ErrorPlace::column);
}

}  // namespace

std::vector<Statistic> statistics(const Expected& expected, ErrorProfile* profile) {
  std::vector<ErrorPlace> places;
  const std::vector<ErrorSample> samples = error_samples(expected, places);
  if (samples.empty()) return {};
  const Scatter scatter(places);
  const double could_lean = systematic_gain(expected, samples);
  if (profile) {
    profile->systematic_gain = could_lean;
    fill(*profile, samples, places);
  }

  // Equation (1): squares of errors in units of what is predicted.
  std::vector<double> one(samples.size(), 1.0), square, weight, slope;
  bool has_values = false;
  for (const ErrorSample& s : samples) {
    square.push_back(s.error * s.error / s.predicted());
    // Equation (2): errors in units of the value, weighted by what they tell.
    weight.push_back(s.value * s.value / s.predicted());
    slope.push_back(s.value == 0 ? 0 : s.error / s.value);
    // Where zeros would pass, values are no larger than errors, and may depend on the same roundings.
    has_values |= std::abs(s.value) > expected.bound(s.at);
  }
  const double spread = weighted_mean(one, square), gain = weighted_mean(weight, slope);
  const double spread_limit = 1 + model_slack + scatter.of(one, square, spread);
  std::vector<Statistic> all = {{"spread", std::sqrt(spread), std::sqrt(spread_limit)}};
  if (has_values) {
    all.push_back({"gain", gain, could_lean + scatter.of(weight, slope, gain)});
  }
  for (Statistic& x : replay_statistics(expected)) all.push_back(std::move(x));
  return all;
}

}  // namespace attest
