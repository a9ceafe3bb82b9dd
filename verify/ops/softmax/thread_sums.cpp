// Row sums of threads that each keep a running maximum: rescaled too seldom, or rounded.
#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <numbers>

#include "verify/ops/softmax/problem.hpp"
#include "verify/ops/softmax/stages.hpp"
#include "verify/ops/stages.hpp"
#include "verify/text.hpp"

namespace attest {
namespace {

using Values = std::vector<double>;
using State = ref::SoftmaxState;

constexpr Index warp = 32, most_threads = 1024, most_vector = 8, most_columns_at_once = 16;
constexpr Index widest = 1 << 15;  // of rows that all ways are tried for
constexpr double infinity = std::numeric_limits<double>::infinity();

/// `threads` take `vector` columns at a time, in turn, and `at_once` columns together, whose maximum they
/// have before they add any.
struct ThreadSums {
  Index threads, vector, at_once;
  double lazy_below = 0;           // if the maximum rises by less, the sum is not rescaled
  DType rounded = DType::float64;  // after each such step

  std::string of_threads() const {
    return "row sums of each of " + std::to_string(threads) + " threads" +
           (vector == 1 ? "" : ", " + std::to_string(vector) + " columns at a time");
  }
  std::string in_steps() const {
    return at_once == 1 ? "" : ", in steps of " + std::to_string(at_once) + " columns";
  }
};

/// Relative to the row's maximum.
double sum_of(const ThreadSums& way, const Values& s) {
  const Index n = static_cast<Index>(s.size()), step = way.threads * way.at_once;
  std::vector<State> states(way.threads, State{-infinity, 0});
  Values highest(way.threads), added(way.threads);
  for (Index first = 0; first < n; first += step) {
    const Index last = std::min(first + step, n);
    const auto thread_of = [&](Index j) { return j / way.vector % way.threads; };
    for (Index t = 0; t < way.threads; ++t) highest[t] = states[t].m, added[t] = 0;
    for (Index j = first; j < last; ++j) highest[thread_of(j)] = std::max(highest[thread_of(j)], s[j]);
    for (Index j = first; j < last; ++j)
      if (s[j] > -infinity) added[thread_of(j)] += std::exp(s[j] - highest[thread_of(j)]);
    for (Index t = 0; t < way.threads; ++t) {
      State& state = states[t];
      if (highest[t] == -infinity) continue;
      const double rise = highest[t] - state.m;
      if (state.l > 0 && rise > 0 && !(rise < way.lazy_below)) state.l *= std::exp(-rise);
      state = {highest[t], round_to(state.l + added[t], way.rounded)};
    }
  }
  State all{-infinity, 0};
  for (const State& state : states) all = ref::merge(all, state);
  return all.l;
}

std::vector<std::pair<std::string, ThreadSums>> wrong_ways(Index width, DType compute) {
  std::vector<std::pair<std::string, ThreadSums>> all;
  for (Index threads = warp; threads <= most_threads && threads < width; threads *= 2) {
    for (Index vector = 1; vector <= most_vector; vector *= 2) {
      for (Index at_once = vector; at_once <= most_columns_at_once; at_once *= 2) {
        if (threads * at_once >= 2 * width) break;
        for (const DType narrow : at_once == 1 ? std::vector<DType>{} : narrow_formats(compute)) {
          ThreadSums way{threads, vector, at_once};
          way.rounded = narrow;
          all.push_back({way.of_threads() + way.in_steps() + "," + in_format(narrow), way});
        }
        // In the exponent of 2, thresholds are 8 or less; 5.545... is 8 of them.
        for (const double below : {0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 8 * std::numbers::ln2, 8.0, 10.0}) {
          ThreadSums way{threads, vector, at_once};
          way.lazy_below = below;
          all.push_back({way.of_threads() + way.in_steps() +
                             " not rescaled when the maximum rises by less than " + number_text(below, 3),
                         way});
        }
      }
    }
  }
  return all;
}

}  // namespace

std::vector<Decoy> SoftmaxProblem::thread_sums(const std::vector<Index>& some_rows) const {
  constexpr std::size_t asked = 3;
  std::vector<Decoy> all;
  if (!spec_.subtract_max || n_ > widest) return all;
  const SoftmaxVariant right{"", spec_};
  // Ways whose sums are not what a few wrong rows imply are not asked what all rows would be.
  std::vector<std::pair<Values, RowSum>> wrong;
  for (const Index row : some_rows) {
    if (wrong.size() == asked) break;
    if (const auto sum = implied_sum(computed(right, row), row)) wrong.push_back({scores_of(row), *sum});
  }
  if (wrong.size() < asked) return all;
  for (const auto& [name, way] : wrong_ways(n_, compute_)) {
    const bool agrees = std::ranges::all_of(wrong, [&, &way = way](const auto& row) {
      return std::abs(sum_of(way, row.first) - row.second.value) <= row.second.tolerance;
    });
    if (!agrees) continue;
    std::ranges::move(
        answers(name, "", true, some_rows,
                [&, &way = way](Index row) { return computed(right, row, sum_of(way, scores_of(row))); }),
        std::back_inserter(all));
  }
  return all;
}

}  // namespace attest
