// Keys that are read from the wrong page of a cache: its page table has two entries exchanged, or one of them
// twice.
#include <algorithm>
#include <cmath>

#include "ref/attention.hpp"
#include "verify/ops/attention/device.hpp"

namespace attest {
namespace {

constexpr Index most_keys = 2048;
constexpr std::size_t most_rows = 12;
constexpr std::size_t columns_to_choose_by = 16;  // of many faults the best

struct PageFault {
  enum class Kind { exchanged, both, k, v } kind;
  Index keys, at, from;  // the keys [at, at + keys) are read from [from, from + keys)

  /// What a read of key j's row finds, of K or of V.
  Index k(Index j) const { return kind == Kind::both || kind == Kind::k ? copied(j) : j; }
  Index v(Index j) const {
    if (kind == Kind::exchanged && j >= from && j < from + keys) return j - from + at;
    return kind != Kind::k ? copied(j) : j;
  }

  std::string cause() const {
    const auto range = [&](Index first) {
      return std::to_string(first) + ".." + std::to_string(first + keys - 1);
    };
    if (kind == Kind::exchanged) {
      return "pages of K or V exchanged: keys " + range(at) + " and " + range(from);
    }
    const char* const rows = kind == Kind::both ? "K and V" : kind == Kind::k ? "K" : "V";
    return "keys " + range(at) + " take the rows of " + rows + " of keys " + range(from);
  }

 private:
  Index copied(Index j) const { return j >= at && j < at + keys ? j - at + from : j; }
};

/// A row, and e^(score - lse) of all keys, were they visible.
struct PagedRow {
  const AttentionRow* row;
  std::vector<double> weight;
  std::vector<bool> is_visible;

  explicit PagedRow(const AttentionRow& of) : row(&of), weight(of.in->keys()), is_visible(of.in->keys()) {
    AttentionSpec all = *of.spec;
    all.causal = Causal::none, all.window_left = all.window_right = -1;
    AttentionInputs in = *of.in;
    in.mask = {};
    ref::attention_scores(all, in, of.h, of.i, {weight.data(), {in.keys()}});
    for (double& w : weight) w = std::exp(w - of.lse);
    for (const Index j : of.key) is_visible[j] = true;
  }

  /// Compares the answer of a kernel with this fault, in so many columns of o at most.
  void add_to(Fits& fits, const PageFault& fault, std::size_t columns) const {
    std::vector<double> o(row->o.begin(),
                          row->o.begin() + static_cast<Index>(std::min(columns, row->o.size())));
    double sum = 1;
    const auto add = [&](Index first) {
      for (Index j = first; j < first + fault.keys; ++j) {
        if (!is_visible[j]) continue;
        const Index v = fault.v(j);
        const double w = weight[fault.k(j)];
        sum += w - weight[j];
        for (std::size_t e = 0; e < o.size(); ++e) {
          const Index column = static_cast<Index>(e), g = row->in->kv_head(row->h);
          o[e] += w * row->in->v(g, v, column) - weight[j] * row->in->v(g, j, column);
        }
      }
    };
    add(fault.at);
    if (fault.kind == PageFault::Kind::exchanged) add(fault.from);
    for (std::size_t e = 0; e < o.size(); ++e) {
      fits.o.add(row->got[e], row->o[e], o[e] / sum, row->sigma[e]);
    }
    if (row->has_lse) fits.lse.add(row->got_lse, row->lse, row->lse + std::log(sum), row->lse_sigma);
  }
};

Fits fits_of(std::span<const PagedRow> rows, const PageFault& fault, std::size_t columns) {
  Fits fits;
  for (const PagedRow& row : rows) row.add_to(fits, fault, columns);
  return fits;
}

std::vector<PageFault> possible_faults(Index keys) {
  using enum PageFault::Kind;
  std::vector<PageFault> all;
  for (const Index page : {128, 64, 32, 16}) {
    for (Index at = 0; at + page <= keys; at += page) {
      for (Index from = 0; from + page <= keys; from += page) {
        if (at == from) continue;
        if (at < from) all.push_back({exchanged, page, at, from});
        for (const auto kind : {both, k, v}) all.push_back({kind, page, at, from});
      }
    }
  }
  return all;
}

}  // namespace

std::vector<DiagnosisEntry> wrong_pages(std::span<const AttentionRow> rows) {
  if (rows.size() < 4) return {};
  const AttentionInputs& in = *rows.front().in;
  // Biases belong to the place of a key, not to its row of K.
  if (in.keys() > most_keys || in.bias || in.alibi_slopes) return {};
  std::vector<PagedRow> paged;
  const std::size_t step = (rows.size() + most_rows - 1) / most_rows;
  for (std::size_t n = 0; n < rows.size(); n += step) {
    if (rows[n].in == &in) paged.emplace_back(rows[n]);
  }
  const std::vector<PageFault> faults = possible_faults(in.keys());
  std::vector<double> share(faults.size());
#pragma omp parallel for schedule(dynamic, 16)
  for (std::size_t n = 0; n < faults.size(); ++n) {
    const Fits both = fits_of(paged, faults[n], columns_to_choose_by);
    share[n] = (both.o + both.lse).explained();
  }
  if (share.empty()) return {};
  const PageFault& best = faults[std::ranges::max_element(share) - share.begin()];
  return fitted_fault(fits_of(paged, best, rows.front().o.size()), best.cause());
}

}  // namespace attest
