// Attention with its keys split among workers whose results are merged wrongly, simulated row by row.
#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numbers>
#include <optional>
#include <set>
#include <tuple>

#include "verify/diagnosis/grid.hpp"
#include "verify/ops/attention/explanations.hpp"
#include "verify/ops/weighted_sums.hpp"

namespace attest {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double least_explained = 0.7;           // of what rounds
constexpr double least_explained_exactly = 0.95;  // of other weights: many ways to split are tried
constexpr double most_left = 4;                   // mean square of errors, in units of what is predicted

/// With fewer, one of many ways to split gives the right lse any error by chance.
constexpr Index least_rows_of_lse = 4;

/// What a worker's result is weighted with: e^lse, if it is right. By a maximum m and a row sum l: l e^m.
enum class Weight {
  natural,
  base_2,
  natural_of_base_2,
  equal,
  of_next,
  without_maximum,    // l
  maximum_in_base_2,  // l 2^m
  maximum_of_next,    // l e^m with the m of the next worker
  of_maximum,         // e^m
  running_maximum     // e to the largest lse so far: 1 when a worker's result joins
};

/// What a kernel writes as the lse of all.
enum class MergedLse { merged, merged_natural, right, largest, of_largest_maximum, of_first_maximum };

/// What of the workers but the first is not rescaled to the maximum of all.
enum class Unscaled { nothing, o, sum };

/// What happens to the o and the lse of a worker before they are merged; nothing where no function is given.
struct Merge {
  std::string fault;
  Round o, lse;
  Weight weight = Weight::natural;
  MergedLse lse_of_all = MergedLse::merged;
  Index overlap = 0;  // by so many keys the workers but the last end too late
  Unscaled unscaled = Unscaled::nothing;
  bool leaves_last_out = false;  // of the sum of weights
};
/// Other weights are nearly as well explained by any others that change them as much.
double least_share(const Merge& merge) {
  return merge.o || merge.lse ? least_explained : least_explained_exactly;
}
bool alters_lse_alone(const Merge& merge) {
  return merge.lse_of_all == MergedLse::largest || merge.lse_of_all == MergedLse::of_largest_maximum ||
         merge.lse_of_all == MergedLse::of_first_maximum;
}
constexpr Index overlaps[] = {0, 1, -1};

struct Part {
  std::vector<double> o;
  double lse, m;
};

/// How keys are split: whole tiles, as evenly spread as may be; as many for each worker but the last; or so
/// many keys a worker, whatever their number. Or two workers take tiles in turn.
struct Split {
  enum class Way { spread, packed, of_size, in_turn } way;
  Index tile, workers;

