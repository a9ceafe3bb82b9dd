// Explanations of a failed attention case, the likeliest first.
#include "verify/ops/attention/explanations.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <iterator>

#include "verify/compare.hpp"
#include "verify/ops/attention/device.hpp"
#include "verify/statistics/statistics.hpp"

namespace attest {
namespace {

constexpr double least_confidence = 0.5;
constexpr double least_explained_by_weights = 0.98;  // other functions of the scores come near

/// An answer nearer to the exact one than the noise of both cannot be told from it.
constexpr double least_distance = 36;

/// Faulty devices are simulated, and their errors compared with those of the dump one by one.
std::vector<DiagnosisEntry> simulated_faults(std::span<const AttentionRow> rows, const Contract& contract,
                                             DType element) {
  std::vector<AttentionDevice> devices = narrow_devices(contract, element);
  std::ranges::move(wrong_softmax_devices(rows), std::back_inserter(devices));
  return likeliest(devices, [&](const AttentionDevice& device) {
    const Fits both = fits(device, rows);
    const double share = both.o.denies() || both.lse.denies() ? 0 : (both.o + both.lse).explained();
    if (device.has_other_weights()) return share < least_explained_by_weights ? 0 : share;
    if (!device.is_fitted) return share;
    return share < least_explained_if_fitted ? 0 : preference_for_constants * share;
  });
}

constexpr DType coarsest = DType::float8_e5m2;

/// More than scores, q, k or a row sum in the coarsest format there is, whose errors are independent.
bool errs_grossly_in_lse(const AttentionRow& row) {
  double of_scores = 0, of_operands = 0;
  for (Index c = 0; c < row.count(); ++c) of_scores += std::pow(row.p[c] * row.score[c], 2);
  for (Index d = 0; d < row.in->qk_width(); ++d) {
    double key = 0;
    for (Index c = 0; c < row.count(); ++c) key += row.p[c] * row.k(c, d);
    of_operands += std::pow(row.spec->scale * row.q(d) * key, 2);
  }
  const double most = 1 + 4 * (std::sqrt(of_scores) + std::sqrt(of_operands));
  return row.has_lse && std::abs(row.got_lse - row.lse) > unit_roundoff(coarsest) * most;
}

/// More than P, V, scores, q and k with such unit roundoffs, whose errors are independent. Scores in 8 bits
/// are simulated, and have a name.
bool errs_more_in_o(const AttentionRow& row, double u, double of_scores, double of_operands) {
  double errors = 0, likely = 0;
  for (std::size_t e = 0; e < row.o.size(); ++e) errors += (row.got[e] - row.o[e]) * (row.got[e] - row.o[e]);
  for (Index c = 0; c < row.count(); ++c) {
    double products = 0, squares = 0, distances = 0;
    for (Index d = 0; d < row.in->qk_width(); ++d)
      products += std::pow(row.spec->scale * row.q(d) * row.k(c, d), 2);
    const double score = std::pow(of_scores * row.score[c], 2) + 2 * of_operands * of_operands * products;
    for (std::size_t e = 0; e < row.o.size(); ++e) {
      const double v = row.v(c, static_cast<Index>(e));
      squares += v * v;
      distances += (v - row.o[e]) * (v - row.o[e]);
    }
    likely += row.p[c] * row.p[c] * (2 * u * u * squares + score * distances);
  }
  return errors > likely;
}

bool errs_grossly_in_o(const AttentionRow& row) {
  // No order of additions makes more of a sum than all its terms.
  for (std::size_t e = 0; e < row.o.size(); ++e) {
    double terms = 0;
    for (Index c = 0; c < row.count(); ++c) terms += row.p[c] * std::abs(row.v(c, static_cast<Index>(e)));
    if (std::abs(row.got[e] - row.o[e]) > terms) return true;
  }
  return errs_more_in_o(row, unit_roundoff(coarsest), unit_roundoff(DType::bfloat16),
                        unit_roundoff(DType::float8_e4m3fn));
}

/// More than in 16 bits.
bool errs_coarsely_in_o(const AttentionRow& row) {
  const double u = 4 * unit_roundoff(DType::bfloat16);  // with room for errors that agree
  return errs_more_in_o(row, u, u, u);
}

template <class F>
bool are_most(std::span<const AttentionRow> rows, const F& f) {
  return 2 * std::ranges::count_if(rows, f) > std::ssize(rows);
}

}  // namespace

std::vector<DiagnosisEntry> fitted_fault(const Fits& fits, const std::string& cause) {
  for (const Fit& x : {fits.o, fits.lse}) {
    if (x.tells() && x.explained() < least_explained_if_fitted) return {};
  }
  const double share = (fits.o + fits.lse).explained();
  if (share < least_explained_if_fitted) return {};
  return {{cause, preference_for_constants * share,
           "it would make " + percent(share) + " of the errors beyond what the contract explains"}};
}

bool has_failed(const Expected& e) {
  for (Index at = 0; at < e.dumped->size(); ++at) {
    if (!within_bound(e, at, e.dumped->values[at])) return true;
  }
  return std::ranges::any_of(statistics(e), [](const Statistic& s) { return s.exceeds(); });
}

void Fit::add(double got, double want, double answer, double sigma, std::optional<DType> replayed_in) {
  if (!(sigma > 0)) return;
  if (replayed_in) {
    want = round_to(want, *replayed_in);
    answer = round_to(answer, *replayed_in);
  } else {
    ++elements;  // of which a right answer leaves some error
  }
  const auto square = [](double x) { return x * x; };
  exact += square((got - want) / sigma);
  other += square((got - answer) / sigma);
  distance += square((answer - want) / sigma);
}

Fit Fit::operator+(const Fit& x) const {
  return {exact + x.exact, other + x.other, distance + x.distance, elements + x.elements};
}

bool Fit::tells() const {
  return distance > least_distance;
}

double Fit::explained() const {
  if (!tells() || !std::isfinite(other)) return 0;
  return std::clamp((exact - other) / std::max(exact - elements, exact / 2), 0.0, 1.0);
}

bool Fit::denies() const {
  constexpr double least_share = 0.2;
  return tells() && distance > least_share * elements && explained() < least_confidence;
}

double Fit::slope() const {
  return tells() ? (exact - other + distance) / (2 * distance) : 0;
}

std::vector<DiagnosisEntry> unknown_noise(std::span<const AttentionRow> rows, bool o_fails, bool lse_fails) {
  Fit row_sum;  // o divided by a row sum that is off as lse is
  for (const AttentionRow& row : rows) {
    if (!row.has_lse || !(row.lse_sigma > 0)) continue;
    const double factor = std::exp(row.lse - row.got_lse);
    for (std::size_t e = 0; e < row.o.size(); ++e) {
      row_sum.add(row.got[e], row.o[e], row.o[e] * factor, row.sigma[e]);
    }
  }
  constexpr double least_share = 0.25;
  if (std::abs(row_sum.slope() - 1) < 0.3 && row_sum.explained() >= least_share) {
    return {{"the row sum", confidence_of_a_place, "each row of o and its lse are off by the same factor"}};
  }
  const std::string weights = "other weights or other values than declared: no precision errs so much";
  const std::string coarse_weights =
      "other scores, weights or values than declared, or some of them in 8 bits: 16 bits do not err so much";
  if (lse_fails) {
    if (!o_fails && row_sum.denies()) {
      return {{"lse itself, or a number added to all scores of a row: o is right, so that weights are",
               confidence_of_a_place, "lse errs by more than o, which is right, allows its row sum to"}};
    }
    if (are_most(rows, errs_grossly_in_lse)) {
      return {{"other scores or other keys than declared: no precision errs so much", confidence_of_a_place,
               "lse errs, and no known pattern fits: does the kernel have a mask or a bias that the dump "
               "lacks?"}};
    }
    const std::string both_err = "o and lse err, and no known pattern fits";
    if (are_most(rows, errs_grossly_in_o)) return {{weights, confidence_of_a_place, both_err}};
    if (are_most(rows, errs_coarsely_in_o)) return {{coarse_weights, confidence_of_a_place, both_err}};
    return {{"exponentials, scores or row sums less precise than the contract has them",
             confidence_of_a_place, "lse errs, and no known pattern fits"}};
  }
  if (!o_fails) return {};
  const bool has_lse = std::ranges::any_of(rows, &AttentionRow::has_lse);
  const std::string evidence =
      std::string(has_lse ? "lse is right, and " : "") + "no known pattern fits the errors of o";
  if (are_most(rows, errs_grossly_in_o)) {
    return {{weights, confidence_of_a_place, evidence}};
  }
  if (!has_lse) return {};
  return {{"P.V accumulated, or P stored, less precisely than the contract has it", confidence_of_a_place,
           evidence}};
}

std::vector<DiagnosisEntry> explain_attention(const AttentionCase& attention,
                                              std::span<const SavedForBackward> saved,
                                              const std::optional<WeightStore>& store,
                                              const Contract& contract, DType element,
                                              std::span<const Expected> expected) {
  std::vector<DiagnosisEntry> all;
  const auto add = [&](const std::vector<DiagnosisEntry>& entries) {
    all.insert(all.end(), entries.begin(), entries.end());
  };
  const auto fails = [&](std::string_view output) {
    const auto e = std::ranges::find(expected, output, &Expected::output);
    return e != expected.end() && has_failed(*e);
  };
  const bool o_fails = fails("o"), lse_fails = fails("lse");
  for (const Expected& e : expected) {
    const bool has_rows = e.output == "o" || e.output == "dq" || e.output == "dk" || e.output == "dv";
    const bool is_lse_alone = e.output == "lse" && !o_fails;
    if ((has_rows || is_lse_alone) && has_wrong_elements(e)) add(misplaced_rows(attention, e));
  }
  std::vector<AttentionRow> rows;
  bool are_without_keys = false;
  if (o_fails || lse_fails) {
    rows = sampled_rows(attention, expected, store, WhichRows::wrong);
    are_without_keys = rows.empty() && wrong_rows_have_no_key(attention, expected);
    add(wrong_keys(rows));
    add(keys_of_zeros(attention, rows));
    add(wrong_visibility(attention, rows));
    add(wrong_row_sums(rows));
    // lse alone is one number for a row, which that of some other row, or some way to split, is by chance.
    const bool has_o = std::ranges::any_of(expected, [](const Expected& e) { return e.output == "o"; });
    if (has_o) add(wrong_row_reads(attention, rows));
    add(wrong_key_reads(attention, rows));
    // A fault that is everywhere may push few rows, and those by chance, beyond their bounds.
    constexpr std::size_t few = 8;
    if (rows.size() < few) rows = sampled_rows(attention, expected, store, WhichRows::all);
    add(wrong_scale(rows));
    if (!o_fails) add(wrong_lse(rows));
    add(wrong_reach(rows));
    add(undeclared_options(rows));
    add(wrong_sinks(rows));
    add(wrong_alibi(attention, rows));
    add(wrong_alibi_slopes(rows));
    add(wrong_pages(rows));
    add(stale_rows(rows));
    constexpr std::size_t least_rows_of_lse = 4;
    if (has_o || rows.size() >= least_rows_of_lse) add(simulated_faults(rows, contract, element));
    if (has_o) add(wrong_merge(rows, contract));
  } else if (!saved.empty()) {  // gradients of a wrong forward pass may be right
    add(wrong_gradients(attention, saved, contract, expected));
  }
  std::erase_if(all, [](const DiagnosisEntry& x) { return x.confidence < least_confidence; });
  if (all.empty() && are_without_keys) {
    all = {{"rows that may attend to no key: spec keys empty_row, lse_empty", confidence_of_a_place,
            "no other row has a wrong element of o or lse"}};
  } else if (all.empty()) {
    all = o_fails || lse_fails ? unknown_noise(rows, o_fails, lse_fails)
                               : unknown_noise_of_gradients(contract, expected);
  }
  std::ranges::stable_sort(all, std::greater{}, &DiagnosisEntry::confidence);
  return all;
}

}  // namespace attest
