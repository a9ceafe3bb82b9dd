// What would explain a multi-head attention that failed: keys that rows should not see or do, the softmax of
// another axis, rows that may attend to no key, and weights of some heads only.
#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>
#include <limits>
#include <utility>

#include "verify/ops/multihead_attention/problem.hpp"

namespace attest {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

/// Which keys a row sees, [Sk], not 0 = may attend.
using Row = View<double, 1>;

struct OtherKeys {
  std::string name;
  std::function<void(Index h, Index i, Row row)> change;
};

Index last_seen(Row row) {
  Index j = row.extent(0) - 1;
  while (j >= 0 && row(j) == 0) --j;
  return j;
}

}  // namespace

std::vector<Decoy> MultiheadProblem::other_masks(Index b, const ref::Projected& right,
                                                 const std::vector<Index>& rows, Index head,
                                                 bool only_weights_fail) const {
  const ref::MultiheadInputs in = multihead_.entry(b);
  const AttentionSpec& spec = multihead_.spec;
  const Index heads = multihead_.heads, queries = multihead_.queries, keys = multihead_.keys;
  const AttentionInputs attention = attention_inputs(right, in);
  std::vector<Decoy> all;
  const auto sees = [&](View<const double, 3> mask, Index h, Index i, Index j) {
    const bool is_past_diagonal = spec.causal != Causal::none && j > diagonal(spec, attention, i);
    return !is_past_diagonal && (!mask || mask(h, i, j) != 0);
  };
  std::vector<OtherKeys> others;
  const auto reads = [&](const std::string& name, View<const double, 3> mask, auto place) {
    others.push_back({name, [=](Index h, Index i, Row row) {
                        for (Index j = 0; j < keys; ++j) {
                          const auto [of_h, of_i, of_j] = place(h, i, j);
                          row(j) = sees(mask, of_h, of_i, of_j);
                        }
                      }});
  };
  using Place = std::array<Index, 3>;
  const auto same = [](Index h, Index i, Index j) { return Place{h, i, j}; };
  if (in.mask) {
    if (b > 0) reads("the mask of the first batch entry", multihead_.entry(0).mask, same);
    if (b > 1) reads("the mask of the batch entry before", multihead_.entry(b - 1).mask, same);
    if (b + 1 < multihead_.batch)
      reads("the mask of the next batch entry", multihead_.entry(b + 1).mask, same);
    reads("the mask of head 0", in.mask, [](Index, Index i, Index j) { return Place{0, i, j}; });
    reads("the mask of row 0", in.mask, [](Index h, Index, Index j) { return Place{h, 0, j}; });
    if (queries == keys)
      reads("the mask transposed", in.mask, [](Index h, Index i, Index j) { return Place{h, j, i}; });
  }
  if (in.mask && multihead_.batch > 1) {
    // Query heads of all batch entries have one number, b H + h, that is taken apart in another way.
    for (const bool has_other_head : {false, true}) {
      if (has_other_head && (heads == 1 || in.mask.stride(0) == 0)) continue;  // one for all heads
      others.push_back({has_other_head ? "masks taken for those of layout [H, B], not [B, H]"
                                       : "the mask of batch entry (b H + h) mod B",
                        [&, has_other_head](Index h, Index i, Row row) {
                          const Index number = b * heads + h;
                          const ref::MultiheadInputs of = multihead_.entry(number % multihead_.batch);
                          for (Index j = 0; j < keys; ++j)
                            row(j) = sees(of.mask, has_other_head ? number / multihead_.batch : h, i, j);
                        }});
    }
  }
  for (const Index by : {-2, -1, 1, 2}) {
    if (spec.causal == Causal::none) continue;
    const std::string further = std::to_string(std::abs(by)) + (std::abs(by) == 1 ? " key " : " keys ") +
                                (by > 0 ? "further" : "earlier");
    others.push_back({"a causal diagonal " + further, [&, by](Index h, Index i, Row row) {
                        for (Index j = 0; j < keys; ++j)
                          row(j) =
                              j <= diagonal(spec, attention, i) + by && (!in.mask || in.mask(h, i, j) != 0);
                      }});
  }
  if (spec.causal == Causal::none || in.mask) {
    others.push_back({"the last key that a row may attend to, missing", [](Index, Index, Row row) {
                        if (const Index j = last_seen(row); j >= 0) row(j) = 0;
                      }});
    others.push_back({"one key behind the last that a row may attend to", [](Index, Index, Row row) {
                        if (const Index j = last_seen(row); j + 1 < row.extent(0)) row(j + 1) = 1;
                      }});
  }
  others.push_back({"key 0 missing", [](Index, Index, Row row) { row(0) = 0; }});
  for (const Index block : {8, 16, 32, 64, 128}) {
    if (keys % block == 0 || keys < block) continue;
    const Index whole = keys / block * block;
    // Whole blocks of another size may end at the same key.
    if (block > 8 && whole == keys / (block / 2) * (block / 2)) continue;
    others.push_back({"keys from " + std::to_string(whole) + " on missing", [whole](Index, Index, Row row) {
                        for (Index j = whole; j < row.extent(0); ++j) row(j) = 0;
                      }});
  }

  AttentionSpec unlimited = spec;
  unlimited.causal = Causal::none;
  Array<double, 3> visible({heads, queries, keys});
  for (const OtherKeys& other : others) {
    for (Index h = 0; h < heads; ++h) {
      for (const Index i : rows) {
        for (Index j = 0; j < keys; ++j) visible(h, i, j) = sees(in.mask, h, i, j);
        other.change(h, i, visible.view().slice(h).slice(i));
      }
    }
    ref::MultiheadInputs wrong = in;
    wrong.mask = std::as_const(visible).view();
    std::ranges::move(sampled(other.name, b, unlimited, attention_inputs(right, wrong), wrong, rows),
                      std::back_inserter(all));
  }
  std::ranges::move(wrong_softmax(b, attention, rows, head, only_weights_fail), std::back_inserter(all));
  std::ranges::move(other_empty_rows(b, attention), std::back_inserter(all));
  return all;
}

