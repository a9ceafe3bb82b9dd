// Rows of attention that another reading of the inputs gives.
#include "verify/ops/attention/reads.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "ref/attention.hpp"

namespace attest {
namespace {

constexpr std::size_t most_rows = 12, most_examples = 3, least_rows = 3;
constexpr double least_share_of_rows = 0.9, preference_for_rules = 0.75;
constexpr double least_explained_of_row = 0.97;  // readings are many
constexpr double infinity = std::numeric_limits<double>::infinity();

DiagnosisEntry entry_of(const std::string& cause, std::size_t count, std::size_t of, double preference) {
  return {cause, preference * static_cast<double>(count) / static_cast<double>(of),
          "explains o and lse of " + std::to_string(count) + " of " + std::to_string(of) + " rows"};
}

bool are_enough(std::size_t count, std::size_t of) {
  return count > 0 && static_cast<double>(count) >= least_share_of_rows * static_cast<double>(of);
}

}  // namespace

bool gives(const AttentionInputs& in, const AttentionRow& row) {
  std::vector<double> p(in.keys());
  ref::attention_scores(*row.spec, in, row.h, row.i, {p.data(), {in.keys()}});
  const double sink = in.sink ? in.sink(row.h) : -infinity;
  double m = sink, l = 0;
  for (const double s : p) m = std::max(m, s);
  if (!std::isfinite(m)) return false;
  for (double& x : p) l += x = std::exp(x - m);
  l += std::exp(sink - m);
  Fit of_lse, of_o;
  if (row.has_lse) {
    of_lse.add(row.got_lse, row.lse, m + std::log(l), row.lse_sigma);
    if (of_lse.tells() && of_lse.explained() < least_explained_of_row) return false;
  }
  std::vector<double> o(row.o.size());
  for (std::size_t j = 0; j < p.size(); ++j) {
    if (!(p[j] > 0)) continue;
    for (std::size_t e = 0; e < o.size(); ++e)
      o[e] += p[j] * in.v(in.kv_head(row.h), static_cast<Index>(j), static_cast<Index>(e));
  }
  for (std::size_t e = 0; e < o.size(); ++e) of_o.add(row.got[e], row.o[e], o[e] / l, row.sigma[e]);
  return of_o.tells() ? of_o.explained() >= least_explained_of_row : of_lse.tells();
}

std::vector<AttentionRow> few_of(std::span<const AttentionRow> rows) {
  std::vector<AttentionRow> few;
  const std::size_t step = std::max<std::size_t>(1, (rows.size() + most_rows - 1) / most_rows);
  for (std::size_t n = 0; n < rows.size(); n += step) few.push_back(rows[n]);
  return few;
}

std::vector<DiagnosisEntry> first_reading(std::span<const AttentionRow> rows,
                                          std::span<const Reading> readings) {
  for (const Reading& reading : readings) {
    std::size_t there = 0, explained = 0;
    for (const AttentionRow& row : rows) {
      const std::optional<AttentionInputs> in = reading.inputs(row);
      there += in.has_value(), explained += in && gives(*in, row);
    }
    // Where a row cannot be read like this, nobody knows what is.
    const bool is_for_most = 2 * there > rows.size();
    if (is_for_most && are_enough(explained, there)) return {entry_of(reading.name, explained, there, 1)};
  }
  return {};
}

std::vector<DiagnosisEntry> readings_of_each(const AttentionCase& attention,
                                             std::span<const AttentionRow> rows,
                                             std::span<const Reading> readings, const std::string& what) {
  if (rows.size() < least_rows) return {};
  std::vector<const Reading*> found(rows.size());
#pragma omp parallel for schedule(dynamic, 1)
  for (std::size_t n = 0; n < rows.size(); ++n) {
    for (const Reading& reading : readings) {
      const std::optional<AttentionInputs> in = reading.inputs(rows[n]);
      if (!in || !gives(*in, rows[n])) continue;
      found[n] = &reading;
      break;
    }
  }
  std::size_t count = 0;
  std::string examples;
  std::set<const Reading*> shown;
  for (std::size_t n = 0; n < rows.size(); ++n) {
    if (!found[n]) continue;
    ++count;
    if (shown.size() == most_examples || !shown.insert(found[n]).second) continue;
    examples += (shown.size() == 1 ? ": row " : "; row ") + std::to_string(rows[n].i) + " of head " +
                std::to_string(rows[n].h) + of_entry_text(attention, sequence_of(attention, rows[n])) +
                " reads " + found[n]->name;
  }
  if (!are_enough(count, rows.size())) return {};
  return {entry_of(what + examples, count, rows.size(), preference_for_rules)};
}

Index sequence_of(const AttentionCase& attention, const AttentionRow& row) {
  return std::ranges::find_if(attention.sequences, [&](const Sequence& s) { return &s.in == row.in; }) -
         attention.sequences.begin();
}

bool is_packed(const AttentionCase& attention) {
  const std::vector<Sequence>& all = attention.sequences;
  return all.size() > 1 && all.front().b == all.back().b;
}

std::string entry_text(const AttentionCase& attention) {
  return is_packed(attention) ? "sequence" : "batch entry";
}

std::string of_entry_text(const AttentionCase& attention, Index n) {
  return attention.sequences.size() < 2 ? "" : " of " + entry_text(attention) + " " + std::to_string(n);
}

}  // namespace attest