  /// The first key of each worker, then the number of keys.
  std::vector<Index> boundaries(Index keys) const {
    std::vector<Index> all;
    if (way == Way::of_size || way == Way::in_turn) {
      for (Index first = 0; first < keys; first += tile) all.push_back(first);
      all.push_back(keys);
      return all;
    }
    const Index tiles = (keys + tile - 1) / tile, each = (tiles + workers - 1) / workers;
    for (Index n = 0; n <= workers; ++n)
      all.push_back(std::min((way == Way::spread ? tiles * n / workers : each * n) * tile, keys));
    return all;
  }
};

/// Those that differ for so many keys.
std::vector<Split> splits(Index keys) {
  std::vector<Split> all;
  std::set<std::vector<Index>> known;
  const auto add = [&](const Split& split) {
    if (known.insert(split.boundaries(keys)).second) all.push_back(split);
  };
  for (const Index tile : {1, 16, 32, 64, 128, 256}) {
    for (const Index workers : {2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 32}) {
      if (workers > (keys + tile - 1) / tile) continue;
      add({Split::Way::spread, tile, workers});
      add({Split::Way::packed, tile, workers});
    }
  }
  constexpr Index most_sizes = 64;
  const Index step = std::max<Index>(1, keys / (8 * most_sizes)) * 8;
  for (Index size = step; size < keys; size += step) add({Split::Way::of_size, size, 0});
  for (const Index tile : {16, 32, 64, 128})
    if (2 * tile < keys) all.push_back({Split::Way::in_turn, tile, 2});
  return all;
}

std::vector<Part> parts_of(const AttentionRow& row, const Split& split, Index overlap) {
  const std::vector<Index> boundaries = split.boundaries(row.in->keys());
  const std::size_t tiles = boundaries.size() - 1;
  std::vector<Part> parts(split.way == Split::Way::in_turn ? 2 : tiles);
  std::vector<double> weight(parts.size());
  for (Part& part : parts) part = {std::vector<double>(row.in->v_width()), -infinity, -infinity};
  for (std::size_t n = 0; n < tiles; ++n) {
    Part& part = parts[n % parts.size()];
    const Index last = boundaries[n + 1] + (n + 1 < tiles ? overlap : 0);
    Index c = std::ranges::lower_bound(row.key, boundaries[n]) - row.key.begin();
    for (; c < row.count() && row.key[c] < last; ++c) {
      weight[n % parts.size()] += row.p[c];
      part.m = std::max(part.m, row.score[c]);
      for (Index e = 0; e < row.in->v_width(); ++e) part.o[e] += row.stored[c] * row.v(c, e);
    }
  }
  for (std::size_t n = 0; n < parts.size(); ++n) {
    for (double& x : parts[n].o) x /= weight[n];
    parts[n].lse = row.lse + std::log(weight[n]);
  }
  std::erase_if(parts, [](const Part& part) { return !(part.lse > -infinity); });
  return parts;
}

/// o and lse of the row. A sink joins the row sum when all is merged.
Part merged(const Merge& merge, const AttentionRow& row, std::span<const Part> parts) {
  if (parts.empty()) return {row.o, row.lse, 0};
  using enum Weight;
  const bool is_of_base_2 = merge.weight == base_2;
  const auto power = [&](double x) { return is_of_base_2 ? std::exp2(x) : std::exp(x); };
  const auto exponent = [&](std::size_t n) {
    const Part &part = parts[n], &next = parts[(n + 1) % parts.size()];
    const double log_l = part.lse - part.m;
    switch (merge.weight) {
      case equal:
        return 0.0;
      case of_next:
        return next.lse;
      case without_maximum:
        return log_l;
      case maximum_in_base_2:
        return log_l + part.m * std::numbers::ln2;
      case maximum_of_next:
        return log_l + next.m;
      case of_maximum:
        return part.m;
      case running_maximum:
        return std::ranges::max_element(parts.first(n + 1), {}, &Part::lse)->lse;
      case natural_of_base_2:
        return part.lse * std::numbers::log2e;
      default:
        return merge.lse ? merge.lse(part.lse) : part.lse;
    }
  };
  Part all{std::vector<double>(row.in->v_width()), row.lse, 0};
  const double common = std::ranges::max(parts, {}, &Part::m).m;
  double highest = row.in->sink ? row.in->sink(row.h) : -infinity, total = 0;
  for (std::size_t n = 0; n < parts.size(); ++n) highest = std::max(highest, exponent(n));
  if (row.in->sink) total = power(row.in->sink(row.h) - highest);
  for (std::size_t n = 0; n < parts.size(); ++n) {
    const double weight = power(exponent(n) - highest);
    const double unscaled = n == 0 ? weight : power(common + parts[n].lse - parts[n].m - highest);
    if (!merge.leaves_last_out || n + 1 < parts.size())
      total += merge.unscaled == Unscaled::sum ? unscaled : weight;
    const double of_o = merge.unscaled == Unscaled::o ? unscaled : weight;
    for (std::size_t e = 0; e < all.o.size(); ++e)
      all.o[e] += of_o * (merge.o ? merge.o(parts[n].o[e]) : parts[n].o[e]);
  }
  for (double& x : all.o) x /= total;
  const auto lse_of = [&](auto order) { return std::ranges::max_element(parts, {}, order)->lse; };
  // The largest maximum is added to the logarithm of sums that had it subtracted in another way.
  const double of_m = merge.weight == without_maximum     ? 0
                      : merge.weight == maximum_in_base_2 ? std::numbers::ln2
                                                          : 1;
  switch (merge.lse_of_all) {
    case MergedLse::merged:
    case MergedLse::merged_natural:
      all.lse = highest +
                (is_of_base_2 && merge.lse_of_all == MergedLse::merged ? std::log2(total) : std::log(total));
      all.lse += (1 - of_m) * common;
      break;
    case MergedLse::largest:
      all.lse = lse_of(&Part::lse);
      break;
    case MergedLse::of_largest_maximum:
      all.lse = lse_of(&Part::m);
      break;
    case MergedLse::of_first_maximum:
      all.lse = row.lse + parts.front().m - common;
      break;
    case MergedLse::right:
      break;
  }
  return all;
}

/// of_parts: what the contract has o of split keys stored in.
std::vector<Merge> merges(DType softmax, DType of_parts) {
  const std::string results = "results of split keys merged ";
  using enum Weight;
  using enum MergedLse;
  std::vector<Merge> all;
  for (const auto& [how, weight, lse] :
       {std::tuple{"in base 2: with 2^lse in place of e^lse", base_2, MergedLse::merged},
        {"in base 2: with 2^lse in place of e^lse", base_2, merged_natural},
        {"with e to the largest lse so far in place of e^lse", running_maximum, MergedLse::merged},
        {"with e^lse of an lse in base 2", natural_of_base_2, right},
        {"with equal weights: their mean, without lse", equal, right},
        {"with the lse of the next split", of_next, right},
        {"without e^(m - M): each relative to its own maximum", without_maximum, right},
        {"with 2^(m - M) of natural maxima m", maximum_in_base_2, right},
        {"with the maximum of the next split", maximum_of_next, right},
        {"with e^(m - M) alone, without their row sums", of_maximum, right}}) {
    all.push_back({results + how, {}, {}, weight, lse});
    // As wrong as the weights are, or right all the same.
    if (weight == without_maximum || weight == maximum_in_base_2 || weight == maximum_of_next ||
        weight == of_maximum)
      all.push_back({results + how, {}, {}, weight, MergedLse::merged});
  }
  for (const MergedLse lse : {right, MergedLse::merged})
    all.push_back({results + "without the last one in the sum of weights",
                   {},
                   {},
                   natural,
                   lse,
                   0,
                   Unscaled::nothing,
                   true});
  all.push_back(
      {"the first key of each split counted in the one before, too", {}, {}, natural, MergedLse::merged, 1});
  all.push_back({"the last key of each split but the last missing", {}, {}, natural, MergedLse::merged, -1});
  all.push_back({results + "with o of all but the first relative to its own maximum",
                 {},
                 {},
                 natural,
                 right,
                 0,
                 Unscaled::o});
  all.push_back({results + "with row sums of all but the first relative to their own maxima",
                 {},
                 {},
                 natural,
                 MergedLse::merged,
                 0,
                 Unscaled::sum});
  all.push_back({"lse with the maximum of the first split", {}, {}, natural, of_first_maximum});
  all.push_back({"lse is the largest lse of a split", {}, {}, natural, largest});
  all.push_back({"lse is that of the split with the largest score", {}, {}, natural, of_largest_maximum});
  for (const Grid& grid : narrow_grids) {
    const auto is_narrower = [&](DType dtype) {
      const Format& format = format_of(dtype);
      return grid.precision < format.precision || grid.emin > format.emin;
    };
    if (grid.precision < 8 || !is_narrower(softmax)) continue;
    const std::string stored =
        " of split keys stored in " + std::string(grid.name) + " before they are merged";
    if (is_narrower(of_parts)) all.push_back({"o" + stored, to(grid), {}});
    all.push_back({"lse" + stored, {}, to(grid)});
    all.push_back({"lse" + stored, {}, to(grid, std::numbers::log2e)});
    if (is_narrower(of_parts)) all.push_back({"o and lse" + stored, to(grid), to(grid)});
  }
  return all;
}

}  // namespace

