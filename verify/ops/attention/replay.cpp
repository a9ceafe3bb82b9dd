// How a kernel rounded the weights that it stored.
#include "verify/ops/attention/replay.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "verify/bounds/lanes.hpp"
#include "verify/bounds/storage_grid.hpp"
#include "verify/bounds/weights.hpp"
#include "verify/statistics/replay_statistics.hpp"

namespace attest {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr Index rows_to_choose_from = 64, least_to_choose_from = 8, most_elements = Index{1} << 19;
constexpr double most_operations = 4e9;

constexpr Index keys_together = 64;  // whose values stay in the cache while all ways read them

/// Some neighbours of any row; GCC and Clang make of it what the machine has.
using Lanes [[gnu::vector_size(64), gnu::aligned(8), gnu::may_alias]] = double;
constexpr Index lanes = sizeof(Lanes) / sizeof(double);

ATTEST_VECTORISED
double highest_of(const double* s, Index count) {
  double highest = -infinity;
  Index j = 0;
  if (count >= lanes) {
    Lanes most = *reinterpret_cast<const Lanes*>(s);
    for (j = lanes; j + lanes <= count; j += lanes) {
      const Lanes some = *reinterpret_cast<const Lanes*>(s + j);
      most = some > most ? some : most;
    }
    for (Index n = 0; n < lanes; ++n) highest = std::max(highest, most[n]);
  }
  for (; j < count; ++j) highest = std::max(highest, s[j]);
  return highest;
}

/// weight = what is stored of p times a factor, over it.
ATTEST_VECTORISED
void store_scaled(const double* p, Index count, double factor, bounds::StorageGrid grid, double* weight) {
  for (Index j = 0; j < count; ++j) weight[j] = grid.round(p[j] * factor) / factor;
}

/// A key whose weight was not stored exactly.
struct RoundedKey {
  double error;
  const double* v;
};

/// sum += error v over some keys, in their order. Columns are independent: any number at a time gives the
/// same bits.
ATTEST_VECTORISED
void add_values(const RoundedKey* keys, Index count, Index step, std::span<double> sum) {
  constexpr int blocks = 4;
  constexpr Index together = blocks * lanes;
  const Index width = std::ssize(sum);
  Index first = 0;
  for (; step == 1 && first + together <= width; first += together) {
    Lanes* to = reinterpret_cast<Lanes*>(&sum[first]);
    Lanes total[blocks] = {to[0], to[1], to[2], to[3]};  // in registers
    for (Index n = 0; n < count; ++n) {
      const Lanes* v = reinterpret_cast<const Lanes*>(keys[n].v + first);
      for (int block = 0; block < blocks; ++block) total[block] += keys[n].error * v[block];
    }
    for (int block = 0; block < blocks; ++block) to[block] = total[block];
  }
  for (Index n = 0; n < count; ++n)
    for (Index e = first; e < width; ++e) sum[e] += keys[n].error * keys[n].v[e * step];
}

/// Squared distance of what was dumped from what a replay says, in units of the predicted spread. A few wild
/// elements do not decide.
double misfit(const Expected& e, Index at, double shift) {
  const double got = e.dumped->values[at], sigma = e.sigma[at];
  if (!std::isfinite(got) || !(sigma > 0)) return 0;
  const double left = got - round_to(e.value[at] + shift, e.dtype);
  return std::min(left * left / (sigma * sigma), 9.0);
}

struct Row {
  const Sequence* sequence;
  Index h, i;
  std::vector<double> s, p;  // scores and weights of all keys; -inf and 0 where masked
  double lse;
};

/// Those that the contract allows.
std::vector<WeightStore> ways(const Contract& contract) {
  using enum WeightStore::Reference;
  const DType p = contract.p_dtype;
  const StoredWeights& weights = contract.weights;
  std::vector<double> units = {weights.unit};
  if (weights == StoredWeights{} && format_of(p).precision < 8) units = {1, 256, 448};
  std::vector<WeightStore> all;
  for (const double unit : units) {
    if (weights.may_be_relative) all.push_back({row_maximum, 0, unit, p});
    if (weights.may_be_normalised) all.push_back({lse, 0, unit, p});
    if (!weights.may_be_relative) continue;
    // FlashAttention-3 alone has tiles of 80, 96, 112, 128, 144, 160, 176, 192 and 224 keys.
    for (const Index tile : {16, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256}) {
      for (const WeightStore::Reference order : {first_to_last, last_to_first, own_maximum}) {
        all.push_back({order, tile, unit, p});
      }
    }
  }
  return all;
}

/// Computes rows one after the other, and keeps what those of one head share: one object a thread.
class RowFiller {
 public:
  RowFiller(const AttentionSpec& spec, const Contract& contract) : spec_(spec), arithmetic_(contract) {}

