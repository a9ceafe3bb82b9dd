// Options that a kernel seems to have and its dump does not declare: found as numbers that explain the
// errors.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <map>
#include <numbers>
#include <utility>

#include "ref/attention.hpp"
#include "verify/ops/attention_device.hpp"

namespace attest {
namespace {

constexpr std::size_t least_rows = 3;  // of a head: to one row any sink fits

std::string keys_in_words(Index count) {
  return count == 1 ? "one key" : std::to_string(count) + " keys";
}

Fits fits_of_softcap(std::span<const AttentionRow> rows, double cap) {
  AttentionDevice device;
  const double scale = rows.front().spec->scale;
  device.raw_score = [=](double x) { return cap * std::tanh(scale * x / cap) / scale; };
  return fits(device, rows);
}

/// Which way a row looks that does not see far enough.
enum class Side { left, right };

/// The weights of a row, relative to its lse, on the keys that it would see if nothing limited it on one
/// side.
struct WideRow {
  std::vector<std::pair<Index, Index>> keys;  // distance from the diagonal, and key; ascending
  std::vector<double> p;                      // of all keys

  WideRow(const AttentionRow& row, Side side) : p(row.in->keys()) {
    AttentionSpec wide = *row.spec;
    if (side == Side::left) {
      wide.window_left = -1;
    } else {
      wide.window_right = -1;
      // Without a diagonal there is another one for ALiBi.
      if (!row.in->alibi_slopes) wide.causal = Causal::none;
    }
    const Index at = diagonal(*row.spec, *row.in, row.i);
    const bool keeps_window = side == Side::right && row.spec->window_left >= 0;
    if (keeps_window) wide.window_left = -1;
    ref::attention_scores(wide, *row.in, row.h, row.i, {p.data(), {row.in->keys()}});
    for (Index j = 0; j < row.in->keys(); ++j) {
      p[j] = std::exp(p[j] - row.lse);
      if (p[j] == 0 || (keeps_window && j < at - row.spec->window_left)) continue;
      keys.push_back({side == Side::left ? at - j : j - at, j});
    }
    std::ranges::sort(keys);
  }
};

/// A row's answers if it sees no key further from the diagonal than that, for all distances.
class Reach {
 public:
  Reach(const AttentionRow& row, const WideRow& wide)
      : row_(row),
        wide_(wide),
        o_(row.o.size()),
        mass_(row.in->sink ? std::exp(row.in->sink(row.h) - row.lse) : 0) {}

  /// Adds the keys up to this distance to those that count; distances may not fall.
  void extend(Index distance) {
    const auto& keys = wide_.keys;
    for (; next_ < keys.size() && keys[next_].first <= distance; ++next_) {
      const Index j = keys[next_].second;
      mass_ += wide_.p[j];
      for (std::size_t e = 0; e < o_.size(); ++e) {
        o_[e] += wide_.p[j] * row_.in->v(row_.in->kv_head(row_.h), j, static_cast<Index>(e));
      }
    }
  }

  double o(std::size_t e) const { return mass_ > 0 ? o_[e] / mass_ : 0; }
  double lse() const { return row_.lse + std::log(mass_); }

  double misfit() const {
    double sum = 0;
    for (std::size_t e = 0; e < o_.size(); ++e) {
      if (row_.sigma[e] > 0) sum += std::pow((row_.got[e] - o(e)) / row_.sigma[e], 2);
    }
    return sum;
  }

 private:
  const AttentionRow& row_;
  const WideRow& wide_;
  std::size_t next_ = 0;
  std::vector<double> o_;  // not yet divided
  double mass_;            // of the weights that count
};

/// Rows without keys are left out.
struct WideRows {
  std::vector<const AttentionRow*> row;
  std::vector<WideRow> wide;
  Index nearest = std::numeric_limits<Index>::max(), furthest = std::numeric_limits<Index>::min();

