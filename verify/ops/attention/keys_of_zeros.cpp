// Keys behind those of a batch entry that take weight as keys of zeros do: tails of pages or tiles, in each
// entry as many as it has.
#include <algorithm>
#include <cmath>
#include <map>

#include "verify/ops/attention/device.hpp"
#include "verify/ops/attention/reads.hpp"
#include "verify/statistics/median.hpp"

namespace attest {
namespace {

constexpr std::size_t most_entries_named = 3;
constexpr double most_keys = 1 << 20;

/// By how many keys of score 0 the row sum seems to be too large; NaN if that cannot be told.
double count_in(const AttentionRow& row) {
  if (row.has_lse) return std::exp(row.lse) * std::expm1(row.got_lse - row.lse);
  double got = 0, square = 0;
  for (std::size_t e = 0; e < row.o.size(); ++e) got += row.got[e] * row.o[e], square += row.o[e] * row.o[e];
  return std::exp(row.lse) * (square / got - 1);
}

}  // namespace

std::vector<DiagnosisEntry> keys_of_zeros(const AttentionCase& attention,
                                          std::span<const AttentionRow> rows) {
  if (rows.size() < 4 || rows.front().in->bias || rows.front().in->alibi_slopes) return {};
  std::map<Index, std::vector<double>> of_entry;
  for (const AttentionRow& row : rows) {
    const double count = count_in(row);
    if (std::isfinite(count)) of_entry[sequence_of(attention, row)].push_back(count);
  }
  std::map<Index, double> counts;
  std::string text;
  for (const auto& [n, values] : of_entry) {
    counts[n] = std::clamp(std::round(median(values)), 0.0, most_keys);
    if (counts.size() > most_entries_named) continue;
    text += (text.empty() ? "" : ", ") + std::to_string(static_cast<Index>(counts[n])) +
            of_entry_text(attention, n);
  }
  const auto differ = [&](const auto& x) { return x.second != counts.begin()->second; };
  if (std::ranges::none_of(counts, differ)) return {};  // such ends have a name
  Fits fits;
  for (const AttentionRow& row : rows) {
    const double count = counts[sequence_of(attention, row)];
    const double lse = row.lse + std::log1p(count * std::exp(-row.lse));
    if (row.has_lse) fits.lse.add(row.got_lse, row.lse, lse, row.lse_sigma);
    for (std::size_t e = 0; e < row.o.size(); ++e)
      fits.o.add(row.got[e], row.o[e], std::exp(row.lse - lse) * row.o[e], row.sigma[e]);
  }
  return fitted_fault(fits, "keys of zeros take weight behind those of an entry: " + text +
                                (counts.size() > most_entries_named ? ", ..." : ""));
}

}  // namespace attest
