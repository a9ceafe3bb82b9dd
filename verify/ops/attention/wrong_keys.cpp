// Keys that weigh what they should not, found from the errors of o.
#include <algorithm>
#include <cmath>
#include <optional>
#include <string>

#include "verify/ops/attention/explanations.hpp"
#include "verify/ops/weighted_sums.hpp"
#include "verify/statistics/median.hpp"

namespace attest {
namespace {

constexpr double least_explained = 0.8;
constexpr double least_explained_by_key = 0.7, gain_of_any_vector = 0.2;
constexpr const char* any_vector = "another vector";
constexpr double least_explained_by_factors = 0.95;  // one for each row

WeightedSum sum_of(const AttentionRow& row) {
  WeightedSum sum;
  const View<const double, 3>& v = row.in->v;
  for (Index c = 0; c < row.count(); ++c) {
    sum.terms.push_back({row.key[c], row.p[c], &v(row.in->kv_head(row.h), row.key[c], 0), row.stored[c]});
  }
  sum.step = v.stride(2);
  sum.places = row.in->keys();
  sum.exact = row.o, sum.got = row.got, sum.sigma = row.sigma;
  return sum;
}

/// Row sums whose lse is far off.
bool are_wrong_in_lse(std::span<const AttentionRow> rows) {
  constexpr double most_sigmas = 8;
  const auto is_wrong = [](const AttentionRow& row) {
    return row.has_lse && std::abs(row.got_lse - row.lse) > most_sigmas * row.lse_sigma;
  };
  return 2 * std::ranges::count_if(rows, is_wrong) > std::ssize(rows);
}

/// Is lse not that of rows without these keys, or with them twice?
bool has_other_lse(std::span<const AttentionRow> rows, const WrongRange& range) {
  Fit lse;
  for (const AttentionRow& row : rows) {
    if (!row.has_lse) continue;
    double mass = 0;
    for (Index c = 0; c < row.count(); ++c)
      if (row.key[c] >= range.first && row.key[c] < range.last) mass += row.p[c];
    const double sum = range.changes_by(-1) ? 1 - mass : 1 + mass;
    if (sum > 0) lse.add(row.got_lse, row.lse, row.lse + std::log(sum), row.lse_sigma);
  }
  return lse.denies();
}

std::optional<DiagnosisEntry> wrong_range(std::span<const AttentionRow> rows) {
  std::vector<WeightedSum> sums;
  Index places = 0;  // of the longest sequence
  for (const AttentionRow& row : rows) {
    sums.push_back(sum_of(row));
    places = std::max(places, sums.back().places);
  }
  const WrongRange range = best_range(sums, true);
  const bool is_of_all = range.spans_all(places);
  if (range.explained < least_explained) return {};
  if (!range.in_row_sum && !is_of_all && are_wrong_in_lse(rows)) return {};
  const std::string keys = std::to_string(range.first) + ".." + std::to_string(range.last - 1);
  const std::string where = range.in_row_sum ? "" : " in P.V but not in the row sum";
  std::string cause;
  double confidence = range.explained;
  if (is_of_all) {
    // By how many keys of score 0 the row sum would have to be too large.
    std::vector<double> padding;
    for (std::size_t n = 0; n < range.sum.size(); ++n) {
      if (range.change[n] <= -1) continue;  // of the other sign: no row sum does that
      padding.push_back(std::expm1(-std::log1p(range.change[n])) * std::exp(rows[range.sum[n]].lse));
    }
    if (2 * padding.size() < range.sum.size()) return {};
    const double count = std::round(median(padding));
    const bool is_padding = count >= 1 && all_near(padding, count);
    cause = is_padding ? std::to_string(static_cast<Index>(count)) +
                             " keys of zeros take weight: the end of the last tile is not masked"
                       : "the row sum, or the division by it: each row of o is off by a factor";
    if (!is_padding) confidence = std::min(confidence, confidence_of_a_place);
  } else if (range.in_row_sum && range.is_whole() && has_other_lse(rows, range)) {
    return {};
  } else if (range.changes_by(-1)) {
    cause = "keys " + keys + " missing" + where;
  } else if (range.changes_by(1)) {
    cause = "keys " + keys + " counted twice" + where;
  } else if (range.explained < least_explained_by_factors) {
    return {};
  } else if (range.first == 0 && range.change.front() > 0) {
    cause = "keys " + keys + " not rescaled when a later maximum rose" + where;
  } else if (range.change.front() <= -1) {
    return {};  // no weight is negative
  } else {
    char factor[32];
    std::snprintf(factor, sizeof factor, "%.3g", 1 + range.change[range.change.size() / 2]);
    if (std::string(factor) == "1") return {};
    cause = "weights of keys " + keys + " wrong by a factor (about " + factor + ")" + where;
  }
  return DiagnosisEntry{cause, confidence,
                        "explains " + percent(range.explained) + " of the squared errors of " +
                            std::to_string(rows.size()) + " rows"};
}

/// Some keys whose rows of V are those of the key before or after.
std::optional<DiagnosisEntry> shifted_values(std::span<const AttentionRow> rows) {
  std::optional<DiagnosisEntry> best;
  for (const Index shift : {-1, 1}) {
    const AttentionInputs& in = *rows.front().in;
    const Index width = in.v_width(), keys = in.keys(), g = in.kv_head(rows.front().h);
    std::vector<double> difference(keys * width);
    for (Index j = 0; j < keys; ++j) {
      const Index from = std::clamp<Index>(j + shift, 0, keys - 1);
      for (Index e = 0; e < width; ++e) difference[j * width + e] = in.v(g, from, e) - in.v(g, j, e);
    }
    std::vector<WeightedSum> sums;
    for (const AttentionRow& row : rows) {
      if (row.in != &in || in.kv_head(row.h) != g) continue;
      sums.push_back(sum_of(row));
      for (Term& term : sums.back().terms) term.vector = &difference[term.place * width];
      sums.back().step = 1;
    }
    const WrongRange range = best_range(sums, false);
    if (range.explained < least_explained || !range.changes_by(1)) continue;
    if (best && best->confidence >= range.explained) continue;
    best = {"keys " + std::to_string(range.first) + ".." + std::to_string(range.last - 1) +
                " take the rows of V of the key " + (shift < 0 ? "before" : "after"),
            range.explained,
            "explains " + percent(range.explained) + " of the squared errors of " +
                std::to_string(sums.size()) + " rows"};
  }
  return best;
}

/// By how much the score of a key changed in a row, if nothing else did, and the share of the row's squared
/// error that this explains.
struct ScoreChange {
  double change, explained;
};

ScoreChange score_change(const AttentionRow& row, Index c) {
  double rr = 0, rd = 0, dd = 0;
  for (Index e = 0; e < row.in->v_width(); ++e) {
    const double r = row.got[e] - row.o[e], d = row.p[c] * (row.v(c, e) - row.o[e]);
    rr += r * r, rd += r * d, dd += d * d;
  }
  if (!(rr > 0 && dd > 0)) return {0, 0};
  const double slope = rd / dd;  // x / (1 + x p), if the weight was multiplied by 1 + x
  const double factor = 1 + slope / (1 - slope * row.p[c]);
  return factor > 0 ? ScoreChange{std::log(factor), rd * rd / (dd * rr)} : ScoreChange{0, 0};
}

/// One key whose row of K, in all rows alike, is another vector.
std::optional<DiagnosisEntry> wrong_key_row(std::span<const AttentionRow> rows) {
  const AttentionInputs& in = *rows.front().in;
  const Index keys = in.keys(), g = in.kv_head(rows.front().h);
  std::vector<double> explained(keys);
  double used = 0;
  for (const AttentionRow& row : rows) {
    if (row.in != &in || in.kv_head(row.h) != g) continue;
    ++used;
    for (Index c = 0; c < row.count(); ++c) explained[row.key[c]] += score_change(row, c).explained;
  }
  // One number is fitted to a row: in few columns it always fits.
  if (used < 4 || in.v_width() < 4) return {};
  const Index best = std::ranges::max_element(explained) - explained.begin();
  const double share = explained[best] / used;
  if (share < least_explained) return {};

  // Whose row is it? The changes of score are products with what the row differs by.
  std::string what = any_vector;
  double nearest = 0.1;
  for (Index j = -1; j < keys && rows.front().spec->softcap == 0; ++j) {
    if (j == best) continue;
    double distance = 0, size = 0;
    for (const AttentionRow& row : rows) {
      const auto at = std::ranges::find(row.key, best);
      if (row.in != &in || in.kv_head(row.h) != g || at == row.key.end()) continue;
      const ScoreChange seen = score_change(row, at - row.key.begin());
      if (seen.explained < least_explained) continue;
      double change = 0;
      for (Index d = 0; d < in.qk_width(); ++d)
        change += row.spec->scale * row.q(d) * ((j < 0 ? 0 : in.k(g, j, d)) - in.k(g, best, d));
      distance += (seen.change - change) * (seen.change - change);
      size += seen.change * seen.change;
    }
    if (distance < nearest * size) {
      nearest = distance / size;
      what = j < 0 ? "zeros" : "that of key " + std::to_string(j);
    }
  }
  return DiagnosisEntry{"the row of K that key " + std::to_string(best) + " reads is stale: " + what, share,
                        "explains " + percent(share) + " of the squared errors of " +
                            std::to_string(static_cast<int>(used)) + " rows"};
}

/// The share of its squared errors that a factor of the whole row of o explains.
double share_of_factor(const AttentionRow& row) {
  double rr = 0, oo = 0, ro = 0;
  for (std::size_t e = 0; e < row.o.size(); ++e) {
    const double r = row.got[e] - row.o[e];
    rr += r * r, oo += row.o[e] * row.o[e], ro += r * row.o[e];
  }
  return oo > 0 ? ro * ro / (oo * rr) : 0;
}

/// One key whose row of V, in all rows alike, is another vector.
std::optional<DiagnosisEntry> wrong_value_row(std::span<const AttentionRow> rows) {
  const AttentionInputs& in = *rows.front().in;
  const Index width = in.v_width(), keys = in.keys(), g = in.kv_head(rows.front().h);
  std::vector<double> pr(keys * width), pp(keys);
  double used = 0, by_factors = 0;
  for (const AttentionRow& row : rows) {
    double rr = 0;
    for (Index e = 0; e < width; ++e) rr += (row.got[e] - row.o[e]) * (row.got[e] - row.o[e]);
    if (row.in != &in || in.kv_head(row.h) != g || rr == 0) continue;
    ++used;
    by_factors += share_of_factor(row);
    for (Index c = 0; c < row.count(); ++c) {
      const double p = row.p[c] / rr;
      for (Index e = 0; e < width; ++e) pr[row.key[c] * width + e] += p * (row.got[e] - row.o[e]);
      pp[row.key[c]] += p * row.p[c];
    }
  }
  if (used < 4) return {};
  Index best = 0;
  double most = 0;
  for (Index j = 0; j < keys; ++j) {
    double sum = 0;
    for (Index e = 0; e < width; ++e) sum += pr[j * width + e] * pr[j * width + e];
    if (pp[j] > 0 && sum / pp[j] > most) most = sum / pp[j], best = j;
  }
  const double explained = most / used;
  // V does not go into lse, and a factor of each row says less than a vector of any value.
  if (explained < least_explained || by_factors / used >= explained || are_wrong_in_lse(rows)) return {};

  // Whose row is it?
  std::string what = any_vector;
  double nearest = 0.1;
  for (Index j = -1; j < keys; ++j) {
    if (j == best) continue;
    double distance = 0, size = 0;
    for (Index e = 0; e < width; ++e) {
      const double v = in.v(g, best, e), taken = v + pr[best * width + e] / pp[best];
      const double candidate = j < 0 ? 0 : in.v(g, j, e);
      distance += (taken - candidate) * (taken - candidate);
      size += v * v;
    }
    if (distance < nearest * size) {
      nearest = distance / size;
      what = j < 0 ? "zeros" : "that of key " + std::to_string(j);
    }
  }
  return DiagnosisEntry{"the row of V that key " + std::to_string(best) + " reads is stale: " + what,
                        explained,
                        "explains " + percent(explained) + " of the squared errors of " +
                            std::to_string(static_cast<int>(used)) + " rows"};
}

/// One key that no row sees, or that each counts twice: its weight is multiplied by 1 + x. Nothing is fitted
/// to the errors but which key it is.
std::optional<DiagnosisEntry> wrong_key(std::span<const AttentionRow> rows, double x) {
  const Index keys = rows.front().in->keys();
  std::vector<double> explained(keys);
  for (const AttentionRow& row : rows) {
    for (Index c = 0; c < row.count(); ++c) {
      if (row.key[c] >= keys) continue;  // of a longer sequence
      double rr = 0, left = 0;
      const double sum = 1 + x * row.p[c], change = sum > 0 ? x * row.p[c] / sum : 0;
      for (std::size_t e = 0; e < row.o.size(); ++e) {
        const double r = row.got[e] - row.o[e];
        const double d = change * (row.v(c, static_cast<Index>(e)) - row.o[e]);
        rr += r * r, left += (r - d) * (r - d);
      }
      if (rr > 0) explained[row.key[c]] += std::max(0.0, 1 - left / rr);
    }
  }
  const Index best = std::ranges::max_element(explained) - explained.begin();
  const double share = explained[best] / static_cast<double>(rows.size());
  if (rows.size() < 4 || share < least_explained_by_key) return {};
  Fit lse;
  for (const AttentionRow& row : rows) {
    const auto at = std::ranges::lower_bound(row.key, best);
    if (!row.has_lse || at == row.key.end() || *at != best) continue;
    lse.add(row.got_lse, row.lse, row.lse + std::log1p(x * row.p[at - row.key.begin()]), row.lse_sigma);
  }
  if (lse.denies()) return {};
  return DiagnosisEntry{
      "key " + std::to_string(best) + (x < 0 ? " missing" : " counted twice"), share,
      "explains " + percent(share) + " of the squared errors of " + std::to_string(rows.size()) + " rows"};
}

}  // namespace

std::vector<DiagnosisEntry> wrong_keys(std::span<const AttentionRow> rows) {
  std::vector<DiagnosisEntry> all;
  if (rows.empty() || rows.front().in->keys() == 0 || rows.front().o.empty()) return all;
  std::optional<DiagnosisEntry> key = wrong_key(rows, -1);
  if (auto twice = wrong_key(rows, 1); twice && !(key && key->confidence >= twice->confidence)) key = twice;
  // A vector that is free to be any explains more than a weight that is given.
  const auto add_row = [&](const std::optional<DiagnosisEntry>& entry) {
    if (!entry) return;
    const double gain = entry->cause.ends_with(any_vector) ? gain_of_any_vector : least_gain;
    if (!key || entry->confidence >= key->confidence + gain) all.push_back(*entry);
  };
  add_row(wrong_value_row(rows));
  add_row(wrong_key_row(rows));
  if (key && all.empty()) all.push_back(*key);
  if (auto entry = shifted_values(rows)) all.push_back(*entry);
  if (auto entry = wrong_range(rows)) all.push_back(*entry);
  return all;
}

}  // namespace attest