  WideRows(std::span<const AttentionRow> rows, Side side) {
    for (const AttentionRow& x : rows) {
      WideRow of_row(x, side);
      if (of_row.keys.empty()) continue;
      nearest = std::min(nearest, of_row.keys.front().first);
      furthest = std::max(furthest, of_row.keys.back().first);
      row.push_back(&x);
      wide.push_back(std::move(of_row));
    }
  }
};

/// The distance that fits o best, over all rows; the furthest if nothing is cut off.
Index best_distance(const WideRows& rows, Index nearest) {
  std::vector<double> misfit(rows.furthest - nearest + 1);
  for (std::size_t n = 0; n < rows.row.size(); ++n) {
    Reach reach(*rows.row[n], rows.wide[n]);
    double last = 0;
    for (Index distance = nearest; distance <= rows.furthest; ++distance) {
      if (distance == nearest || distance <= rows.wide[n].keys.back().first) {
        reach.extend(distance);
        last = reach.misfit();
      }
      misfit[distance - nearest] += last;
    }
  }
  return nearest + (std::ranges::min_element(misfit) - misfit.begin());
}

Fits fits_of_distance(const WideRows& rows, Index distance) {
  Fits fits;
  for (std::size_t n = 0; n < rows.row.size(); ++n) {
    const AttentionRow& row = *rows.row[n];
    Reach reach(row, rows.wide[n]);
    reach.extend(distance);
    for (std::size_t e = 0; e < row.o.size(); ++e) fits.o.add(row.got[e], row.o[e], reach.o(e), row.sigma[e]);
    if (row.has_lse) fits.lse.add(row.got_lse, row.lse, reach.lse(), row.lse_sigma);
  }
  return fits;
}

std::vector<DiagnosisEntry> undeclared_window(std::span<const AttentionRow> rows, Side side) {
  const bool is_causal = rows.front().spec->causal != Causal::none;
  const WideRows wide(rows, side);
  const Index nearest = side == Side::right && is_causal ? std::min<Index>(wide.nearest, 0) : 0;
  if (wide.furthest <= nearest) return {};
  const Index distance = best_distance(wide, nearest);
  if (distance == wide.furthest) return {};
  std::string cause = (side == Side::left ? "window_left = " : "window_right = ") + std::to_string(distance);
  if (side == Side::right && is_causal) {
    cause = "a causal diagonal " + keys_in_words(std::abs(distance)) + (distance < 0 ? " short" : " too far");
  }
  return fitted_fault(fits_of_distance(wide, distance), cause);
}

/// A score of nothing that takes weight in every row of a head: o shrinks, and lse grows.
std::vector<DiagnosisEntry> undeclared_sink(std::span<const AttentionRow> rows) {
  if (rows.front().in->sink) return {};
  std::map<Index, std::vector<double>> of_head;
  for (const AttentionRow& row : rows) {
    if (!row.has_lse) return {};
    if (row.got_lse > row.lse)
      of_head[row.h].push_back(row.got_lse + std::log(-std::expm1(row.lse - row.got_lse)));
  }
  std::erase_if(of_head, [](const auto& head) { return head.second.size() < least_rows; });
  if (of_head.empty()) return {};
  Fits fits;
  for (auto& [h, sinks] : of_head) std::ranges::nth_element(sinks, sinks.begin() + std::ssize(sinks) / 2);
  for (const AttentionRow& row : rows) {
    const auto found = of_head.find(row.h);
    if (found == of_head.end()) continue;
    const double sink = found->second[found->second.size() / 2];
    const double top = std::max(sink, row.lse);
    const double lse = top + std::log(std::exp(sink - top) + std::exp(row.lse - top));
    const double factor = std::exp(row.lse - lse);
    for (std::size_t e = 0; e < row.o.size(); ++e) {
      fits.o.add(row.got[e], row.o[e], factor * row.o[e], row.sigma[e]);
    }
    fits.lse.add(row.got_lse, row.lse, lse, row.lse_sigma);
  }
  const auto& [h, sinks] = *of_head.begin();
  char cause[64];
  std::snprintf(cause, sizeof cause, "a sink, of score %.3g in head %td", sinks[sinks.size() / 2], h);
  return fitted_fault(fits, cause);
}

std::vector<DiagnosisEntry> undeclared_softcap(std::span<const AttentionRow> rows) {
  const AttentionSpec& spec = *rows.front().spec;
  if (spec.softcap > 0 || spec.scale == 0) return {};
  const auto explained = [&](double log_cap) {
    const Fits both = fits_of_softcap(rows, std::exp(log_cap));
    return (both.o + both.lse).explained();
  };
  double best = 0, most = 0;
  for (int power = -2; power <= 9; ++power) {
    const double share = explained(power * std::numbers::ln2);
    if (share > most) most = share, best = power * std::numbers::ln2;
  }
  for (double step = std::numbers::ln2 / 2; most > 0 && step > 1e-3; step /= 2) {
    for (const double near : {best - step, best + step}) {
      const double share = explained(near);
      if (share > most) most = share, best = near;
    }
  }
  char cause[32];
  std::snprintf(cause, sizeof cause, "softcap = %.3g", std::exp(best));
  return fitted_fault(fits_of_softcap(rows, std::exp(best)), cause);
}

}  // namespace

std::vector<DiagnosisEntry> undeclared_options(std::span<const AttentionRow> rows) {
  std::vector<DiagnosisEntry> all;
  if (rows.size() < 4) return all;
  for (const auto& entries : {undeclared_window(rows, Side::left), undeclared_window(rows, Side::right),
                              undeclared_softcap(rows), undeclared_sink(rows)}) {
    all.insert(all.end(), entries.begin(), entries.end());
  }
  return all;
}

}  // namespace attest
