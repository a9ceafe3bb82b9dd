// What remains of a tensor's errors once the roundings of stored operands are known. Equation numbers:
// docs/statistics.md.
#include "verify/statistics/replay_statistics.hpp"

#include <algorithm>
#include <cmath>

#include "verify/statistics/error_samples.hpp"
#include "verify/statistics/scatter.hpp"

namespace attest {
namespace {

constexpr Index most_elements = Index{1} << 19;
constexpr double most_doubt = 0.25;  // of whether an element is what the replay says

struct Variances {
  double stores,
      rest;  // of the roundings of stored operands, and of everything else before the output's store
};

Variances variances(const Expected& e, Index at) {
  const auto square = [](double x) { return x * x; };
  const double before_store = square(e.sigma_of_many(at)) - square(ulp(e.value[at], e.dtype)) / 12;
  const double noise = square(e.rest_sigma[at]);
  // Anything up to the bound of what is systematic is as likely.
  return {std::max(0.0, before_store - noise), noise + square(e.rest_systematic[at] + e.value_error[at]) / 3};
}

/// Of the roundings that are not told. Equation (7).
double left(const Variances& v, double share) {
  return (1 + model_slack) * (v.rest + v.stores * share * (2 - share));
}

struct Sample {
  double got, value, shift;  // shift: by which stored operands change the exact value
  Variances variances;
  double spacing;  // of the element type near the value
};

std::vector<Sample> samples_of(const Expected& expected, const std::vector<double>& shifts,
                               std::vector<ErrorPlace>& places) {
  const Index n = static_cast<Index>(shifts.size()), width = expected.dumped->shape.back();
  const Index known = std::ranges::count_if(shifts, [](double x) { return std::isfinite(x); });
  const Index step = row_step(known, n / width, most_elements);
  const double largest = format_of(expected.dtype).max;
  std::vector<Sample> samples;
  Index row_of_samples = -1, last_row = -1;
  for (Index at = 0; at < n; ++at) {
    const double got = expected.dumped->values[at], value = expected.value[at], shift = shifts[at];
    if (!std::isfinite(shift) || !std::isfinite(got) || !(expected.sigma[at] > 0)) continue;
    if (!std::isfinite(expected.sigma[at]) || std::abs(value) + expected.bound(at) >= largest) continue;
    const Index row = at / width;
    if (row != last_row) ++row_of_samples, last_row = row;
    if (row_of_samples % step != 0) continue;
    samples.push_back({got, value, shift, variances(expected, at), ulp(value + shift, expected.dtype)});
    places.push_back({row, at % width, round_to(std::abs(value), expected.dtype)});
  }
  return samples;
}

NotReplayed share_not_replayed(std::span<const Sample> samples, DType dtype, const Scatter& scatter) {
  std::vector<double> weight, missing, neighbours;
  for (const Sample& s : samples) {
    const double error = s.got - round_to(s.value + s.shift, dtype);
    weight.push_back(s.shift * s.shift /
                     (s.spacing * s.spacing + s.variances.rest + s.variances.stores / 10));
    missing.push_back(s.shift == 0 ? 0 : -error / s.shift);
    const double stores = 12 * s.variances.stores;
    neighbours.push_back(s.variances.rest < stores / 6 ? s.variances.rest / stores : 1.0 / 6);
  }
  if (std::ranges::all_of(weight, [](double x) { return x == 0; })) return {1, 0, 1.0 / 6};
  const double share = weighted_mean(weight, missing);
  return {share, scatter.of(weight, missing, share), weighted_mean(weight, neighbours)};
}

/// How likely noise of that variance takes `value` to another number of the element type. Equation (8).
double chance_to_differ(double value, double variance, DType dtype) {
  const double nearest = round_to(value, dtype), size = std::abs(nearest);
  const double outwards = size + ulp(size, dtype) / 2 - std::abs(value);
  const double inwards = std::abs(value) - (size - ulp(size * (1 - 0x1p-30), dtype) / 2);
  const auto tail = [&](double distance) {
    return variance > 0 ? std::erfc(std::max(0.0, distance) / std::sqrt(2 * variance)) / 2 : 0;
  };
  return tail(outwards) + tail(inwards);
}

std::vector<double> ones(const std::vector<double>& x) {
  return std::vector<double>(x.size(), 1.0);
}
double mean(const std::vector<double>& x) {
  return weighted_mean(ones(x), x);
}

/// The share and the statistic may both be off by chance, but hardly both by the most that each may be: the
/// squares of both, in units of that, sum to 1 at most. judged(share, chance) is the statistic with its limit
/// if that share is not replayed and `chance` is what is left for the statistic. Equation (10).
template <class Judged>
Statistic most_favourable(const std::string& name, const NotReplayed& share, const Judged& judged) {
  constexpr int steps = 8;
  Statistic best{name, 0, 0};
  for (int k = 0; k <= steps; ++k) {
    const double off = static_cast<double>(k) / steps;
    const double at = share.estimate + off * share.uncertainty;
    if (at < 0 && k < steps) continue;  // no share is negative
    const Statistic x = judged(std::clamp(at, 0.0, 1.0), std::sqrt(1 - off * off));
    if (k == 0 || best.limit == 0 || x.value * best.limit < best.value * x.limit) {
      best.value = x.value, best.limit = x.limit;
    }
  }
  return best;
}

/// Whether errors are those of the output's store and of what a replay leaves. Equations (8) to (10).
Statistic statistic_beside(const Expected& expected, const std::vector<Sample>& samples,
                           const std::vector<ErrorPlace>& places, const NotReplayed& share) {
  // Elements of which a replay says what they are, and where they are.
  const double usual = std::clamp(share.estimate + share.uncertainty / 2, 0.0, 1.0);
  std::vector<Sample> telling;
  std::vector<ErrorPlace> where;
  for (std::size_t i = 0; i < samples.size(); ++i) {
    const Sample& s = samples[i];
    if (chance_to_differ(s.value + s.shift, left(s.variances, usual), expected.dtype) > most_doubt) continue;
    telling.push_back(s);
    where.push_back(places[i]);
  }
  if (2 * telling.size() < samples.size()) {
    const Scatter scatter(places);
    Statistic spread = most_favourable("replayed spread", share, [&](double not_replayed, double chance) {
      std::vector<double> square;
      for (const Sample& s : samples) {
        const double error = s.got - s.value - s.shift;
        square.push_back(error * error / (left(s.variances, not_replayed) + s.spacing * s.spacing / 12));
      }
      const double value = mean(square);
      return Statistic{"", value, 1 + model_slack + chance * scatter.of(ones(square), square, value)};
    });
    return {spread.name, std::sqrt(spread.value), std::sqrt(spread.limit)};
  }
  const Scatter scatter(where);
  return most_favourable("unreplayed", share, [&](double not_replayed, double chance) {
    std::vector<double> differs, expected_to, excess;
    for (const Sample& s : telling) {
      const double replayed = s.value + s.shift;
      differs.push_back(s.got != round_to(replayed, expected.dtype));
      expected_to.push_back(chance_to_differ(replayed, left(s.variances, not_replayed), expected.dtype));
      excess.push_back(differs.back() - expected_to.back());
    }
    return Statistic{"", mean(differs),
                     mean(expected_to) + chance * scatter.of(ones(excess), excess, mean(excess))};
  });
}

/// Whether errors before the output's store are as large as this way's, and not those of a kernel that keeps
/// more digits than it has to.
bool are_as_large_as_replayed(const std::vector<Sample>& samples) {
  double seen = 0, replayed = 0;
  for (const Sample& s : samples) {
    const double error = (s.got - s.value) / s.spacing, shift = s.shift / s.spacing;
    seen += error * error - 1.0 / 12;
    replayed += shift * shift;
  }
  return seen > replayed / 2;
}

/// A way of storing, and the elements by which it is judged.
struct Way {
  std::vector<ErrorPlace> places;
  std::vector<Sample> samples;

