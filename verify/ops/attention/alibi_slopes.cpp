// ALiBi with other slopes than declared: all of them off alike, or each of its own.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <map>
#include <numbers>

#include "verify/ops/attention/device.hpp"

namespace attest {
namespace {

constexpr double least_change = 1e-3;                          // of a slope
constexpr std::size_t columns_to_fit_by = 16, least_told = 8;  // elements of o and lse to fit a slope to
constexpr Index most_heads_named = 3;

using Slopes = std::function<double(const AttentionRow& row)>;

double declared(const AttentionRow& row) {
  return row.in->alibi_slopes(row.h);
}

void add_to(Fits& fits, const AttentionRow& row, double slope, std::size_t columns) {
  const double change = declared(row) - slope;
  double mass = 1;
  std::vector<double> factor(row.key.size());
  for (std::size_t c = 0; c < factor.size(); ++c) {
    const double distance = static_cast<double>(alibi_distance(
        row.spec->alibi, diagonal(*row.spec, *row.in, row.i), row.in->key_position(row.key[c])));
    factor[c] = std::exp(change * distance);
    mass += row.p[c] * (factor[c] - 1);
  }
  if (row.has_lse) fits.lse.add(row.got_lse, row.lse, row.lse + std::log(mass), row.lse_sigma);
  for (std::size_t e = 0; e < std::min(columns, row.o.size()); ++e) {
    double o = 0;
    for (std::size_t c = 0; c < factor.size(); ++c)
      o += row.stored[c] * factor[c] * row.v(static_cast<Index>(c), static_cast<Index>(e));
    fits.o.add(row.got[e], row.o[e], o / mass, row.sigma[e], row.replayed_in);
  }
}

Fits fits_of(std::span<const AttentionRow> rows, const Slopes& slopes, std::size_t columns) {
  Fits fits;
  for (const AttentionRow& row : rows) add_to(fits, row, slopes(row), columns);
  return fits;
}

/// Of numbers of either sign the one that leaves least, first of powers of 2, then nearer and nearer.
template <class Left>
double least_of(const Left& left, int first_power, int last_power) {
  constexpr double least_step = 1e-6;
  double best = 0, least = left(0.0);
  const auto look_at = [&](double x) {
    const double now = left(x);
    if (now < least) least = now, best = x;
  };
  for (int half = 2 * first_power; half <= 2 * last_power; ++half)
    for (const double sign : {1.0, -1.0}) look_at(sign * std::exp2(half / 2.0));
  for (double step = std::numbers::ln2 / 4; step > least_step; step /= 2) {
    const double near = best;
    look_at(near * std::exp(step));
    look_at(near * std::exp(-step));
  }
  return best;
}

struct Candidate {
  std::string fault;
  Slopes slopes;
  bool is_fitted;
};

/// The same change of all slopes, the simplest first.
std::vector<Candidate> common_changes(std::span<const AttentionRow> rows) {
  const AttentionRow& front = rows.front();
  std::vector<Candidate> all;
  for (const auto& [name, factor] : {std::pair{"ALiBi multiplied by the scale", front.spec->scale},
                                     {"ALiBi divided by the scale", 1 / front.spec->scale},
                                     {"ALiBi multiplied by log2(e)", std::numbers::log2e},
                                     {"ALiBi multiplied by ln(2)", std::numbers::ln2},
                                     {"ALiBi added twice", 2.0}}) {
    if (!std::isfinite(factor) || std::abs(factor - 1) < least_change) continue;
    all.push_back({name, [f = factor](const AttentionRow& row) { return f * declared(row); }, false});
  }
  all.push_back({"ALiBi slope of head 0 in all heads",
                 [](const AttentionRow& row) { return row.in->alibi_slopes(0); }, false});
  all.push_back(
      {"ALiBi slopes squared", [](const AttentionRow& row) { return declared(row) * declared(row); }, false});
  all.push_back({"the square roots of ALiBi slopes",
                 [](const AttentionRow& row) { return std::sqrt(std::abs(declared(row))); }, false});
  const double factor = least_of(
      [&](double x) {
        const Fits fits = fits_of(
            rows, [&](const AttentionRow& row) { return x * declared(row); }, columns_to_fit_by);
        return (fits.o + fits.lse).other;
      },
      -8, 8);
  if (std::abs(factor - 1) >= least_change && factor != 0) {
    char cause[48];
    std::snprintf(cause, sizeof cause, "ALiBi slopes multiplied by %.4g", factor);
    all.push_back({cause, [=](const AttentionRow& row) { return factor * declared(row); }, true});
  }
  return all;
}

/// A slope for each head, where there are enough numbers to fit it to.
std::vector<Candidate> slopes_of_each(std::span<const AttentionRow> rows) {
  using Head = std::pair<const double*, Index>;  // entries may have slopes of their own
  const auto head_of = [](const AttentionRow& row) {
    return Head{row.in->alibi_slopes.data_handle(), row.h};
  };
  std::map<Head, std::vector<AttentionRow>> heads;
  for (const AttentionRow& row : rows) heads[head_of(row)].push_back(row);
  if (heads.size() < 2) return {};
  std::map<Head, double> found;
  std::string cause;
  Index named = 0;
  for (const auto& [head, own] : heads) {
    const double right = declared(own.front());
    if (own.size() * std::min(own.front().o.size() + 1, columns_to_fit_by) < least_told) continue;
    const double slope = least_of(
        [&, of = &own](double x) {
          const Fits fits = fits_of(
              *of, [&](const AttentionRow&) { return x; }, columns_to_fit_by);
          return (fits.o + fits.lse).other;
        },
        -12, 2);
    if (std::abs(slope - right) <= least_change * std::abs(right)) continue;
    found[head] = slope;
    if (named++ >= most_heads_named) continue;
    char text[96];
    std::snprintf(text, sizeof text, "%s%.3g in place of %.3g in head %td", named > 1 ? ", " : "", slope,
                  right, head.second);
    cause += text;
  }
  if (found.empty()) return {};
  return {{"other ALiBi slopes: " + cause + (named > most_heads_named ? ", ..." : ""),
           [=](const AttentionRow& row) {
             const auto at = found.find(head_of(row));
             return at == found.end() ? declared(row) : at->second;
           },
           true}};
}

}  // namespace

std::vector<DiagnosisEntry> wrong_alibi_slopes(std::span<const AttentionRow> rows) {
  if (rows.empty() || !rows.front().in->alibi_slopes || rows.front().o.empty()) return {};
  std::vector<Candidate> all = common_changes(rows);
  for (Candidate& x : slopes_of_each(rows)) all.push_back(std::move(x));
  std::vector<DiagnosisEntry> best;
  double most = 0;
  for (const Candidate& x : all) {
    std::vector<DiagnosisEntry> found = fitted_fault(fits_of(rows, x.slopes, rows.front().o.size()), x.fault);
    if (found.empty() || found[0].confidence <= most + least_gain) continue;
    most = found[0].confidence;
    if (!x.is_fitted) found[0].confidence /= preference_for_constants;
    best = std::move(found);
  }
  return best;
}

}  // namespace attest