std::vector<Decoy> MultiheadProblem::other_empty_rows(Index b, const AttentionInputs& attention) const {
  const ref::MultiheadInputs in = multihead_.entry(b);
  std::vector<Index> empty;
  for (Index i = 0; i < multihead_.queries && static_cast<Index>(empty.size()) < 16; ++i) {
    bool is_empty = true;
    for (Index j = 0; j < multihead_.keys; ++j) {
      const bool is_past =
          multihead_.spec.causal != Causal::none && j > diagonal(multihead_.spec, attention, i);
      is_empty &= is_past || (in.mask && in.mask(0, i, j) == 0);
    }
    if (is_empty) empty.push_back(i);
  }
  std::vector<Decoy> all;
  for (const auto& [convention, name] :
       {std::pair{EmptyRow::zero, "o = 0 in a row that may attend to no key: empty_row = zero"},
        std::pair{EmptyRow::nan, "NaN in a row that may attend to no key: empty_row = nan"},
        std::pair{EmptyRow::mean_v, "equal weights in a row that may attend to no key"}}) {
    AttentionSpec wrong = multihead_.spec;
    if (empty.empty() || convention == wrong.empty_row) continue;
    wrong.empty_row = convention;
    std::ranges::move(sampled(name, b, wrong, attention, in, empty), std::back_inserter(all));
  }
  return all;
}

std::vector<Decoy> MultiheadProblem::wrong_softmax(Index b, const AttentionInputs& attention,
                                                   const std::vector<Index>& rows, Index head,
                                                   bool only_weights_fail) const {
  const ref::MultiheadInputs in = multihead_.entry(b);
  const Index heads = multihead_.heads, queries = multihead_.queries, keys = multihead_.keys;
  std::vector<Decoy> all;
  std::vector<double> s(keys), o(multihead_.width / heads);
  // Of the weights, for each head: the right ones, and those of a softmax over the queries.
  Array<double, 3> p({heads, queries, keys}), over_queries({heads, queries, keys});
  for (Index h = 0; h < heads; ++h) {
    for (Index i = 0; i < queries; ++i) {
      const View<double, 1> scores{s.data(), {keys}};
      ref::attention_forward_row(multihead_.spec, attention, h, i, scores, p.view().slice(h).slice(i),
                                 {o.data(), {static_cast<Index>(o.size())}});
      for (Index j = 0; j < keys; ++j) over_queries(h, i, j) = s[j];
    }
    for (Index j = 0; j < keys; ++j) {
      double m = -infinity, l = 0;
      for (Index i = 0; i < queries; ++i) m = std::max(m, over_queries(h, i, j));
      for (Index i = 0; i < queries && m > -infinity; ++i) l += std::exp(over_queries(h, i, j) - m);
      for (Index i = 0; i < queries; ++i)
        over_queries(h, i, j) = l > 0 ? std::exp(over_queries(h, i, j) - m) / l : 0;
    }
  }
  const auto add_weights = [&](const std::string& name, auto weight) {
    if (!case_.out.contains("weights")) return;
    std::vector<Decoy> answers{{name, "weights", {}, {}}};
    Array<double, 2> of_row({heads, keys});
    for (const Index i : rows) {
      for (Index h = 0; h < heads; ++h)
        for (Index j = 0; j < keys; ++j) of_row(h, j) = weight(h, i, j);
      add_row(answers, b, i, {}, of_row.view());
    }
    all.push_back(std::move(answers.front()));
  };
  const std::string over = "softmax over the queries";
  for (const Index only : {Index{-1}, head}) {
    if (only < 0 && head >= 0) continue;
    const std::string name = over + (only < 0 ? "" : " in head " + std::to_string(only));
    const auto weight = [&](Index h, Index i, Index j) {
      return only < 0 || h == only ? over_queries(h, i, j) : p(h, i, j);
    };
    add_weights(name, weight);
    if (!case_.out.contains("y")) continue;
    all.push_back(joined(name, b, rows, in, [&](Index h, Index i, View<double, 1> out) {
      for (Index e = 0; e < out.extent(0); ++e) {
        out(e) = 0;
        for (Index j = 0; j < keys; ++j) out(e) += weight(h, i, j) * attention.v(h, j, e);
      }
    }));
    if (head < 0) break;
  }
  if (heads == 1 || !only_weights_fail) return all;
  if (!multihead_.average_weights) {
    add_weights("weights of head 0 in every head", [&](Index, Index i, Index j) { return p(0, i, j); });
    return all;
  }
  for (Index first = 1; first < heads; ++first) {
    const std::string of = "weights of the first " + (first == 1 ? "head" : std::to_string(first) + " heads");
    const double share = static_cast<double>(heads) / static_cast<double>(first);
    add_weights(of + " only", [&](Index h, Index i, Index j) { return h < first ? share * p(h, i, j) : 0; });
    add_weights(of + " only, divided by that of all",
                [&](Index h, Index i, Index j) { return h < first ? p(h, i, j) : 0; });
  }
  add_weights("weights of the last head only", [&](Index h, Index i, Index j) {
    return h == heads - 1 ? static_cast<double>(heads) * p(h, i, j) : 0;
  });
  return all;
}

}  // namespace attest
