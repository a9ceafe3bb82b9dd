// The errors of the elements that statistics look at.
#include "verify/statistics/error_samples.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <unordered_set>

namespace attest {
namespace {

/// The same for rows with the same numbers, and hardly ever for others.
std::uint64_t mark_of(const double* values, const double* dumped, Index width) {
  std::uint64_t mark = 0;
  const auto mix = [&](double x) {
    mark = (std::rotl(mark, 29) ^ std::bit_cast<std::uint64_t>(x)) * 0x9e3779b97f4a7c15;
  };
  for (Index n = 0; n < width; ++n) mix(values[n]), mix(dumped[n]);
  return mark;
}

}  // namespace

Index row_step(Index elements, Index rows, Index most) {
  Index step = std::max<Index>(1, elements / most);
  while (std::gcd(step, rows) > 1) ++step;
  return step;
}

std::vector<ErrorSample> error_samples(const Expected& expected, std::vector<ErrorPlace>& places,
                                       Index most) {
  const Tensor& dumped = *expected.dumped;
  const Index n = dumped.size(), width = dumped.shape.empty() ? 1 : dumped.shape.back();
  const Index rows = width > 0 ? n / width : 0;
  const Index step = row_step(n, rows, most);
  const double largest = format_of(expected.dtype).max;
  std::vector<ErrorSample> samples;
  std::unordered_set<std::uint64_t> rows_before;
  Index looked_at = 0;
  for (Index row = 0; row < rows; row += step) {
    const Index first = row * width;
    if (!rows_before.insert(mark_of(&expected.value[first], &dumped.values[first], width)).second) continue;
    for (Index column = 0; column < width; ++column) {
      const Index at = first + column;
      const double got = dumped.values[at], value = expected.value[at], sigma = expected.sigma_of_many(at);
      const double systematic = expected.systematic[at] + expected.value_error[at];
      ++looked_at;
      const bool takes_part = sigma > 0 && std::isfinite(sigma) && std::isfinite(systematic) &&
                              std::isfinite(got) && std::abs(value) + expected.bound(at) < largest;
      if (takes_part) {
        const double beside_stores =
            expected.has_all_replays ? expected.rest_systematic[at] + expected.value_error[at] : systematic;
        samples.push_back({at, value, got - value, sigma * sigma, systematic, beside_stores});
        places.push_back({row, column, round_to(std::abs(value), expected.dtype)});
      }
    }
  }
  if (2 * static_cast<Index>(samples.size()) < looked_at) samples.clear();
  return samples;
}

}  // namespace attest
