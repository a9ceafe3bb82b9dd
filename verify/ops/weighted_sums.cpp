// Which terms of weighted sums are wrong.
#include "verify/ops/weighted_sums.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace attest {
namespace {

constexpr Index most_pieces = 64, least_piece = 8;

/// One number is fitted to a sum: in few elements it always fits.
constexpr Index least_width = 4, least_elements = 32;

/// A sum whose fit leaves more of its squared error says nothing of the change.
constexpr double most_left = 0.3;

/// Of the first n pieces of a sum: w v in `width` elements, then w.
class Prefixes {
 public:
  Prefixes(const WeightedSum& sum, Index piece, Index count)
      : stride_(sum.width() + 1), values_((count + 1) * stride_) {
    auto term = sum.terms.begin();
    for (Index n = 0; n < count; ++n) {
      double* const total = &values_[(n + 1) * stride_];
      std::copy_n(at(n), stride_, total);
      for (; term != sum.terms.end() && term->place < (n + 1) * piece; ++term) {
        for (Index e = 0; e + 1 < stride_; ++e) total[e] += term->weight * term->vector[e * sum.step];
        total[stride_ - 1] += term->weight;
      }
    }
  }
  const double* at(Index n) const { return &values_[n * stride_]; }

 private:
  Index stride_;
  std::vector<double> values_;
};

/// The fitted x, and the share of the squared errors that is left.
struct SumFit {
  double x, left;
};

SumFit fit(const WeightedSum& sum, const double* from, const double* to, bool in_row_sum) {
  const Index width = sum.width();
  const double weight = in_row_sum ? to[width] - from[width] : 0;
  double rr = 0, rd = 0, dd = 0;
  for (Index e = 0; e < width; ++e) {
    const double r = sum.got[e] - sum.exact[e], d = to[e] - from[e] - weight * sum.exact[e];
    rr += r * r, rd += r * d, dd += d * d;
  }
  if (!(dd > 0 && rr > 0)) return {0, 1};
  const double slope = rd / dd;
  return {slope / (1 - slope * weight), 1 - rd * rd / (dd * rr)};
}

}  // namespace

std::string percent(double share) {
  return std::to_string(static_cast<int>(100 * share)) + " %";
}

std::string factor_text(double factor) {
  char text[32];
  std::snprintf(text, sizeof text, std::abs(factor - 1) < 0.01 ? "%.5g" : "%.4g", factor);
  return text;
}

bool all_near(const std::vector<double>& values, double x) {
  const auto near =
      std::ranges::count_if(values, [&](double value) { return std::abs(value - x) < 0.1 * std::abs(x); });
  return !values.empty() && 4 * near >= 3 * static_cast<std::ptrdiff_t>(values.size());
}

bool WrongRange::changes_by(double x) const {
  return all_near(change, x);
}

bool WrongRange::is_whole() const {
  return changes_by(-1) || changes_by(1);
}

WrongRange best_range(std::span<const WeightedSum> sums, bool is_normalised) {
  WrongRange best;
  if (sums.empty() || sums.front().width() < least_width) return best;
  if (static_cast<Index>(sums.size()) * sums.front().width() < least_elements) return best;
  Index places = 0;
  for (const WeightedSum& sum : sums) places = std::max(places, sum.places);
  const Index piece =
      std::max(least_piece, (places / most_pieces + least_piece - 1) / least_piece * least_piece);
  const Index count = (places + piece - 1) / piece;
  std::vector<Prefixes> prefixes;
  for (const WeightedSum& sum : sums) prefixes.emplace_back(sum, piece, count);
  const auto fit_of = [&](std::size_t n, Index a, Index b, bool in_row_sum) {
    return fit(sums[n], prefixes[n].at(a), prefixes[n].at(b), in_row_sum);
  };

  const auto range_of = [&](Index a, Index b, bool in_row_sum, double explained) {
    WrongRange range{a * piece, std::min(b * piece, places), in_row_sum, explained, {}, {}};
    std::vector<std::pair<double, std::size_t>> changes;
    for (std::size_t n = 0; n < sums.size(); ++n) {
      const SumFit of_sum = fit_of(n, a, b, in_row_sum);
      if (of_sum.left <= most_left && std::isfinite(of_sum.x)) changes.emplace_back(of_sum.x, n);
    }
    std::ranges::sort(changes);
    for (const auto& [x, n] : changes) {
      range.change.push_back(x);
      range.sum.push_back(n);
    }
    return range;
  };

  constexpr double same = 1e-9;
  for (const bool in_row_sum : {true, false}) {
    if (in_row_sum && !is_normalised) continue;
    for (Index a = 0; a < count; ++a) {
      for (Index b = a + 1; b <= count; ++b) {
        if (in_row_sum && b - a == count) continue;  // which changes nothing
        double left = 0;
        for (std::size_t n = 0; n < sums.size(); ++n) left += fit_of(n, a, b, in_row_sum).left;
        const double explained = 1 - left / static_cast<double>(sums.size());
        if (explained < best.explained - same || (explained <= best.explained + same && best.is_whole())) {
          continue;
        }
        // The terms that a normalised sum has besides a range explain as much: less of these is more of
        // those.
        WrongRange range = range_of(a, b, in_row_sum, explained);
        if (explained > best.explained + same || range.is_whole()) best = std::move(range);
      }
    }
  }
  if (best.change.empty()) best.explained = 0;
  return best;
}

}  // namespace attest
