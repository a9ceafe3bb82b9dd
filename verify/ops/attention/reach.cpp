// Kernels that see further from the diagonal than the case declares, or not as far: how far, is fitted.
#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "ref/attention.hpp"
#include "verify/compare.hpp"
#include "verify/ops/attention/device.hpp"
#include "verify/ops/attention/problem.hpp"
#include "verify/ops/sample.hpp"

namespace attest {
namespace {

/// Which way a row looks that does not see as far as it should.
enum class Side { left, right };

/// The scores of a row if nothing limited it on one side; -inf where it sees nothing all the same.
std::vector<double> wide_scores(const AttentionSpec& spec, const AttentionInputs& in, Index h, Index i,
                                Side side) {
  AttentionSpec wide = spec;
  wide.window_left = -1;
  if (side == Side::right) {
    wide.window_right = -1;
    if (!in.alibi_slopes) wide.causal = Causal::none;  // which changes the diagonal of ALiBi
  }
  std::vector<double> s(in.keys());
  ref::attention_scores(wide, in, h, i, {s.data(), {in.keys()}});
  const Index first = diagonal(spec, in, i) - spec.window_left;
  for (Index j = 0; side == Side::right && spec.window_left >= 0 && j < std::min(first, in.keys()); ++j) {
    s[j] = -std::numeric_limits<double>::infinity();
  }
  return s;
}

/// A key of a row: how far it is from the diagonal, and what it adds.
struct ReachTerm {
  Index distance, key;
  double weight;
};

/// A row of an output as a sum over keys, those that it should not see included.
struct ReachRow {
  std::vector<ReachTerm> terms;  // by distance
  View<const double, 1> (*vector)(const AttentionInputs& in, Index h, Index key);
  const AttentionInputs* in;
  Index h;
  bool is_normalised;  // divided by the sum of the weights, whose first part is that of the sink
  double sink = 0;
  std::vector<double> got, exact, sigma;
  bool has_lse = false;
  double lse = 0, got_lse = 0, lse_sigma = 0;

  void add_terms(const AttentionSpec& spec, Index i, Side side, const std::vector<double>& weight) {
    const Index at = diagonal(spec, *in, i);
    for (Index j = 0; j < in->keys(); ++j) {
      if (weight[j] != 0) terms.push_back({side == Side::left ? at - j : j - at, j, weight[j]});
    }
    std::ranges::sort(terms, {}, &ReachTerm::distance);
  }
};

/// The answers of a row if it sees no key further from the diagonal than that, for all distances.
class Reach {
 public:
  explicit Reach(const ReachRow& row) : row_(row), sum_(row.exact.size()), mass_(row.sink) {}

  /// Adds the keys up to this distance to those that count; distances may not fall.
  void extend(Index distance) {
    for (; next_ < row_.terms.size() && row_.terms[next_].distance <= distance; ++next_) {
      const ReachTerm& term = row_.terms[next_];
      mass_ += term.weight;
      const View<const double, 1> vector = row_.vector(*row_.in, row_.h, term.key);
      for (std::size_t e = 0; e < sum_.size(); ++e) {
        sum_[e] += term.weight * vector(static_cast<Index>(e));
      }
    }
  }

  double answer(std::size_t e) const {
    if (!row_.is_normalised) return sum_[e];
    return mass_ > 0 ? sum_[e] / mass_ : 0;
  }
  double misfit() const {
    // Beside o, lse is so precise that whatever leads to it would win.
    if (sum_.empty() && row_.has_lse && row_.lse_sigma > 0)
      return std::pow((row_.got_lse - row_.lse - std::log(mass_)) / row_.lse_sigma, 2);
    double sum = 0;
    for (std::size_t e = 0; e < sum_.size(); ++e) {
      if (row_.sigma[e] > 0) sum += std::pow((row_.got[e] - answer(e)) / row_.sigma[e], 2);
    }
    return sum;
  }
  void add_to(Fits& fits) const {
    for (std::size_t e = 0; e < sum_.size(); ++e) {
      fits.o.add(row_.got[e], row_.exact[e], answer(e), row_.sigma[e]);
    }
    if (row_.has_lse) fits.lse.add(row_.got_lse, row_.lse, row_.lse + std::log(mass_), row_.lse_sigma);
  }

