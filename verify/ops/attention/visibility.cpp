// Rows that see keys which they should not, or do not see all that they should, each row others: found run by
// run of keys.
#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "ref/attention.hpp"
#include "verify/ops/attention/device.hpp"

namespace attest {
namespace {

/// Runs of keys are chosen among many: one number per run and this many columns is little freedom.
constexpr Index columns_per_run = 16, most_runs = 4;
constexpr double least_gain_of_key = 9, least_gain_of_run = 36,
                 least_share_of_run = 0.05;  // of a squared error
/// A cause that says what all rows have in common is worth more.
constexpr double preference_for_rules = 0.75, least_share_of_rows = 0.7;
constexpr std::size_t most_examples = 3;

/// Keys [first, last), in their sequence; outside of [0, keys) they belong to others, or to nobody.
struct Run {
  Index first, last;
  bool is_missing;
};

/// A row with all keys that it may have seen by mistake.
class WideRow {
 public:
  WideRow(const AttentionCase& attention, const AttentionRow& row) : row_(row), sum_(row.o) {
    AttentionSpec wide = *row.spec;
    AttentionInputs in = *row.in;
    wide.window_left = wide.window_right = -1;
    if (!in.alibi_slopes) wide.causal = Causal::none;  // which changes the diagonal of ALiBi
    in.mask = {};
    if (!in.bias && !in.alibi_slopes) take_neighbours(attention, in);
    std::vector<double> s(in.keys());
    ref::attention_scores(wide, in, row.h, row.i, {s.data(), {in.keys()}});
    in_ = in;
    is_seen_.resize(in.keys());
    for (const Index j : row.key) is_seen_[j - first_] = 1;
    was_seen_ = is_seen_;
    weight_.resize(in.keys());
    for (Index j = 0; j < in.keys(); ++j) weight_[j] = std::exp(s[j] - row.lse);
  }

  /// The runs that explain what the row errs by.
  std::vector<Run> find() {
    const Index most = std::clamp(in_.v_width() / columns_per_run, Index{1}, most_runs);
    const double all = misfit(sum_, mass_);
    double left = all;
    for (Index count = 0; count < most; ++count) {
      const Index best = best_toggle([this](Index) { return true; });
      if (best < 0 || left - misfit_with(best) < std::max(least_gain_of_run, least_share_of_run * all)) break;
      const bool is_missing = is_seen_[best] != 0;
      toggle(best);
      for (const Index step : {1, -1}) extend(best, step, is_missing);
      left = misfit(sum_, mass_);
    }
    // The first key of a run may have stood for others.
    while (true) {
      const Index best = best_toggle([this](Index j) { return is_seen_[j] != was_seen_[j]; });
      if (best < 0 || !(misfit_with(best) < misfit(sum_, mass_))) break;
      toggle(best);
    }
    return runs();
  }

  void add_to(Fits& fits) const {
    for (std::size_t e = 0; e < sum_.size(); ++e) {
      fits.o.add(row_.got[e], row_.o[e], mass_ > 0 ? sum_[e] / mass_ : 0, row_.sigma[e], row_.replayed_in);
    }
    if (row_.has_lse) fits.lse.add(row_.got_lse, row_.lse, row_.lse + std::log(mass_), row_.lse_sigma);
  }

 private:
  /// The keys around those of a packed or a padded sequence: of others, or of nobody.
  void take_neighbours(const AttentionCase& attention, AttentionInputs& in) {
    const auto own =
        std::ranges::find_if(attention.sequences, [&](const Sequence& s) { return &s.in == row_.in; });
    const bool is_packed = own->first_k != 0 || attention.sequences.back().first_k != 0;
    const Sequence& end = attention.sequences.back();
    if (in.past != 0) return;
    const Index keys = is_packed ? end.first_k + end.keys : attention.padded_keys();
    if (keys < in.keys()) return;
    first_ = -own->first_k;
    for (View<const double, 3>* x : {&in.k, &in.v}) {
      *x = {x->data_handle() + first_ * x->stride(1),
            {x->extent(0), keys, x->extent(2)},
            {x->stride(0), x->stride(1), x->stride(2)}};
    }
  }

  double v(Index j, Index e) const { return in_.v(in_.kv_head(row_.h), j, e); }
  bool can_toggle(Index j) const { return weight_[j] > 0 && std::isfinite(weight_[j]); }
  double signed_weight(Index j) const { return is_seen_[j] ? -weight_[j] : weight_[j]; }

  /// Of o alone: lse is so precise that whatever leads to it would win.
  double misfit(const std::vector<double>& sum, double mass) const {
    if (!(mass > 0)) return std::numeric_limits<double>::infinity();
    double total = 0;
    for (std::size_t e = 0; e < sum.size(); ++e) {
      if (row_.sigma[e] > 0) total += std::pow((row_.got[e] - sum[e] / mass) / row_.sigma[e], 2);
    }
    return total;
  }
  double misfit_with(Index j) {
    if (!can_toggle(j)) return std::numeric_limits<double>::infinity();
    const double w = signed_weight(j);
    changed_ = sum_;
    for (std::size_t e = 0; e < sum_.size(); ++e) changed_[e] += w * v(j, static_cast<Index>(e));
    const double x = misfit(changed_, mass_ + w);
    return std::isnan(x) ? std::numeric_limits<double>::infinity() : x;
  }
  void toggle(Index j) {
    const double w = signed_weight(j);
    mass_ += w;
    for (std::size_t e = 0; e < sum_.size(); ++e) sum_[e] += w * v(j, static_cast<Index>(e));
    is_seen_[j] = !is_seen_[j];
  }

