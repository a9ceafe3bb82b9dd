// Options that a kernel seems to have and its dump does not declare, or declares otherwise: found as numbers
// that explain the errors.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <map>
#include <numbers>

#include "verify/ops/attention/device.hpp"
#include "verify/statistics/median.hpp"

namespace attest {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double least_explained_of_softcap = 0.99 * preference_for_constants;
constexpr std::size_t least_rows = 3;  // of a head: to one row any sink fits

Fits fits_of_softcap(std::span<const AttentionRow> rows, double cap) {
  AttentionDevice device;
  device.softcap = cap;
  return fits(device, rows);
}

/// log(e^a + e^b)
double log_add(double a, double b) {
  return std::max(a, b) + std::log1p(std::exp(-std::abs(a - b)));
}

/// A score of nothing that takes weight in every row of a head: o shrinks, and lse grows.
std::vector<DiagnosisEntry> undeclared_sink(std::span<const AttentionRow> rows) {
  if (rows.front().in->sink) return {};
  struct OfHead {
    std::vector<double> sinks, shifts;
  };
  std::map<Index, OfHead> heads;
  for (const AttentionRow& row : rows) {
    const double shift = row.got_lse - row.lse;
    if (!row.has_lse || !(shift > 0)) continue;
    heads[row.h].sinks.push_back(row.got_lse + std::log(-std::expm1(-shift)));
    heads[row.h].shifts.push_back(shift);
  }
  std::erase_if(heads, [](const auto& head) { return head.second.sinks.size() < least_rows; });
  if (heads.empty()) return {};
  Fits with_sink, shifted;  // a row sum that is off by a factor makes all lse of a head larger alike
  for (const AttentionRow& row : rows) {
    const auto found = heads.find(row.h);
    if (found == heads.end() || !row.has_lse) continue;
    const auto add = [&](Fits& fits, double lse) {
      for (std::size_t e = 0; e < row.o.size(); ++e) {
        fits.o.add(row.got[e], row.o[e], std::exp(row.lse - lse) * row.o[e], row.sigma[e]);
      }
      fits.lse.add(row.got_lse, row.lse, lse, row.lse_sigma);
    };
    add(with_sink, log_add(row.lse, median(found->second.sinks)));
    add(shifted, row.lse + median(found->second.shifts));
  }
  if (2 * (with_sink.o + with_sink.lse).other > (shifted.o + shifted.lse).other) return {};
  const auto& [h, head] = *heads.begin();
  char cause[64];
  std::snprintf(cause, sizeof cause, "a sink, of score %.3g in head %td", median(head.sinks), h);
  return fitted_fault(with_sink, cause);
}

/// One that is not declared, or another one than is.
std::vector<DiagnosisEntry> other_softcap(std::span<const AttentionRow> rows) {
  constexpr double least_step = 1e-5, least_change = 1e-3;  // of its logarithm
  constexpr double most_cap = 512;                          // or rather none
  const AttentionSpec& spec = *rows.front().spec;
  if (spec.scale == 0) return {};
  const double declared = spec.softcap > 0 ? std::log(spec.softcap) : infinity;
  const auto left = [&](double log_cap) {
    const Fits both = fits_of_softcap(rows, std::exp(log_cap));
    const double other = (both.o + both.lse).other;
    return std::isfinite(other) ? other : infinity;
  };
  double best = declared, least = std::isfinite(declared) ? left(declared) : infinity;
  for (int power = -2; power <= 9; ++power) {
    const double now = left(power * std::numbers::ln2);
    if (now < least) least = now, best = power * std::numbers::ln2;
  }
  for (double step = std::numbers::ln2 / 2; std::isfinite(best) && step > least_step; step /= 2) {
    for (const double near : {best - step, best + step}) {
      const double now = left(near);
      if (now < least) least = now, best = near;
    }
  }
  if (!std::isfinite(best)) return {};
  const double cap = std::exp(best);
  if (std::abs(best - declared) < least_change || cap > most_cap) return {};
  char cause[64];
  if (spec.softcap > 0)
    std::snprintf(cause, sizeof cause, "softcap = %.4g in place of %.4g", cap, spec.softcap);
  else
    std::snprintf(cause, sizeof cause, "softcap = %.3g", cap);
  std::vector<DiagnosisEntry> found = fitted_fault(fits_of_softcap(rows, cap), cause);
  // Other functions of scores that grow slowly come near.
  std::erase_if(found, [](const DiagnosisEntry& x) { return x.confidence < least_explained_of_softcap; });
  return found;
}

}  // namespace

std::vector<DiagnosisEntry> undeclared_options(std::span<const AttentionRow> rows) {
  std::vector<DiagnosisEntry> all;
  if (rows.size() < 4) return all;
  for (const auto& entries : {other_softcap(rows), undeclared_sink(rows)}) {
    all.insert(all.end(), entries.begin(), entries.end());
  }
  return all;
}

}  // namespace attest
