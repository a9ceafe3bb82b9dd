// Keys that weigh what they should not, and rows that are not their own, found from the errors of o.
//
// If the weights of some keys were multiplied by 1 + x, a row of o errs by
//   x (d - P o) / (1 + x P),  d = sum over these keys of p v, P of p,   where the row sum took part,
//   x d                                                               where it did not.
// x is fitted row by row, the keys are found for all rows together, which count alike.
#include <algorithm>
#include <cmath>
#include <optional>
#include <string>

#include "verify/ops/attention_explanations.hpp"

namespace attest {
namespace {

constexpr double least_explained = 0.8;
constexpr Index most_pieces = 64, least_piece = 8;

std::string percent(double share) {
  return std::to_string(static_cast<int>(100 * share)) + " %";
}

/// Keys [first, last), and by what their weights were multiplied in each row that says so.
struct WrongRange {
  Index first = 0, last = 0;
  bool in_row_sum = false;
  double explained = 0;
  std::vector<double> change;   // x, of the rows whose error it explains
  std::vector<double> padding;  // of them: by how many keys of score 0 the row sum would have to be too large
};

/// Sums over pieces of `piece` keys: prefix[n] is the sum of the first n pieces.
struct Pieces {
  Index piece, count, width;
  std::vector<double> prefix;  // [count + 1, width + 1]: of p v, and of p