  /// The key, of those that `is_candidate` says, that is best seen or not seen in place of what it is; -1 if
  /// there is none.
  template <class F>
  Index best_toggle(const F& is_candidate) {
    Index best = -1;
    double least = std::numeric_limits<double>::infinity();
    for (Index j = 0; j < in_.keys(); ++j) {
      const double x = is_candidate(j) ? misfit_with(j) : least;
      if (x < least) least = x, best = j;
    }
    return best;
  }

  /// Toggles the keys beside j, in one direction, as far as fits best.
  void extend(Index j, Index step, bool is_missing) {
    double least = misfit(sum_, mass_), best_mass = mass_;
    std::vector<double> best_sum = sum_;
    Index end = j, at = j + step;
    for (; at >= 0 && at < in_.keys() && (is_seen_[at] != 0) == is_missing && can_toggle(at); at += step) {
      toggle(at);
      const double x = misfit(sum_, mass_);
      if (x < least - least_gain_of_key) least = x, end = at, best_mass = mass_, best_sum = sum_;
    }
    for (Index n = at - step; n != end; n -= step) is_seen_[n] = !is_seen_[n];
    mass_ = best_mass, sum_ = std::move(best_sum);
  }

  std::vector<Run> runs() const {
    std::vector<Run> all;
    for (Index j = 0; j < in_.keys(); ++j) {
      if (is_seen_[j] == was_seen_[j]) continue;
      const bool is_missing = was_seen_[j] != 0;
      const Index key = j + first_;
      if (!all.empty() && all.back().last == key && all.back().is_missing == is_missing) {
        ++all.back().last;
      } else {
        all.push_back({key, key + 1, is_missing});
      }
    }
    return all;
  }

  const AttentionRow& row_;
  AttentionInputs in_;
  Index first_ = 0;  // which key of its sequence comes first in in_
  std::vector<double> weight_;
  std::vector<char> was_seen_, is_seen_;  // as it should be, and as it seems to be
  double mass_ = 1;
  std::vector<double> sum_, changed_;
};

std::string keys_of(const Run& run) {
  const std::string first = std::to_string(run.first);
  return run.last - run.first == 1 ? "key " + first : "keys " + first + ".." + std::to_string(run.last - 1);
}

/// "misses key 3, sees keys 8..9"
std::string text_of(const std::vector<Run>& runs) {
  std::string text;
  for (std::size_t n = 0; n < runs.size(); ++n) {
    const bool repeats = n > 0 && runs[n].is_missing == runs[n - 1].is_missing;
    text += (n == 0 ? "" : ", ") +
            std::string(repeats              ? ""
                        : runs[n].is_missing ? "misses "
                                             : "sees ") +
            keys_of(runs[n]);
  }
  return text;
}

std::string name_of(const AttentionCase& attention, const AttentionRow& row) {
  const std::string name = "row " + std::to_string(row.i) + " of head " + std::to_string(row.h);
  if (attention.sequences.size() < 2) return name;
  const auto own =
      std::ranges::find_if(attention.sequences, [&](const Sequence& s) { return &s.in == row.in; });
  return name + " of sequence " + std::to_string(own - attention.sequences.begin());
}

/// Both o and lse of a row, so far as they tell.
bool explains(const Fits& row) {
  constexpr double least_explained_of_row = 0.8;  // by up to four runs of keys: others may be missing still
  const auto agrees = [](const Fit& x) { return !x.tells() || x.explained() >= least_explained_of_row; };
  return agrees(row.o) && agrees(row.lse) && (row.o.tells() || row.lse.tells());
}

}  // namespace

std::vector<DiagnosisEntry> wrong_visibility(const AttentionCase& attention,
                                             std::span<const AttentionRow> rows) {
  std::vector<Fits> fits(rows.size());
  std::vector<std::vector<Run>> runs(rows.size());
#pragma omp parallel for schedule(dynamic, 1)
  for (std::size_t n = 0; n < rows.size(); ++n) {
    WideRow row(attention, rows[n]);
    runs[n] = row.find();
    row.add_to(fits[n]);
  }
  bool is_any_missing = false, is_any_extra = false;
  std::string examples;
  std::set<std::string> seen;
  Index explained = 0;
  for (std::size_t n = 0; n < rows.size(); ++n) {
    if (runs[n].empty() || !explains(fits[n])) continue;
    ++explained;
    for (const Run& run : runs[n]) (run.is_missing ? is_any_missing : is_any_extra) = true;
    const std::string text = text_of(runs[n]);
    if (!seen.insert(text).second || seen.size() > most_examples) continue;
    examples += (seen.size() == 1 ? ": " : "; ") + name_of(attention, rows[n]) + " " + text;
  }
  const double share =
      static_cast<double>(explained) / static_cast<double>(std::max<std::size_t>(rows.size(), 1));
  if (share < least_share_of_rows) return {};
  const std::string what = !is_any_extra     ? "rows do not see all keys that they should"
                           : !is_any_missing ? "rows see keys that they should not"
                                             : "rows see other keys than they should";
  return {{what + examples, preference_for_rules * share,
           "explains " + std::to_string(explained) + " of " + std::to_string(rows.size()) + " rows"}};
}

}  // namespace attest