  void fill(Row& row) {
    const AttentionInputs& in = row.sequence->in;
    const Index g = in.kv_head(row.h);
    if (row.sequence != sequence_ || g != kv_head_) head_.emplace(in, g, bounds::Pass::scores_only);
    sequence_ = row.sequence, kv_head_ = g;
    row.s.assign(in.keys(), -infinity);
    row.p.assign(in.keys(), 0);
    row.lse = -infinity;
    if (!w_.compute_exact(spec_, in, *head_, arithmetic_, row.h, row.i)) return;
    for (Index c = 0; c < w_.count(); ++c) {
      row.s[w_.key[c]] = w_.score[c];
      row.p[w_.key[c]] = w_.p[c];
    }
    row.lse = w_.lse;
  }

 private:
  const AttentionSpec& spec_;
  const bounds::Arithmetic arithmetic_;
  bounds::Weights w_;
  std::optional<bounds::Head> head_;
  const Sequence* sequence_ = nullptr;
  Index kv_head_ = 0;
};

class Rows {
 public:
  Rows(const AttentionCase& attention, const Contract& contract, const Expected& o)
      : attention_(attention), contract_(contract), o_(o) {}

  RowFiller filler() const { return {attention_.spec, contract_}; }

  Index at(const Row& row, Index e) const {
    const double* data = o_.value.data();
    return &attention_.like_o(data, *row.sequence)(row.h, row.i, e) - data;
  }

  /// What the roundings of the weights come to, per column, if they were stored in each of these ways.
  std::vector<std::vector<double>> shifts(const Row& row, std::span<const WeightStore> ways) const {
    const AttentionInputs& in = row.sequence->in;
    const Index keys = in.keys(), g = in.kv_head(row.h);
    std::vector<std::vector<double>> factors, sums(ways.size(), std::vector<double>(in.v_width()));
    for (const WeightStore& way : ways) factors.push_back(way.factors(row.s, row.lse));
    std::array<double, keys_together> stored;
    std::array<RoundedKey, keys_together> rounded;
    for (Index first = 0; first < keys; first += keys_together) {
      const Index count = std::min(keys_together, keys - first);
      for (std::size_t k = 0; k < ways.size(); ++k) {
        ways[k].store(row.p, factors[k], first, {stored.data(), static_cast<std::size_t>(count)});
        Index errors = 0;
        for (Index n = 0; n < count; ++n) {
          rounded[errors] = {stored[n] - row.p[first + n], &in.v(g, first + n, 0)};
          errors += rounded[errors].error != 0;
        }
        add_values(rounded.data(), errors, in.v.stride(2), sums[k]);
      }
    }
    for (std::size_t k = 0; contract_.row_sum_takes_stored_weights && k < ways.size(); ++k) {
      const std::vector<double> weights = ways[k].stored(row.s, row.p, row.lse);
      double of_weights = 0;
      for (Index j = 0; j < keys; ++j) of_weights += weights[j] - row.p[j];
      for (std::size_t e = 0; e < sums[k].size(); ++e)
        sums[k][e] = (sums[k][e] - of_weights * o_.value[at(row, static_cast<Index>(e))]) / (1 + of_weights);
    }
    return sums;
  }