std::vector<DiagnosisEntry> wrong_merge(std::span<const AttentionRow> rows, const Contract& contract) {
  std::optional<DiagnosisEntry> best, best_of_o;
  if (rows.empty()) return {};
  const std::vector<Merge> faults =
      merges(contract.softmax_dtype, contract.split_dtype.value_or(contract.softmax_dtype));
  Index keys = 0;
  for (const AttentionRow& row : rows) keys = std::max(keys, row.in->keys());
  const bool has_enough_lse = std::ranges::count_if(rows, &AttentionRow::has_lse) >= least_rows_of_lse;
  for (const Split& split : splits(keys)) {
    std::vector<Fit> of_o(faults.size()), of_lse(faults.size());
    for (const AttentionRow& row : rows) {
      std::map<Index, std::vector<Part>> parts;
      for (const Index overlap : overlaps) parts[overlap] = parts_of(row, split, overlap);
      for (std::size_t n = 0; n < faults.size(); ++n) {
        const Part answer = merged(faults[n], row, parts[faults[n].overlap]);
        for (std::size_t e = 0; e < row.got.size(); ++e)
          of_o[n].add(row.got[e], row.o[e], answer.o[e], row.sigma[e], row.replayed_in);
        if (row.has_lse) of_lse[n].add(row.got_lse, row.lse, answer.lse, row.lse_sigma);
      }
    }
    double elements = 0;
    for (const AttentionRow& row : rows) elements += static_cast<double>(row.got.size());
    // One that errs has to be explained, however precise the other is.
    const auto leaves = [](const Fit& fit, double count) {
      return fit.denies() || (fit.exact > most_left * count && fit.explained() < least_explained);
    };
    for (std::size_t n = 0; n < faults.size(); ++n) {
      if (!has_enough_lse && alters_lse_alone(faults[n])) continue;
      const bool lse_fits = !leaves(of_lse[n], static_cast<double>(rows.size()));
      // Other weights show in o. The lse of their sum may be written in more ways than are known.
      const bool is_weighted_wrongly = faults[n].weight != Weight::natural && !of_o[n].denies();
      if (leaves(of_o[n], elements) || !(lse_fits || is_weighted_wrongly)) continue;
      const double explained = (lse_fits ? of_o[n] + of_lse[n] : of_o[n]).explained();
      std::optional<DiagnosisEntry>& likeliest = lse_fits ? best : best_of_o;
      if (explained < least_share(faults[n])) continue;
      if (likeliest && explained <= likeliest->confidence + least_gain) continue;
      likeliest = {faults[n].fault, explained,
                   "a kernel that does so, with " +
                       std::string(split.way == Split::Way::in_turn ? "tiles in turn of "
                                                                    : "the first split at key ") +
                       std::to_string(split.boundaries(keys)[1]) + ", would make " + percent(explained) +
                       " of the errors " + (lse_fits ? "" : "of o ") + "beyond what the contract explains" +
                       (lse_fits ? "" : "; its lse is written in another way")};
    }
  }
  if (!best) best = best_of_o;
  if (!best || best->confidence < least_explained) return {};
  return {*best};
}

}  // namespace attest
