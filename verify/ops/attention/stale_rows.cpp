// Rows of K or V in part of their tiles, or part of their columns, that are those of other tiles: copies that
// did not end before they were read.
#include <algorithm>
#include <cmath>

#include "verify/ops/attention/device.hpp"
#include "verify/ops/attention/reads.hpp"

namespace attest {
namespace {

constexpr Index most_keys = 1024;
constexpr std::size_t columns_to_choose_by = 16;  // of many faults the best
constexpr double least_explained = 0.95;

enum class Source { before, two_before, first, after, exchanged };

struct StaleRows {
  bool is_v;
  Source source;
  Index tile, first_row, last_row;    // of a tile: these rows
  Index first_tile, last_tile, step;  // every step-th of these tiles
  Index first_column, last_column;

  bool has(Index j) const {
    const Index t = j / tile, row = j % tile;
    return t >= first_tile && t < last_tile && (t - first_tile) % step == 0 && row >= first_row &&
           row < last_row;
  }
  /// Whose row key j has. One outside of all keys is one of zeros, as the end of a tile is.
  Index from(Index j) const {
    return source == Source::before       ? j - tile
           : source == Source::two_before ? j - 2 * tile
           : source == Source::first      ? j % tile
           : source == Source::after      ? j + tile
                                          : j ^ (tile / 2);
  }
  std::string cause(Index keys, Index width) const;
};

std::string StaleRows::cause(Index keys, Index width) const {
  const auto range = [](Index first, Index last) {
    return last - first == 1 ? " " + std::to_string(first)
                             : "s " + std::to_string(first) + ".." + std::to_string(last - 1);
  };
  const std::string what = is_v ? "V" : "K";
  if (source == Source::exchanged) {
    return "rows of " + what + " exchanged: key j has that of key j ^ " + std::to_string(tile / 2);
  }
  std::string text =
      last_column - first_column < width ? "column" + range(first_column, last_column) + " of " : "";
  text += "rows of " + what + " of key";
  const std::string tiles = "tile of " + std::to_string(tile);
  if (last_tile - first_tile == 1) {
    text += range(first_tile * tile + first_row, std::min(first_tile * tile + last_row, keys));
  } else {
    text += range(first_row, last_row) + " of every " + (step == 1 ? "" : "second ") + tiles;
    const bool is_all = source == Source::after || first_tile == (source == Source::two_before ? 2 : 1);
    if (!is_all || step != 1) text += " from key " + std::to_string(first_tile * tile) + " on";
  }
  return text + " stale: those of the " +
         (source == Source::before       ? "tile before"
          : source == Source::two_before ? "tile two before"
          : source == Source::first      ? "first tile"
                                         : "tile after");
}

enum class Which { every, every_second, one };

/// Those of tiles in general before those of one.
std::vector<StaleRows> possible_faults(Index keys, Index width, bool is_v) {
  std::vector<StaleRows> all;
  for (const Index block : {1, 2, 4, 8, 16, 32}) {
    if (2 * block <= keys)
      all.push_back({is_v, Source::exchanged, 2 * block, 0, 2 * block, 0, keys, 1, 0, width});
  }
  std::vector<std::pair<Index, Index>> columns = {{0, width}};
  if (!is_v) columns.insert(columns.end(), {{0, width / 2}, {width / 2, width}});
  const auto add_tiles = [&](Index tile, Which which) {
    const Index tiles = (keys + tile - 1) / tile;
    std::vector<std::pair<Index, Index>> parts = {{0, tile}};
    for (Index rows = tile / 2; rows > 0; rows /= 2) {
      parts.insert(parts.end(), {{0, rows}, {tile - rows, tile}});
    }
    for (const Source source : {Source::before, Source::first, Source::two_before, Source::after}) {
      const Index first = source == Source::after ? 0 : source == Source::two_before ? 2 : 1;
      const Index last = source == Source::after ? tiles - 1 : tiles;
      for (Index t = first; t < last; ++t) {
        if (which == Which::every && t + 1 == last) continue;  // which is one
        if (which == Which::every_second && t + 2 >= last) continue;
        const Index step = which == Which::every_second ? 2 : 1, end = which == Which::one ? t + 1 : last;
        for (const auto& [first_row, last_row] : parts) {
          for (const auto& [from, to] : columns) {
            if (from < to) all.push_back({is_v, source, tile, first_row, last_row, t, end, step, from, to});
          }
        }
      }
    }
  };
  for (const Which which : {Which::every, Which::every_second, Which::one})
    for (const Index tile : {16, 32, 64, 128}) add_tiles(tile, which);
  return all;
}

/// Compares the answer of a kernel with this fault, in so many columns of o at most.
void add_to(Fits& fits, const AttentionRow& row, const StaleRows& fault, std::size_t columns) {
  const AttentionInputs& in = *row.in;
  const Index g = in.kv_head(row.h);
  std::vector<double> o(row.o.begin(), row.o.begin() + static_cast<Index>(std::min(columns, row.o.size())));
  double mass = 1;
  for (Index c = 0; c < row.count(); ++c) {
    const Index j = row.key[c], from = fault.from(j);
    if (!fault.has(j)) continue;
    const bool is_inside = from >= 0 && from < in.keys();
    if (fault.is_v) {
      const Index last = std::min(fault.last_column, static_cast<Index>(o.size()));
      for (Index e = fault.first_column; e < last; ++e)
        o[e] += row.stored[c] * ((is_inside ? in.v(g, from, e) : 0) - in.v(g, j, e));
      continue;
    }
    double product = 0;
    for (Index d = fault.first_column; d < fault.last_column; ++d)
      product += row.q(d) * ((is_inside ? in.k(g, from, d) : 0) - in.k(g, j, d));
    const double cap = row.spec->softcap, before = row.product[c], after = before + row.spec->scale * product;
    const double change = cap > 0 ? cap * (std::tanh(after / cap) - std::tanh(before / cap)) : after - before;
    const double more = row.p[c] * std::expm1(change);
    mass += more;
    for (std::size_t e = 0; e < o.size(); ++e) o[e] += more * in.v(g, j, static_cast<Index>(e));
  }
  if (!fault.is_v && row.has_lse) fits.lse.add(row.got_lse, row.lse, row.lse + std::log(mass), row.lse_sigma);
  for (std::size_t e = 0; e < o.size(); ++e)
    fits.o.add(row.got[e], row.o[e], o[e] / mass, row.sigma[e], row.replayed_in);
}

Fits fits_of(std::span<const AttentionRow> rows, const StaleRows& fault, std::size_t columns) {
  Fits fits;
  for (const AttentionRow& row : rows) add_to(fits, row, fault, columns);
  return fits;
}

}  // namespace

std::vector<DiagnosisEntry> stale_rows(std::span<const AttentionRow> rows) {
  if (rows.size() < 4) return {};
  Index keys = 0;
  for (const AttentionRow& row : rows) keys = std::max(keys, row.in->keys());
  const AttentionInputs& in = *rows.front().in;
  if (keys > most_keys || in.key) return {};
  const std::vector<AttentionRow> few = few_of(rows);
  std::vector<DiagnosisEntry> all;
  for (const bool is_v : {true, false}) {
    const Index width = is_v ? in.v_width() : in.qk_width();
    const std::vector<StaleRows> faults = possible_faults(keys, width, is_v);
    std::vector<double> share(faults.size());
#pragma omp parallel for schedule(dynamic, 16)
    for (std::size_t n = 0; n < faults.size(); ++n) {
      const Fits both = fits_of(few, faults[n], columns_to_choose_by);
      share[n] = (both.o + both.lse).explained();
    }
    std::size_t best = 0;
    for (std::size_t n = 1; n < faults.size(); ++n)
      if (share[n] > share[best] + least_gain) best = n;
    if (faults.empty() || share[best] < least_explained) continue;
    for (DiagnosisEntry& x :
         fitted_fault(fits_of(rows, faults[best], rows.front().o.size()), faults[best].cause(keys, width)))
      all.push_back(std::move(x));
  }
  return all;
}

}  // namespace attest