 private:
  const ReachRow& row_;
  std::size_t next_ = 0;
  std::vector<double> sum_;  // not yet divided
  double mass_;              // of the weights that count
};

/// The distance that fits best, over all rows.
Index best_distance(std::span<const ReachRow> rows, Index nearest, Index furthest) {
  std::vector<double> misfit(furthest - nearest + 1);
  for (const ReachRow& row : rows) {
    Reach reach(row);
    double last = 0;
    for (Index distance = nearest; distance <= furthest; ++distance) {
      if (distance == nearest || distance <= row.terms.back().distance) {
        reach.extend(distance);
        last = reach.misfit();
      }
      misfit[distance - nearest] += last;
    }
  }
  return nearest + (std::ranges::min_element(misfit) - misfit.begin());
}

std::vector<DiagnosisEntry> fitted_reach(std::vector<ReachRow> rows, const AttentionSpec& spec, Side side,
                                         const std::string& where) {
  std::erase_if(rows, [](const ReachRow& row) { return row.terms.empty(); });
  if (rows.size() < 4) return {};
  const bool is_diagonal = side == Side::right && spec.causal != Causal::none;
  Index nearest = 0, furthest = 0;
  for (const ReachRow& row : rows) {
    if (is_diagonal) nearest = std::min(nearest, row.terms.front().distance);
    furthest = std::max(furthest, row.terms.back().distance);
  }
  if (furthest <= nearest) return {};
  const Index distance = best_distance(rows, nearest, furthest);
  if (distance == furthest) return {};  // nothing is cut off
  std::string cause =
      where + (side == Side::left ? "window_left = " : "window_right = ") + std::to_string(distance);
  if (is_diagonal) {
    const Index off = std::abs(distance);
    cause = where + "a causal diagonal " + (off == 1 ? "one key" : std::to_string(off) + " keys") +
            (distance < 0 ? " short" : " too far");
  }
  Fits fits;
  for (const ReachRow& row : rows) {
    Reach reach(row);
    reach.extend(distance);
    reach.add_to(fits);
  }
  return fitted_fault(fits, cause);
}

ReachRow reach_of(const AttentionRow& row, Side side) {
  ReachRow reach{};
  reach.in = row.in, reach.h = row.h;
  reach.vector = [](const AttentionInputs& in, Index h, Index j) {
    return in.v.slice(in.kv_head(h)).slice(j);
  };
  reach.is_normalised = true;
  reach.sink = row.in->sink ? std::exp(row.in->sink(row.h) - row.lse) : 0;
  std::vector<double> weight = wide_scores(*row.spec, *row.in, row.h, row.i, side);
  for (double& x : weight) x = std::exp(x - row.lse);
  reach.add_terms(*row.spec, row.i, side, weight);
  reach.got = row.got, reach.exact = row.o, reach.sigma = row.sigma;
  reach.has_lse = row.has_lse, reach.lse = row.lse;
  reach.got_lse = row.got_lse, reach.lse_sigma = row.lse_sigma;
  return reach;
}

struct GradientRow {
  std::size_t sequence;
  Index h, i;
};

ReachRow reach_of(const AttentionCase& attention, const SavedForBackward& saved, const Expected& dq,
                  const GradientRow& at, Side side) {
  const Sequence& s = attention.sequences[at.sequence];
  const AttentionInputs& in = s.in_backward;
  const AttentionSpec& spec = attention.spec;
  const ref::AttentionSaved from = saved.for_ref();
  ReachRow reach{};
  reach.in = &in, reach.h = at.h;
  reach.vector = [](const AttentionInputs& x, Index h, Index j) { return x.k.slice(x.kv_head(h)).slice(j); };
  double delta = 0;
  for (Index e = 0; e < in.v_width(); ++e) delta += from.d_o(at.h, at.i, e) * from.o(at.h, at.i, e);
  std::vector<double> weight = wide_scores(spec, in, at.h, at.i, side);
  for (Index j = 0; j < in.keys(); ++j) {
    double dp = 0;
    for (Index e = 0; e < in.v_width(); ++e) {
      dp += from.d_o(at.h, at.i, e) * in.v(in.kv_head(at.h), j, e);
    }
    weight[j] = spec.scale * std::exp(weight[j] - from.lse(at.h, at.i)) * (dp - delta);
  }
  reach.add_terms(spec, at.i, side, weight);
  const double* data = dq.value.data();
  const View<const double, 3> place = attention.like_q(data, s);
  for (Index d = 0; d < place.extent(2); ++d) {
    const Index n = &place(at.h, at.i, d) - data;
    reach.got.push_back(dq.dumped->values[n]);
    reach.exact.push_back(dq.value[n]);
    reach.sigma.push_back(dq.sigma[n]);
  }
  return reach;
}

std::vector<GradientRow> wrong_rows(const AttentionCase& attention, const Expected& dq) {
  std::vector<GradientRow> all;
  const double* data = dq.value.data();
  for (std::size_t n = 0; n < attention.sequences.size(); ++n) {
    const View<const double, 3> place = attention.like_q(data, attention.sequences[n]);
    for (Index h = 0; h < place.extent(0); ++h) {
      for (Index i = 0; i < place.extent(1); ++i) {
        bool is_wrong = false, is_finite = true;
        for (Index d = 0; d < place.extent(2); ++d) {
          const Index at = &place(h, i, d) - data;
          is_wrong |= !within_bound(dq, at, dq.dumped->values[at]);
          is_finite &= std::isfinite(dq.dumped->values[at]);
        }
        if (is_wrong && is_finite) all.push_back({n, h, i});
      }
    }
  }
  return all;
}

}  // namespace

std::vector<DiagnosisEntry> wrong_reach(std::span<const AttentionRow> rows) {
  std::vector<DiagnosisEntry> all;
  for (const Side side : {Side::left, Side::right}) {
    std::vector<ReachRow> reaches;
    for (const AttentionRow& row : rows) reaches.push_back(reach_of(row, side));
    if (rows.empty()) continue;
    for (DiagnosisEntry& x : fitted_reach(std::move(reaches), *rows.front().spec, side, "")) {
      all.push_back(std::move(x));
    }
  }
  return all;
}

std::vector<DiagnosisEntry> wrong_reach_of_gradients(const AttentionCase& attention,
                                                     std::span<const SavedForBackward> saved,
                                                     const Expected& dq) {
  if (attention.spec.softcap != 0) return {};
  constexpr Index most_rows = 24;
  const std::vector<GradientRow> wrong = wrong_rows(attention, dq);
  std::vector<DiagnosisEntry> all;
  for (const Side side : {Side::left, Side::right}) {
    std::vector<ReachRow> rows;
    for (const Index n : evenly_spread(std::ssize(wrong), most_rows)) {
      rows.push_back(reach_of(attention, saved[wrong[n].sequence], dq, wrong[n], side));
    }
    for (DiagnosisEntry& x : fitted_reach(std::move(rows), attention.spec, side, "backward: ")) {
      all.push_back(std::move(x));
    }
  }
  return all;
}

}  // namespace attest
