// Holds what a device wrote against what was expected, element by element.
#include "verify/compare.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "verify/statistics/replay_statistics.hpp"

namespace attest {
namespace {

bool is_close(double got, double want, double bound) {
  return got == want || std::abs(got - want) <= bound || (std::isnan(got) && std::isnan(want));
}

/// A device that overflows writes infinity, its largest value or, without infinities, NaN.
bool is_permitted_overflow(const Expected& expected, double got, double want, double bound) {
  const Format& format = format_of(expected.dtype);
  if (!(std::abs(want) + bound >= format.max + ulp(format.max, expected.dtype) / 2)) return false;
  if (std::isnan(got)) return !format.has_infinity;
  return std::abs(got) >= format.max && std::signbit(got) == std::signbit(want);
}

/// |got - want|; 0 where a special value is right or an overflow permitted.
double error_of(const Expected& expected, Index at) {
  const double got = expected.dumped->values[at], want = expected.value[at], bound = expected.bound(at);
  if (got == want || (std::isnan(got) && std::isnan(want))) return 0;
  if (!is_close(got, want, bound) && is_permitted_overflow(expected, got, want, bound)) return 0;
  return std::abs(got - want);
}

double ratio(double error, double bound) {
  if (std::isnan(error)) return std::numeric_limits<double>::infinity();
  if (error == 0) return 0;
  return bound > 0 ? error / bound : std::numeric_limits<double>::infinity();
}

}  // namespace

bool within_bound(const Expected& expected, Index at, double got) {
  const double want = expected.value[at], bound = expected.bound(at);
  return is_close(got, want, bound) || is_permitted_overflow(expected, got, want, bound);
}

bool has_wrong_elements(const Expected& expected) {
  for (Index at = 0; at < expected.dumped->size(); ++at)
    if (!within_bound(expected, at, expected.dumped->values[at])) return true;
  return false;
}

double error_ratio(const Expected& expected, Index at) {
  return ratio(error_of(expected, at), expected.bound(at));
}

OutputFindings compare(const Expected& expected) {
  const Tensor& dumped = *expected.dumped;
  OutputFindings found;
  found.name = expected.output;
  found.type_name = dumped.type_name;
  found.shape = dumped.shape;
  found.elements = dumped.size();

  Index worst = 0, measured = 0;
  double squares = 0;
  for (Index at = 0; at < found.elements; ++at) {
    const bool passes = within_bound(expected, at, dumped.values[at]);
    const double error = error_of(expected, at);
    found.beyond += !passes;
    const double rigorous = expected.rigorous[at] + expected.value_error[at];
    found.beyond_rigorous += !passes && !(error <= rigorous);
    found.worst_rigorous_ratio = std::max(found.worst_rigorous_ratio, ratio(error, rigorous));
    const double r = ratio(error, expected.bound(at));
    if (r > found.worst_ratio) {
      found.worst_ratio = r;
      worst = at;
    }
    if (expected.sigma[at] > 0 && std::isfinite(error)) {
      squares += error * error / (expected.sigma[at] * expected.sigma[at]);
      ++measured;
    }
  }
  found.statistics = statistics(expected, &found.profile);
  if (const Replay* replay = expected.replay()) {
    found.stored_operands = replay->way;
    found.predicted = share_predicted(expected);
  }
  const bool stands_out = std::ranges::any_of(found.statistics, &Statistic::exceeds);
  found.verdict = found.beyond == 0 && !stands_out ? Verdict::pass : Verdict::fail;
  found.rms_ratio = measured > 0 ? std::sqrt(squares / static_cast<double>(measured)) : 0;
  if (found.elements > 0) {
    found.got = dumped.values[worst];
    found.want = expected.value[worst];
    found.bound = expected.bound(worst);
    found.error = found.got == found.want || found.worst_ratio == 0 ? 0 : std::abs(found.got - found.want);
    found.at.resize(found.shape.size());
    for (std::size_t axis = found.at.size(); axis-- > 0; worst /= found.shape[axis]) {
      found.at[axis] = worst % found.shape[axis];
    }
  }
  return found;
}

}  // namespace attest
