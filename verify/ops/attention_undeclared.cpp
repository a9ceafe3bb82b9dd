// Options that a kernel seems to have and its dump does not declare: found as numbers that explain the
// errors.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numbers>
#include <utility>

#include "verify/ops/attention_device.hpp"

namespace attest {
namespace {

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

/// A row's answers if it sees no key further from the diagonal than that, for all distances.
class Reach {
 public:
  Reach(const AttentionRow& row, Side side)
      : row_(row), o_(row.o.size()), mass_(row.in->sink ? std::exp(row.in->sink(row.h) - row.lse) : 0) {
    const Index at = diagonal(*row.spec, *row.in, row.i);
    for (Index c = 0; c < row.count(); ++c) {
      keys_.push_back({side == Side::left ? at - row.key[c] : row.key[c] - at, c});
    }
    std::ranges::sort(keys_);
  }

  Index nearest() const { return keys_.front().first; }
  Index furthest() const { return keys_.back().first; }

  /// Adds the keys up to this distance to those that count; distances may not fall.
  void extend(Index distance) {
    for (; next_ < keys_.size() && keys_[next_].first <= distance; ++next_) {
      const Index c = keys_[next_].second;
      mass_ += row_.p[c];
      for (std::size_t e = 0; e < o_.size(); ++e) o_[e] += row_.p[c] * row_.v(c, static_cast<Index>(e));
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
  std::vector<std::pair<Index, Index>> keys_;  // distance, and place among the row's keys
  std::size_t next_ = 0;
  std::vector<double> o_;  // not yet divided
  double mass_;            // of the weights that count
};

/// The distance that fits o best, over all rows; the furthest if nothing is cut off.
Index best_distance(std::span<const AttentionRow> rows, Side side, Index nearest, Index furthest) {
  std::vector<double> misfit(furthest - nearest + 1);
  for (const AttentionRow& row : rows) {
    Reach reach(row, side);
    double last = 0;
    for (Index distance = nearest; distance <= furthest; ++distance) {
      if (distance == nearest || distance <= reach.furthest()) {
        reach.extend(distance);
        last = reach.misfit();
      }
      misfit[distance - nearest] += last;
    }
  }
  return nearest + (std::ranges::min_element(misfit) - misfit.begin());
}

Fits fits_of_distance(std::span<const AttentionRow> rows, Side side, Index distance) {
  Fits fits;
  for (const AttentionRow& row : rows) {
    Reach reach(row, side);
    reach.extend(distance);
    for (std::size_t e = 0; e < row.o.size(); ++e) fits.o.add(row.got[e], row.o[e], reach.o(e), row.sigma[e]);
    if (row.has_lse) fits.lse.add(row.got_lse, row.lse, reach.lse(), row.lse_sigma);
  }
  return fits;
}

std::vector<DiagnosisEntry> undeclared_window(std::span<const AttentionRow> rows, Side side) {
  const bool is_causal = rows.front().spec->causal != Causal::none;
  Index nearest = 0, furthest = 0;
  for (const AttentionRow& row : rows) {
    const Reach reach(row, side);
    if (side == Side::right && is_causal) nearest = std::min(nearest, reach.nearest());
    furthest = std::max(furthest, reach.furthest());
  }
  if (furthest <= nearest) return {};
  const Index distance = best_distance(rows, side, nearest, furthest);
  if (distance == furthest) return {};
  const std::string cause = side == Side::left ? "window_left = " + std::to_string(distance)
                            : is_causal        ? "a causal diagonal " + keys_in_words(-distance) + " short"
                                               : "window_right = " + std::to_string(distance);
  return fitted_fault(fits_of_distance(rows, side, distance), cause);
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
                              undeclared_softcap(rows)}) {
    all.insert(all.end(), entries.begin(), entries.end());
  }
  return all;
}

}  // namespace attest
