// Sinks of other numbers than declared, each found from the row sums of its head.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>

#include "verify/ops/attention/device.hpp"
#include "verify/statistics/median.hpp"

namespace attest {
namespace {

constexpr std::size_t least_rows = 3;  // of a head: to one row any sink fits
constexpr double least_change = 1e-3;
constexpr double least_difference = 36;  // of squares of errors in units of what is predicted
constexpr Index most_heads_named = 3;

/// The row sum that a row seems to have over the right one; NaN if that cannot be told.
double ratio_of_sums(const AttentionRow& row) {
  if (row.has_lse) return std::exp(row.got_lse - row.lse);
  double got = 0, square = 0;
  for (std::size_t e = 0; e < row.o.size(); ++e) got += row.got[e] * row.o[e], square += row.o[e] * row.o[e];
  return square / got;
}

/// The share of the row sum that is not the sink's.
double share_of_keys(const AttentionRow& row) {
  return -std::expm1(row.in->sink(row.h) - row.lse);
}

}  // namespace

std::vector<DiagnosisEntry> wrong_sinks(std::span<const AttentionRow> rows) {
  if (rows.empty() || !rows.front().in->sink) return {};
  std::map<Index, std::vector<double>> found, factors;
  for (const AttentionRow& row : rows) {
    const double factor = ratio_of_sums(row), sink = row.lse + std::log(factor - share_of_keys(row));
    if (!std::isfinite(sink)) continue;
    found[row.h].push_back(sink);
    factors[row.h].push_back(factor);
  }
  std::map<Index, double> sinks;
  std::string cause;
  Index named = 0;
  for (const auto& [h, values] : found) {
    if (values.size() < least_rows) continue;
    const double sink = median(values), declared = rows.front().in->sink(h);
    if (std::abs(sink - declared) < least_change) continue;
    sinks[h] = sink;
    if (named++ >= most_heads_named) continue;
    char text[96];
    std::snprintf(text, sizeof text, "%s%.3g in place of %.3g in head %td", named > 1 ? ", " : "", sink,
                  declared, h);
    cause += text;
  }
  if (sinks.empty()) return {};
  Fits fits, multiplied;  // row sums that are off by a factor in all rows of a head are no sink's
  for (const AttentionRow& row : rows) {
    const auto sink = sinks.find(row.h);
    const auto add = [&](Fits& to, double lse) {
      if (row.has_lse) to.lse.add(row.got_lse, row.lse, lse, row.lse_sigma);
      for (std::size_t e = 0; e < row.o.size(); ++e)
        to.o.add(row.got[e], row.o[e], std::exp(row.lse - lse) * row.o[e], row.sigma[e]);
    };
    if (sink == sinks.end()) {
      add(fits, row.lse), add(multiplied, row.lse);
      continue;
    }
    add(fits, row.lse + std::log(share_of_keys(row) + std::exp(sink->second - row.lse)));
    add(multiplied, row.lse + std::log(median(factors[row.h])));
  }
  if ((multiplied.o + multiplied.lse).other < (fits.o + fits.lse).other + least_difference) return {};
  return fitted_fault(fits, "other sinks: " + cause + (named > most_heads_named ? ", ..." : ""));
}

}  // namespace attest