 private:
  const AttentionCase& attention_;
  const Contract& contract_;
  const Expected& o_;
};

/// About `count` rows, evenly spread.
std::vector<Row> spread_rows(const AttentionCase& attention, Index count) {
  Index rows = 0;
  for (const Sequence& s : attention.sequences) rows += s.in.q_heads() * s.queries;
  const Index step = std::max<Index>(1, rows / std::max<Index>(count, 1));
  std::vector<Row> all;
  Index n = 0;
  for (const Sequence& s : attention.sequences) {
    for (Index h = 0; h < s.in.q_heads(); ++h) {
      for (Index i = 0; i < s.queries; ++i, ++n) {
        // Rows of all remainders, so that no pattern of tiles is always met at the same place.
        if (n % step == (n / step) % step) all.push_back({&s, h, i, {}, {}, -infinity});
      }
    }
  }
  return all;
}

/// The way that explains rows best, if any explains more than none. After every eighth of the rows the worse
/// half of the ways is dropped. Fills the rows.
std::optional<WeightStore> best_way(const Rows& of_case, const Expected& o, std::vector<Row>& rows,
                                    std::vector<WeightStore> ways) {
  std::vector<double> misfits(ways.size());
  double misfit_of_none = 0;
  constexpr Index parts = 8;
  for (Index part = 0; part < parts; ++part) {
    // Far apart: those at the top of a triangle have too few keys to tell tiles from each other.
    const Index count = (std::ssize(rows) - part + parts - 1) / parts;
    std::vector<std::vector<double>> of_rows(count);  // of each way, then of none
#pragma omp parallel
    {
      RowFiller filler = of_case.filler();
#pragma omp for schedule(dynamic, 1)
      for (Index n = 0; n < count; ++n) {
        Row& row = rows[part + n * parts];
        filler.fill(row);
        if (row.lse == -infinity) continue;
        const std::vector<std::vector<double>> shifts = of_case.shifts(row, ways);
        std::vector<double>& sums = of_rows[n];
        sums.resize(ways.size() + 1);
        for (Index e = 0; e < row.sequence->in.v_width(); ++e) {
          const Index at = of_case.at(row, e);
          for (std::size_t k = 0; k < ways.size(); ++k) sums[k] += misfit(o, at, shifts[k][e]);
          sums.back() += misfit(o, at, 0);
        }
      }
    }
    for (const std::vector<double>& sums : of_rows) {  // in their order, for the same bits with any threads
      if (sums.empty()) continue;
      for (std::size_t k = 0; k < ways.size(); ++k) misfits[k] += sums[k];
      misfit_of_none += sums.back();
    }
    std::vector<double> ascending = misfits;
    std::ranges::sort(ascending);
    const double most = ascending[(ascending.size() - 1) / 2];
    std::size_t kept = 0;
    for (std::size_t k = 0; k < ways.size(); ++k) {
      if (misfits[k] <= most) ways[kept] = ways[k], misfits[kept++] = misfits[k];
    }
    ways.resize(kept, ways.front()), misfits.resize(kept);
  }
  const auto best = std::ranges::min_element(misfits) - misfits.begin();
  return misfits[best] < misfit_of_none ? std::optional(ways[best]) : std::nullopt;
}

}  // namespace

std::string WeightStore::text() const {
  const std::string of_tiles = "P relative to the maximum of tiles of " + std::to_string(tile) + " keys";
  const std::string scaled = unit == 1 ? "" : ", times " + std::to_string(static_cast<int>(unit));
  switch (reference) {
    case Reference::lse:
      return "P normalised" + scaled;
    case Reference::row_maximum:
      return "P relative to the maximum of the row" + scaled;
    case Reference::first_to_last:
      return of_tiles + ", first to last" + scaled;
    case Reference::last_to_first:
      return of_tiles + ", last to first" + scaled;
    case Reference::own_maximum:
      return of_tiles + ", each on its own" + scaled;
  }
  return "";
}