  Way(const Expected& expected, const Replay& replay) : samples(samples_of(expected, replay.shift, places)) {}
  NotReplayed share(const Expected& expected) const {
    return samples.empty() ? NotReplayed{} : share_not_replayed(samples, expected.dtype, Scatter(places));
  }
};

Statistic misrounded(const NotReplayed& share) {
  return {"misrounded", std::min(share.estimate, 1.0) / 6, share.neighbours + share.uncertainty / 6};
}

/// No way explains the dump, and one of them has to be the kernel's: the one that is least wrong speaks for
/// all.
std::vector<Statistic> least_misrounded(const Expected& expected) {
  std::vector<Statistic> least;
  for (const Replay& replay : expected.replays) {
    const Way way(expected, replay);
    if (way.samples.empty() || !are_as_large_as_replayed(way.samples)) continue;
    const Statistic x = misrounded(way.share(expected));
    if (least.empty() || x.value - x.limit < least.front().value - least.front().limit) least = {x};
  }
  return least;
}

}  // namespace

void take_replay(Expected& expected, std::size_t n) {
  expected.best_replay = n;
  expected.not_replayed = Way(expected, expected.replays[n]).share(expected);
}

double share_predicted(const Expected& expected) {
  if (!expected.replay()) return 0;
  const std::vector<double>& shift = expected.replay()->shift;
  Index right = 0, all = 0;
  for (Index at = 0; at < static_cast<Index>(shift.size()); ++at) {
    if (!std::isfinite(shift[at])) continue;
    ++all;
    right += expected.dumped->values[at] == round_to(expected.value[at] + shift[at], expected.dtype);
  }
  return all > 0 ? static_cast<double>(right) / static_cast<double>(all) : 0;
}

double variance_beside_replay(const Expected& expected, Index at, double share) {
  const double spacing = ulp(expected.value[at], expected.dtype);
  return left(variances(expected, at), share) + spacing * spacing / 12;
}

std::vector<Statistic> replay_statistics(const Expected& expected) {
  if (expected.replay()) {
    const Way way(expected, *expected.replay());
    const NotReplayed& share = expected.not_replayed;
    if (way.samples.empty()) return {};
    // If one of the other ways were the kernel's, all roundings would differ. As it is this one, those that
    // do are neighbours, which the rest of the variance counts.
    if (expected.has_all_replays && share.estimate < 0.5) {
      return {misrounded(share),
              statistic_beside(expected, way.samples, way.places, {0, 0, share.neighbours})};
    }
    if (!expected.must_replay && share.upper() < 1)
      return {statistic_beside(expected, way.samples, way.places, share)};
  }
  return expected.must_replay ? least_misrounded(expected) : std::vector<Statistic>{};
}

}  // namespace attest
