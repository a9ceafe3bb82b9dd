// Maxima and row sums of threads that are merged wrongly into those of warps and of the row: not rescaled, or
// by powers of 2, with parts missing, or not at all.
#include <algorithm>
#include <array>
#include <cmath>
#include <compare>
#include <iterator>
#include <limits>
#include <map>
#include <numbers>

#include "verify/ops/softmax/problem.hpp"
#include "verify/ops/softmax/stages.hpp"

namespace attest {
namespace {

using Values = std::vector<double>;
using State = ref::SoftmaxState;

constexpr Index warp = 32, most_threads = 1024, most_vector = 8;
constexpr Index widest = 1 << 15;  // of rows that all ways are tried for
constexpr double infinity = std::numeric_limits<double>::infinity();

/// `threads` take `vector` columns at a time, in turn, each with a maximum and a sum of its own. Of 2: with
/// powers of 2 in place of powers of e, of scores, or where the maximum rises.
struct Division {
  Index threads, vector;
  bool scores_of_2 = false, rises_of_2 = false;

  auto operator<=>(const Division&) const = default;
  Index thread_of(Index j) const { return j / vector % threads; }
  Index warps() const { return threads / warp; }
  std::string of_threads() const {
    return " of each of " + std::to_string(threads) + " threads" +
           (vector == 1 ? "" : ", " + std::to_string(vector) + " columns at a time");
  }
  std::string of_warps() const {
    return std::to_string(warps()) + " warps" +
           (vector == 1 ? "" : ", " + std::to_string(vector) + " columns a thread");
  }
};

double power(bool of_2, double exponent) {
  return of_2 ? std::exp2(exponent) : std::exp(exponent);
}

std::vector<State> states_of(const Division& way, const Values& s) {
  std::vector<State> states(way.threads, State{-infinity, 0});
  for (std::size_t j = 0; j < s.size(); ++j) {
    if (!(s[j] > -infinity)) continue;
    State& own = states[way.thread_of(static_cast<Index>(j))];
    if (s[j] > own.m) own = {s[j], own.l > 0 ? own.l * power(way.rises_of_2, own.m - s[j]) : 0};
    own.l += power(way.scores_of_2, s[j] - own.m);
  }
  return states;
}

/// What becomes of two sums whose maxima differ.
enum class Merge { rescaled, own_is_not, other_is_not, neither, of_2 };
enum class Place { lanes, warps, both };
/// Of warps: one after the other, or, as of lanes, with the one that is half of all further on first, or with
/// the next one.
enum class Order { in_turn, far, near };
/// What is a warp's own where y is formed; lse and m are those of the first warp, or the row's.
enum class Own { nothing, maximum, maximum_but_in_lse, both };

struct MergedSums {
  Division division;
  Merge merge = Merge::rescaled;
  Place place = Place::both;
  Order of_lanes = Order::far, of_warps = Order::in_turn;
  Index lost_step = 0;                   // lanes this far apart are not merged
  Index first_warp = 0, lost_warps = 0;  // warps that are missing, from this one on
  bool has_maximum = false;              // the row's, right, in spite of what is missing
  Own own = Own::nothing;
};

State merged(Merge merge, State own, State other) {
  const double m = std::max(own.m, other.m);
  if (m == -infinity) return own;
  const bool keeps_own = (merge == Merge::own_is_not && other.m > own.m) || merge == Merge::neither;
  const bool keeps_other = (merge == Merge::other_is_not && own.m > other.m) || merge == Merge::neither;
  const auto factor = [&](bool is_kept, double from) {
    return is_kept ? 1 : power(merge == Merge::of_2, from - m);
  };
  return {m, own.l * factor(keeps_own, own.m) + other.l * factor(keeps_other, other.m)};
}

State merged(Merge merge, Order order, Index lost_step, std::vector<State> states) {
  if (order == Order::in_turn) {
    State all = states.front();
    for (std::size_t n = 1; n < states.size(); ++n) all = merged(merge, all, states[n]);
    return all;
  }
  const Index count = static_cast<Index>(states.size());
  for (Index step = count / 2; step >= 1; step /= 2) {
    const Index apart = order == Order::far ? step : count / 2 / step;
    if (apart == lost_step) continue;
    const std::vector<State> before = states;
    for (Index t = 0; t < count; ++t) states[t] = merged(merge, before[t], before[t ^ apart]);
  }
  return states.front();
}

/// What a kernel makes of a row, relative to its own maximum.
struct Outcome {
  State all{-infinity, 0};
  std::vector<State> warps;  // of each, where y is formed; empty: all have `all`
};

Outcome outcome_of(const MergedSums& way, const std::vector<State>& threads) {
  const Merge in_warps = way.place == Place::warps ? Merge::rescaled : way.merge,
              of_warps = way.place == Place::lanes ? Merge::rescaled : way.merge;
  // Where nothing is wrong with them, merges may be in any order.
  const auto order = [&](Merge merge, Order of) {
    return merge == Merge::rescaled && way.lost_step == 0 ? Order::in_turn : of;
  };
  Outcome result;
  std::vector<State> warps;
  for (auto first = threads.begin(); first != threads.end(); first += warp)
    warps.push_back(merged(in_warps, order(in_warps, way.of_lanes), way.lost_step, {first, first + warp}));
  double highest = -infinity;
  for (const State& state : threads) highest = std::max(highest, state.m);
  if (way.own != Own::nothing) result.warps = warps;
  for (Index n = 0; n < way.lost_warps; ++n) warps[way.first_warp + n] = {-infinity, 0};
  result.all = merged(of_warps, order(of_warps, way.of_warps), 0, warps);
  if (way.has_maximum) result.all = {highest, result.all.l * std::exp(result.all.m - highest)};
  if (way.own == Own::maximum) result.all.m = warps.front().m;
  if (way.own == Own::both) result.all = warps.front();
  return result;
}

using Ways = std::vector<std::pair<std::string, MergedSums>>;

void add_merges(const Division& division, Ways& all) {
  const auto add = [&](const std::string& name, Merge merge, Place place, Order of_lanes, Order of_warps) {
    MergedSums way{division};
    way.merge = merge, way.place = place, way.of_lanes = of_lanes, way.of_warps = of_warps;
    all.push_back({name, way});
  };
  const std::string threads = "row sums" + division.of_threads(),
                    warps = "row sums of each of " + division.of_warps();
  struct Text {
    Merge merge;
    const char *of_threads, *of_warps, *of_both;
  };
  for (const Text& text :
       {Text{Merge::own_is_not, ": in merges a thread's own sum is not rescaled to a greater maximum",
             ": in merges a warp's own sum is not rescaled to a greater maximum",
             ": in merges of threads and of warps the own sum is not rescaled to a greater maximum"},
        Text{Merge::other_is_not, ": in merges the other thread's sum is not rescaled",
             ": in merges the other warp's sum is not rescaled",
             ": in merges of threads and of warps the other sum is not rescaled"},
        Text{Merge::neither, " added up without rescaling to a common maximum",
             " added up without rescaling to a common maximum",
             " added up without rescaling to a common maximum, nor those of warps"}}) {
    const std::array both_orders = {Order::far, Order::near};
    for (const Order order : both_orders)
      add(threads + text.of_threads, text.merge, Place::lanes, order, Order::in_turn);
    if (division.warps() < 2) continue;
    for (const Order order : {Order::in_turn, Order::far, Order::near})
      add(warps + text.of_warps, text.merge, Place::warps, Order::far, order);
    for (const Order order : both_orders) {
      add(threads + text.of_both, text.merge, Place::both, order, Order::in_turn);
      add(threads + text.of_both, text.merge, Place::both, order, order);
    }
  }
}

/// Which columns a lost step of a shuffle loses does not depend on how many threads there are.
void add_lost_steps(Index width, Ways& all) {
  for (Index block = 1; block <= warp / 2 * most_vector && block < width; block *= 2) {
    MergedSums way{{warp, std::max<Index>(2 * block / warp, 1)}};
    way.lost_step = block / way.division.vector;
    const std::string columns =
        (block == 1 ? "column 1"
                    : "columns " + std::to_string(block) + ".." + std::to_string(2 * block - 1)) +
        " of every " + std::to_string(2 * block) + " missing, as without a step of a shuffle";
    all.push_back({"maxima and row sums with " + columns, way});
    way.has_maximum = true;
    all.push_back({"row sums with " + columns, way});
  }
}

void add_lost_warps(const Division& division, Ways& all) {
  const Index count = division.warps();
  const std::string of =
      " of " + std::to_string(count) +
      (division.vector == 1 ? "" : ", " + std::to_string(division.vector) + " columns a thread,");
  for (const bool has_maximum : {false, true}) {
    const std::string part = has_maximum ? "the part of the row sum" : "the maximum and the sum";
    for (Index lost = 0; count > 1 && lost < count; ++lost) {
      MergedSums way{division};
      way.first_warp = lost, way.lost_warps = 1, way.has_maximum = has_maximum;
      all.push_back({part + " of warp " + std::to_string(lost) + of + " missing", way});
    }
    if (count < 3) continue;
    MergedSums way{division};
    way.first_warp = 1, way.lost_warps = count - 1, way.has_maximum = has_maximum;
    all.push_back({part + " of warp 0" + of + " for that of the row", way});
  }
}

void add_unmerged(const Division& division, Ways& all) {
  if (division.warps() < 2) return;
  for (const auto& [own, name] :
       {std::pair{Own::maximum, "where y is formed, the maximum of each warp and the row sum of all"},
        std::pair{Own::maximum_but_in_lse,
                  "where y is formed, but not in lse, the maximum of each warp and the row sum of all"},
        std::pair{Own::both, "where y is formed, the maximum and sum of each warp, not of all"}}) {
    MergedSums way{division};
    way.own = own;
    all.push_back({name + (", of " + division.of_warps()), way});
  }
}

void add_powers_of_2(const Division& division, Ways& all) {
  for (const auto& [scores, rises, merges] : std::vector<std::array<bool, 3>>{
           {true, false, false}, {false, true, true}, {false, true, false}, {false, false, true}}) {
    MergedSums way{division};
    way.division.scores_of_2 = scores, way.division.rises_of_2 = rises;
    way.merge = merges ? Merge::of_2 : Merge::rescaled;
    all.push_back({std::string("powers of 2 in place of powers of e ") +
                       (scores            ? "but where row sums"
                        : rises && merges ? "where row sums"
                                          : "where maxima rise in row sums") +
                       division.of_threads() + (rises && !merges ? "" : " are rescaled"),
                   way});
    if (!scores && !rises)
      all.back().first = "powers of 2 in place of powers of e in merges of row sums" + division.of_threads();
  }
}

Ways wrong_ways(Index width) {
  Ways all;
  add_lost_steps(width, all);
  for (Index threads = warp; threads <= most_threads && threads < width; threads *= 2) {
    for (Index vector = 1; vector <= most_vector; vector *= 2) {
      const Division division{threads, vector};
      add_merges(division, all);
      if ((threads - 1) * vector >= width) continue;  // some threads have no columns
      add_lost_warps(division, all);
      add_unmerged(division, all);
      add_powers_of_2(division, all);
    }
  }
  return all;
}

}  // namespace

std::vector<Decoy> SoftmaxProblem::merged_sums(const std::vector<Index>& some_rows) const {
  constexpr std::size_t asked = 3;
  std::vector<Decoy> all;
  if (!spec_.subtract_max || n_ > widest) return all;
  const SoftmaxVariant right{"", spec_};
  const auto row_of_outcome = [&](const MergedSums& way, const Outcome& outcome, Index row) {
    SoftmaxVariant kernel = right;
    kernel.maximum = outcome.all.m;
    double sum = outcome.all.l;
    for (Index j = 0; !outcome.warps.empty() && j < n_; ++j) {
      const State& own = outcome.warps[way.division.thread_of(j) / warp];
      kernel.maxima_in_y.push_back(own.m);
      if (way.own == Own::both) kernel.sums_in_y.push_back(own.l);
    }
    if (way.division.scores_of_2)
      kernel.change = [](SoftmaxStage stage, double value) {
        return stage == SoftmaxStage::difference ? std::numbers::ln2 * value : value;
      };
    return sum > 0 && std::isfinite(outcome.all.m) ? computed(kernel, row, sum) : SoftmaxRow{};
  };
  // Ways whose results are not those of a few wrong rows are not asked what all rows would be.
  struct Row {
    Index row;
    Values s;
    SoftmaxRow right;
    std::map<Division, std::vector<State>> known;

    const std::vector<State>& states(const Division& division) {
      const auto [place, is_new] = known.try_emplace(division);
      if (is_new) place->second = states_of(division, s);
      return place->second;
    }
  };
  std::vector<Row> wrong;
  for (const Index row : some_rows) {
    if (wrong.size() == asked) break;
    SoftmaxRow r = computed(right, row);
    if (!(r.l > 0) || may_be_special(row / inner_, row % inner_)) continue;
    if (!has_statistics_of(r, row) || !has_weights_of(r, row))
      wrong.push_back({row, scores_of(row), std::move(r), {}});
  }
  if (wrong.size() < asked) return all;
  const bool tells_maximum = case_.output("m") || case_.output("l");
  for (const auto& [name, way] : wrong_ways(n_)) {
    // y and lse would be the same with the right maximum.
    const bool has_parts = way.lost_step > 0 || way.lost_warps > 0;
    if (has_parts && !way.has_maximum && !tells_maximum) continue;
    const bool agrees = std::ranges::all_of(wrong, [&, &way = way](Row& row) {
      const Outcome outcome = outcome_of(way, row.states(way.division));
      SoftmaxRow result{outcome.all.m, outcome.all.l, outcome.all.m + std::log(outcome.all.l), {}, {}};
      if (!has_statistics_of(result, row.row)) return false;
      return has_weights_of(row_of_outcome(way, outcome, row.row), row.row);
    });
    if (!agrees) continue;
    std::ranges::move(answers(name, "", true, some_rows,
                              [&, &way = way](Index row) {
                                return row_of_outcome(
                                    way, outcome_of(way, states_of(way.division, scores_of(row))), row);
                              }),
                      std::back_inserter(all));
  }
  return all;
}

}  // namespace attest