std::vector<double> WeightStore::factors(std::span<const double> s, double row_lse) const {
  const Index keys = std::ssize(s), in_tile = tile > 0 ? tile : std::max<Index>(keys, 1);
  std::vector<double> factor((keys + in_tile - 1) / in_tile, -infinity);  // first the reference of each tile
  if (reference != Reference::lse) {
    for (Index t = 0; t < std::ssize(factor); ++t)
      factor[t] = highest_of(&s[t * in_tile], std::min(in_tile, keys - t * in_tile));
  }
  const auto run = [](auto first, auto last) {
    for (double highest = -infinity; first != last; ++first) highest = *first = std::max(*first, highest);
  };
  if (reference == Reference::first_to_last) run(factor.begin(), factor.end());
  if (reference == Reference::last_to_first) run(factor.rbegin(), factor.rend());
  for (double& x : factor) {
    if (reference == Reference::lse) x = row_lse;
    x = x == -infinity ? 0 : std::exp(row_lse - x) * unit;
  }
  return factor;
}

void WeightStore::store(std::span<const double> p, std::span<const double> factors, Index first,
                        std::span<double> weight) const {
  const bounds::StorageGrid grid(dtype);
  const Index last = first + std::ssize(weight),
              in_tile = tile > 0 ? tile : std::max<Index>(std::ssize(p), 1);
  for (Index j = first; j < last;) {
    const double factor = factors[j / in_tile];
    const Index end = std::min(last, (j / in_tile + 1) * in_tile);
    if (factor > 0 && factor < infinity) {
      store_scaled(&p[j], end - j, factor, grid, &weight[j - first]);
    } else {
      std::copy(&p[j], &p[j] + (end - j), &weight[j - first]);
    }
    j = end;
  }
}

std::vector<double> WeightStore::stored(std::span<const double> s, std::span<const double> p,
                                        double row_lse) const {
  std::vector<double> weight(s.size());
  store(p, factors(s, row_lse), 0, weight);
  return weight;
}

std::optional<WeightStore> replay_weights(const AttentionCase& attention, const Contract& contract,
                                          Expected& o) {
  if (format_of(contract.p_dtype).precision >= format_of(contract.softmax_dtype).precision) return {};
  const Rows of_case(attention, contract, o);
  const Index width = std::max<Index>(1, o.dumped->shape.back());

  double keys = 1;
  for (const Sequence& s : attention.sequences) keys = std::max(keys, static_cast<double>(s.in.keys()));
  const Index affordable = static_cast<Index>(most_operations / (keys * static_cast<double>(width)));

  const std::vector<WeightStore> all = ways(contract);
  std::vector<Row> rows = spread_rows(
      attention, std::clamp(affordable / 2 / std::ssize(all), least_to_choose_from, rows_to_choose_from));
  const std::optional<WeightStore> best = best_way(of_case, o, rows, all);
  if (!best) return {};

  std::vector<Row> more = spread_rows(attention, std::min(most_elements / width, affordable));
  if (more.size() != rows.size()) rows = std::move(more);  // else they are the same, and known
  Replay replay{best->text(), 0, {}};
  replay.shift.assign(o.value.size(), std::numeric_limits<double>::quiet_NaN());
  const Index count = static_cast<Index>(rows.size());
#pragma omp parallel
  {
    RowFiller filler = of_case.filler();
#pragma omp for schedule(dynamic, 4)
    for (Index n = 0; n < count; ++n) {
      Row row = std::move(rows[n]);
      if (row.s.empty()) filler.fill(row);
      if (row.lse == -infinity) continue;
      const std::vector<double> shift = of_case.shifts(row, {&*best, 1}).front();
      for (Index e = 0; e < static_cast<Index>(shift.size()); ++e)
        replay.shift[of_case.at(row, e)] = shift[e];
    }
  }
  o.replays.push_back(std::move(replay));
  take_replay(o, 0);
  return best;
}

void choose_replay(Expected& expected) {
  if (expected.replays.empty()) return;
  const auto misfit_of = [&](const Replay* replay) {
    double sum = 0;
    for (Index at = 0; at < expected.dumped->size(); ++at) {
      const double shift = replay ? replay->shift[at] : 0;
      if (std::isfinite(shift)) sum += misfit(expected, at, shift);
    }
    return sum;
  };
  double least = misfit_of(nullptr);
  std::optional<std::size_t> best;
  for (std::size_t n = 0; n < expected.replays.size(); ++n) {
    const double sum = misfit_of(&expected.replays[n]);
    if (sum < least) least = sum, best = n;
  }
  if (best) take_replay(expected, *best);
}

}  // namespace attest