  Pieces(const AttentionRow& row, Index piece_, Index count_)
      : piece(piece_), count(count_), width(row.in->v_width()), prefix((count + 1) * (width + 1)) {
    Index c = 0;
    for (Index n = 0; n < count; ++n) {
      double* const sum = &prefix[(n + 1) * (width + 1)];
      std::copy_n(&prefix[n * (width + 1)], width + 1, sum);
      for (; c < row.count() && row.key[c] < (n + 1) * piece; ++c) {
        for (Index e = 0; e < width; ++e) sum[e] += row.p[c] * row.v(c, e);
        sum[width] += row.p[c];
      }
    }
  }
};

/// The fitted x of one row, and the share of its squared errors that is left.
struct RowFit {
  double x, left;
};

RowFit fit_row(const AttentionRow& row, const double* from, const double* to, bool in_row_sum) {
  const Index width = row.in->v_width();
  const double weight = in_row_sum ? to[width] - from[width] : 0;
  double rr = 0, rd = 0, dd = 0;
  for (Index e = 0; e < width; ++e) {
    const double r = row.got[e] - row.o[e], d = to[e] - from[e] - weight * row.o[e];
    rr += r * r, rd += r * d, dd += d * d;
  }
  if (!(dd > 0 && rr > 0)) return {0, 1};
  const double slope = rd / dd;
  return {slope / (1 - slope * weight), 1 - rd * rd / (dd * rr)};
}

/// The range that explains most of all rows together.
WrongRange best_range(std::span<const AttentionRow> rows) {
  Index keys = 0;
  for (const AttentionRow& row : rows) keys = std::max(keys, row.in->keys());
  const Index piece =
      std::max(least_piece, (keys / most_pieces + least_piece - 1) / least_piece * least_piece);
  const Index count = (keys + piece - 1) / piece;
  std::vector<Pieces> pieces;
  for (const AttentionRow& row : rows) pieces.emplace_back(row, piece, count);

  const Index width = rows.front().in->v_width();
  WrongRange best;
  for (const bool in_row_sum : {true, false}) {
    for (Index a = 0; a < count; ++a) {
      for (Index b = a + 1; b <= count; ++b) {
        if (in_row_sum && b - a == count) continue;  // which changes nothing
        double left = 0;
        for (std::size_t n = 0; n < rows.size(); ++n) {
          const double* prefix = pieces[n].prefix.data();
          left += fit_row(rows[n], prefix + a * (width + 1), prefix + b * (width + 1), in_row_sum).left;
        }
        const double explained = 1 - left / static_cast<double>(rows.size());
        if (explained > best.explained + 1e-9)
          best = {a * piece, std::min(b * piece, keys), in_row_sum, explained, {}, {}};
      }
    }
  }
  if (best.explained < least_explained) return best;
  for (std::size_t n = 0; n < rows.size(); ++n) {
    const double* prefix = pieces[n].prefix.data();
    const RowFit fit = fit_row(rows[n], prefix + best.first / piece * (width + 1),
                               prefix + (best.last + piece - 1) / piece * (width + 1), best.in_row_sum);
    if (fit.left > 0.3) continue;
    best.change.push_back(fit.x);
    best.padding.push_back(std::expm1(-std::log1p(fit.x)) * std::exp(rows[n].lse));
  }
  std::ranges::sort(best.change);
  std::ranges::sort(best.padding);
  return best;
}

/// Most of the changes are within 10 % of x.
bool all_near(const std::vector<double>& changes, double x) {
  const auto near =
      std::ranges::count_if(changes, [&](double c) { return std::abs(c - x) < 0.1 * std::abs(x); });
  return !changes.empty() && 4 * near >= 3 * static_cast<std::ptrdiff_t>(changes.size());
}

std::optional<DiagnosisEntry> wrong_range(std::span<const AttentionRow> rows) {
  const WrongRange range = best_range(rows);
  if (range.explained < least_explained || range.change.empty()) return {};
  const std::string keys = std::to_string(range.first) + ".." + std::to_string(range.last - 1);
  const std::string where = range.in_row_sum ? "" : " in P.V but not in the row sum";
  const double middle = range.change[range.change.size() / 2];
  const double padding = std::round(range.padding[range.padding.size() / 2]);
  std::string cause;
  double confidence = range.explained;
  if (!range.in_row_sum && range.first == 0 && range.last == rows.front().in->keys()) {
    const bool is_padding = padding >= 1 && all_near(range.padding, padding);
    cause = is_padding ? std::to_string(static_cast<Index>(padding)) +
                             " keys of zeros take weight: the end of the last tile is not masked"
                       : "the row sum, or the division by it: each row of o is off by a factor";
    if (!is_padding) confidence = std::min(confidence, confidence_of_a_place);
  } else if (all_near(range.change, -1)) {
    cause = "keys " + keys + " missing" + where;
  } else if (all_near(range.change, 1)) {
    cause = "keys " + keys + " counted twice" + where;
  } else if (range.first == 0 && range.change.front() > 0) {
    cause = "keys " + keys + " not rescaled when a later maximum rose" + where;
  } else {
    char factor[32];
    std::snprintf(factor, sizeof factor, "%.3g", 1 + middle);
    cause = "weights of keys " + keys + " wrong by a factor (about " + factor + ")" + where;
  }
  return DiagnosisEntry{cause, confidence,
                        "explains " + percent(range.explained) + " of the squared errors of " +
                            std::to_string(rows.size()) + " rows"};
}

/// One key whose row of V, in all rows alike, is another vector.
std::optional<DiagnosisEntry> wrong_value_row(std::span<const AttentionRow> rows) {
  const AttentionInputs& in = *rows.front().in;
  const Index width = in.v_width(), keys = in.keys(), g = in.kv_head(rows.front().h);
  std::vector<double> pr(keys * width), pp(keys);
  double used = 0;
  for (const AttentionRow& row : rows) {
    double rr = 0;
    for (Index e = 0; e < width; ++e) rr += (row.got[e] - row.o[e]) * (row.got[e] - row.o[e]);
    if (row.in != &in || in.kv_head(row.h) != g || rr == 0) continue;
    ++used;
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
  if (explained < least_explained) return {};

  // Whose row is it?
  std::string what = "another vector";
  double nearest = 0.1;
  for (Index j = -1; j < keys; ++j) {
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

}  // namespace

std::vector<DiagnosisEntry> wrong_keys(std::span<const AttentionRow> rows) {
  // One number is fitted to a row: in few columns it always fits.
  constexpr std::size_t least_columns = 4, least_elements = 32;
  std::vector<DiagnosisEntry> all;
  if (rows.empty() || rows.front().o.size() < least_columns) return all;
  if (rows.size() * rows.front().o.size() < least_elements) return all;
  if (auto entry = wrong_value_row(rows)) all.push_back(*entry);
  if (auto entry = wrong_range(rows)) all.push_back(*entry);
  return all;
}

}  // namespace attest
