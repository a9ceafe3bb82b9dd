// Figures of two runs on the same inputs. Equation numbers: docs/baseline.md.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "verify/report/baseline.hpp"
#include "verify/statistics/student.hpp"

namespace attest {
namespace {

constexpr double false_alarm = 1e-6 / 3;  // of one figure; an output has three
constexpr Index least_blocks = 8;         // below, Student's quantile is too large to be of use
constexpr int widest_stores = 16;         // bits: narrower than accumulators are, unless a contract says so

double mean(const std::vector<double>& x) {
  return std::accumulate(x.begin(), x.end(), 0.0) / static_cast<double>(x.size());
}

/// How far the mean over blocks may move by chance, from the scatter of what each block moved by. Equation
/// (1).
double scatter(const std::vector<double>& before, const std::vector<double>& now) {
  const Index blocks = std::ssize(before);
  if (blocks < least_blocks) return 0;  // the other axis tells
  const double moved = mean(now) - mean(before);
  double squares = 0;
  for (Index b = 0; b < blocks; ++b) {
    const double d = now[b] - before[b] - moved;
    squares += d * d;
  }
  const double n = static_cast<double>(blocks);
  return student_quantile(blocks - 1, false_alarm) * std::sqrt(squares / (n * (n - 1)));
}

bool are_comparable(const ErrorProfile::Blocks& before, const ErrorProfile::Blocks& now) {
  return before.rows.size() == now.rows.size() && before.columns.size() == now.columns.size() &&
         std::max(std::ssize(now.rows), std::ssize(now.columns)) >= least_blocks;
}

double chance(const ErrorProfile::Blocks& before, const ErrorProfile::Blocks& now) {
  return std::max(scatter(before.rows, now.rows), scatter(before.columns, now.columns));
}

/// P(|X| > z) = probability for a normal X: Student's quantile with so many degrees of freedom, to 1 %.
double normal_quantile(double probability) {
  return student_quantile(1000, probability);
}

/// By which factor the largest of n errors may grow by chance. Equation (4).
double largest_growth(Index elements) {
  const double n = static_cast<double>(elements);
  // With this probability the largest of n errors is below `low`, or above `high`.
  const double share = -std::log(false_alarm) / n;
  if (share >= 0.5) return std::numeric_limits<double>::infinity();
  const double low = normal_quantile(share), high = normal_quantile(std::max(false_alarm / n, 1e-12));
  return high / low;
}

}  // namespace

std::vector<Growth> growth(const OutputFindings& before, const OutputFindings& now) {
  // In the format of the accumulators all of the error is that of one order among many.
  const auto dtype = dtype_named(now.type_name);
  if (!dtype || format_of(*dtype).bits > widest_stores) return {};
  std::vector<Growth> found;
  const auto add = [&](const std::string& name, double was, double is, double limit) {
    if (is > limit) found.push_back({name, is, was, limit});
  };
  if (are_comparable(before.profile.spread, now.profile.spread)) {
    const ErrorProfile::Blocks &a = before.profile.spread, &b = now.profile.spread;
    const double was = mean(a.rows), is = mean(b.rows);
    // Equation (2)
    const double limit = was + std::hypot(chance(a, b), normal_quantile(false_alarm) * order_effect);
    add("spread", std::sqrt(was), std::sqrt(is), std::sqrt(limit));
  }
  if (are_comparable(before.profile.gain, now.profile.gain)) {
    const ErrorProfile::Blocks &a = before.profile.gain, &b = now.profile.gain;
    const double was = std::abs(mean(a.rows)), is = std::abs(mean(b.rows));
    add("gain", was, is, was + chance(a, b) + now.profile.systematic_gain);  // equation (3)
  }
  add("worst", before.worst_ratio, now.worst_ratio, before.worst_ratio * largest_growth(now.elements));
  return found;
}

}  // namespace attest
