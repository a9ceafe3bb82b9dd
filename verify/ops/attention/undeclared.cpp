// Options that a kernel seems to have and its dump does not declare: found as numbers that explain the
// errors.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <numbers>

#include "verify/ops/attention/device.hpp"

namespace attest {
namespace {

constexpr std::size_t least_rows = 3;  // of a head: to one row any sink fits

Fits fits_of_softcap(std::span<const AttentionRow> rows, double cap) {
  AttentionDevice device;
  const double scale = rows.front().spec->scale;
  device.raw_score = [=](double x) { return cap * std::tanh(scale * x / cap) / scale; };
  return fits(device, rows);
}

/// The number in the middle.
double median(std::vector<double> x) {
  std::ranges::nth_element(x, x.begin() + std::ssize(x) / 2);
  return x[x.size() / 2];
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
  for (const auto& entries : {undeclared_softcap(rows), undeclared_sink(rows)}) {
    all.insert(all.end(), entries.begin(), entries.end());
  }
  return all;
}

}  // namespace attest
