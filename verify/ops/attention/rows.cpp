// Rows of a failed attention dump.
#include "verify/ops/attention/rows.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "ref/attention.hpp"
#include "verify/compare.hpp"
#include "verify/statistics/replay_statistics.hpp"

namespace attest {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr Index most_rows = 64, most_keys_of_all = 1 << 13;

struct Place {
  const Sequence* sequence;
  Index h, i;
};

const Expected* find(std::span<const Expected> expected, std::string_view output) {
  const auto it = std::ranges::find(expected, output, &Expected::output);
  return it == expected.end() ? nullptr : &*it;
}

bool is_wrong(const Expected& e, Index at) {
  return !within_bound(e, at, e.dumped->values[at]);
}

class Rows {
 public:
  Rows(const AttentionCase& attention, std::span<const Expected> expected,
       const std::optional<WeightStore>& store)
      : attention_(attention),
        o_(find(expected, "o")),
        lse_(find(expected, "lse")),
        store_(store),
        not_replayed_(o_ && store ? o_->not_replayed.upper() : 1) {}

  std::vector<Place> places(bool wrong_only) const {
    std::vector<Place> all;
    for (const Sequence& s : attention_.sequences) {
      for (Index h = 0; h < s.in.q_heads(); ++h) {
        for (Index i = 0; i < s.queries; ++i) {
          const Place place{&s, h, i};
          if (!wrong_only || has_wrong_element(place)) all.push_back(place);
        }
      }
    }
    return all;
  }

  bool has_o() const { return o_ != nullptr; }

  AttentionRow row(const Place& place) const {
    const AttentionInputs& in = place.sequence->in;
    AttentionRow row{};
    row.spec = &attention_.spec, row.in = &in, row.h = place.h, row.i = place.i;
    if (is_replayed()) row.replayed_in = o_->dtype;
    std::vector<double> s(in.keys()), p(in.keys());
    row.o.resize(in.v_width());
    const auto whole = [](std::vector<double>& x) -> View<double, 1> {
      return {x.data(), {static_cast<Index>(x.size())}};
    };
    const ref::SoftmaxStats stats =
        ref::attention_forward_row(attention_.spec, in, place.h, place.i, whole(s), whole(p), whole(row.o));
    row.lse = stats.lse;
    const std::vector<double> stored = is_replayed() ? store_->stored(s, p, row.lse) : p;
    for (Index j = 0; j < in.keys(); ++j) {
      if (s[j] == -infinity) continue;
      for (Index e = 0; e < in.v_width(); ++e)
        row.o[e] += (stored[j] - p[j]) * in.v(in.kv_head(place.h), j, e);
      row.key.push_back(j);
      row.stored.push_back(stored[j]);
      row.score.push_back(s[j]);
      row.p.push_back(p[j]);
      double product = 0;
      for (Index d = 0; d < in.qk_width(); ++d) product += row.q(d) * row.k(row.count() - 1, d);
      row.product.push_back(attention_.spec.scale * product);
    }
    if (!o_) row.o.clear();
    add_dumped(place, row);
    return row;
  }

 private:
  bool is_replayed() const { return not_replayed_ < most_not_replayed; }
  bool has_wrong_element(const Place& x) const {
    if (lse_ && is_wrong(*lse_, at_lse(x))) return true;
    for (Index e = 0; o_ && e < x.sequence->in.v_width(); ++e) {
      if (is_wrong(*o_, at_o(x, e))) return true;
    }
    return false;
  }
  Index at_lse(const Place& x) const {
    const double* data = lse_->value.data();
    return &attention_.like_rows(data, *lse_->dumped, *x.sequence)(x.h, x.i, 0) - data;
  }
  Index at_o(const Place& x, Index e) const {
    const double* data = o_->value.data();
    return &attention_.like_o(data, *x.sequence)(x.h, x.i, e) - data;
  }

  void add_dumped(const Place& place, AttentionRow& row) const {
    if (lse_) {
      row.got_lse = lse_->dumped->values[at_lse(place)] / attention_.lse_unit;
      row.lse_sigma = lse_->sigma[at_lse(place)] / attention_.lse_unit;
      row.has_lse = std::isfinite(row.got_lse) && std::isfinite(row.lse);
    }
    for (Index e = 0; o_ && e < row.in->v_width(); ++e) {
      const Index at = at_o(place, e);
      row.got.push_back(o_->dumped->values[at]);
      row.sigma.push_back(is_replayed() ? std::sqrt(variance_beside_replay(*o_, at, not_replayed_))
                                        : o_->sigma[at]);
    }
    if (!std::ranges::all_of(row.got, [](double x) { return std::isfinite(x); })) row.got.clear();
  }

  const AttentionCase& attention_;
  const Expected *o_, *lse_;
  const std::optional<WeightStore>& store_;
  const double not_replayed_;
};

/// As many as take a fraction of a second.
std::vector<Place> spread(const std::vector<Place>& places, const AttentionCase& attention) {
  const Index count = static_cast<Index>(places.size());
  const Index keys = std::max(Index{1}, attention.sequences.front().in.keys());
  const Index wanted = std::clamp(most_keys_of_all / keys, Index{8}, most_rows);
  std::vector<Place> few;
  for (Index n = 0; n < std::min(wanted, count); ++n)
    few.push_back(places[count <= wanted ? n : n * (count - 1) / (wanted - 1)]);
  return few;
}

}  // namespace

std::vector<AttentionRow> sampled_rows(const AttentionCase& attention, std::span<const Expected> expected,
                                       const std::optional<WeightStore>& store, WhichRows which) {
  const Rows rows(attention, expected, store);
  std::vector<AttentionRow> all;
  for (const Place& place : spread(rows.places(which == WhichRows::wrong), attention)) {
    AttentionRow row = rows.row(place);
    if (row.count() > 0 && (rows.has_o() ? !row.got.empty() : row.has_lse)) all.push_back(std::move(row));
  }
  return all;
}

bool wrong_rows_have_no_key(const AttentionCase& attention, std::span<const Expected> expected) {
  const std::optional<WeightStore> none;
  const Rows rows(attention, expected, none);
  const std::vector<Place> wrong = spread(rows.places(true), attention);
  return !wrong.empty() &&
         std::ranges::all_of(wrong, [&](const Place& x) { return rows.row(x).count() == 0; });
}

}  // namespace attest
