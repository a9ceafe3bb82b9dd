// Attention with its keys split among workers whose results are merged wrongly, simulated row by row.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>
#include <optional>
#include <set>

#include "verify/grid.hpp"
#include "verify/ops/attention_explanations.hpp"
#include "verify/ops/weighted_sums.hpp"

namespace attest {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double least_explained = 0.7;  // many ways to split are tried

/// What a worker's result is weighted with: e^lse, if it is right.
enum class Weight { natural, base_2, natural_of_base_2, equal, of_next };

/// What happens to the o and the lse of a worker before they are merged; nothing where no function is given.
struct Merge {
  std::string fault;
  Round o, lse;
  Weight weight = Weight::natural;
};

struct Part {
  std::vector<double> o;
  double lse;
};

/// The first key of each worker, then the number of keys.
using Boundaries = std::vector<Index>;

/// Whole tiles, as evenly spread as may be, or as many for each worker but the last.
std::set<Boundaries> boundaries(Index keys) {
  std::set<Boundaries> all;
  for (const Index tile : {1, 16, 32, 64, 128, 256}) {
    const Index tiles = (keys + tile - 1) / tile;
    for (const Index workers : {2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 32}) {
      if (workers > tiles) continue;
      Boundaries spread, packed;
      const Index each = (tiles + workers - 1) / workers;
      for (Index n = 0; n <= workers; ++n) {
        spread.push_back(std::min(tiles * n / workers * tile, keys));
        packed.push_back(std::min(each * n * tile, keys));
      }
      all.insert(spread);
      all.insert(packed);
    }
  }
  return all;
}

std::vector<Part> parts_of(const AttentionRow& row, const Boundaries& boundaries) {
  std::vector<Part> parts;
  Index c = 0;
  for (std::size_t n = 0; n + 1 < boundaries.size(); ++n) {
    Part part{std::vector<double>(row.in->v_width()), -infinity};
    double weight = 0;
    for (; c < row.count() && row.key[c] < boundaries[n + 1]; ++c) {
      weight += row.p[c];
      for (Index e = 0; e < row.in->v_width(); ++e) part.o[e] += row.stored[c] * row.v(c, e);
    }
    if (!(weight > 0)) continue;
    for (double& x : part.o) x /= weight;
    part.lse = row.lse + std::log(weight);
    parts.push_back(std::move(part));
  }
  return parts;
}

/// o and lse of the row. A sink joins the row sum when all is merged.
Part merged(const Merge& merge, const AttentionRow& row, std::span<const Part> parts) {
  using enum Weight;
  const bool is_of_base_2 = merge.weight == base_2;
  const auto power = [&](double x) { return is_of_base_2 ? std::exp2(x) : std::exp(x); };
  const auto exponent = [&](std::size_t n) {
    if (merge.weight == equal) return 0.0;
    const double lse = parts[merge.weight == of_next ? (n + 1) % parts.size() : n].lse;
    return (merge.lse ? merge.lse(lse) : lse) * (merge.weight == natural_of_base_2 ? std::numbers::log2e : 1);
  };
  Part all{std::vector<double>(row.in->v_width()), row.lse};
  double highest = row.in->sink ? row.in->sink(row.h) : -infinity, total = 0;
  for (std::size_t n = 0; n < parts.size(); ++n) highest = std::max(highest, exponent(n));
  if (row.in->sink) total = power(row.in->sink(row.h) - highest);
  for (std::size_t n = 0; n < parts.size(); ++n) {
    const double weight = power(exponent(n) - highest);
    total += weight;
    for (std::size_t e = 0; e < all.o.size(); ++e)
      all.o[e] += weight * (merge.o ? merge.o(parts[n].o[e]) : parts[n].o[e]);
  }
  for (double& x : all.o) x /= total;
  // Wrong weights of o do not make lse wrong.
  if (is_of_base_2 || merge.weight == natural)
    all.lse = highest + (is_of_base_2 ? std::log2(total) : std::log(total));
  return all;
}

/// of_parts: what the contract has o of split keys stored in.
std::vector<Merge> merges(DType softmax, DType of_parts) {
  const std::string merged = "results of split keys merged ";
  std::vector<Merge> all{{merged + "in base 2: with 2^lse in place of e^lse", {}, {}, Weight::base_2},
                         {merged + "with e^lse of an lse in base 2", {}, {}, Weight::natural_of_base_2},
                         {merged + "with equal weights: their mean, without lse", {}, {}, Weight::equal},
                         {merged + "with the lse of the next split", {}, {}, Weight::of_next}};
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
  std::optional<DiagnosisEntry> best;
  if (rows.empty()) return {};
  const std::vector<Merge> faults =
      merges(contract.softmax_dtype, contract.split_dtype.value_or(contract.softmax_dtype));
  for (const Boundaries& cut : boundaries(rows.front().in->keys())) {
    std::vector<Fit> of_o(faults.size()), of_lse(faults.size());
    for (const AttentionRow& row : rows) {
      const std::vector<Part> parts = parts_of(row, cut);
      for (std::size_t n = 0; n < faults.size(); ++n) {
        const Part answer = merged(faults[n], row, parts);
        for (std::size_t e = 0; e < row.got.size(); ++e)
          of_o[n].add(row.got[e], row.o[e], answer.o[e], row.sigma[e], row.replayed_in);
        if (row.has_lse) of_lse[n].add(row.got_lse, row.lse, answer.lse, row.lse_sigma);
      }
    }
    for (std::size_t n = 0; n < faults.size(); ++n) {
      if (of_o[n].denies() || of_lse[n].denies()) continue;
      const double explained = (of_o[n] + of_lse[n]).explained();
      if (best && explained <= best->confidence + least_gain) continue;
      best = {faults[n].fault, explained,
              "a kernel that does so, with the first split at key " + std::to_string(cut[1]) +
                  ", would make " + percent(explained) + " of the errors beyond what the contract explains"};
    }
  }
  if (!best || best->confidence < least_explained) return {};
  return {*best};
}

}  // namespace attest
