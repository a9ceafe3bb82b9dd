// Operands of the backward pass that are read from another place: a stale tile, another head or batch entry.
#include <algorithm>
#include <utility>

#include "verify/ops/attention/gradient_terms.hpp"

namespace attest {
namespace {

// Usual ones first: of names that say the same, the first.
constexpr Index tiles[] = {64, 128, 32, 16, 256, 8};

template <class Place>
struct PlaceMap {
  std::string name;  // "of the row before"
  std::function<Place(Place)> map;
};

/// Places along one axis: of `size` elements, i is read at map(i).
struct AxisMap {
  std::string name;
  std::function<Index(Index at, Index size)> map;
};

std::vector<AxisMap> along_axis(const std::string& one, const std::string& many) {
  std::vector<AxisMap> all;
  for (const Index n : {1, -1})
    all.push_back({"of the " + one + (n < 0 ? " before" : " after"),
                   [n](Index i, Index size) { return std::clamp<Index>(i + n, 0, size - 1); }});
  const auto of = [&](Index tile) { return std::to_string(tile) + " " + many; };
  for (const bool is_before : {true, false}) {
    for (const Index tile : tiles) {
      const Index n = is_before ? -tile : tile;
      all.push_back({"of the tile of " + of(tile) + (is_before ? " before" : " after"),
                     [n](Index i, Index size) { return i + n >= 0 && i + n < size ? i + n : i; }});
    }
  }
  for (const Index tile : {64, 128, 32, 16, 256, 8, 4, 2}) {
    all.push_back({"of the first " + one + " of its tile of " + of(tile),
                   [tile](Index i, Index) { return i - i % tile; }});
  }
  for (const Index tile : {2, 4, 8, 16, 32, 64}) {
    all.push_back({"of the other half of its tile of " + of(tile),
                   [half = tile / 2](Index i, Index size) { return (i ^ half) < size ? i ^ half : i; }});
  }
  for (const Index tile : tiles)
    all.push_back({"of the first tile of " + of(tile), [tile](Index i, Index) { return i % tile; }});
  return all;
}

/// The same of another head: of `heads`, h is read at map(h).
std::vector<AxisMap> other_heads(Index group) {
  std::vector<AxisMap> all;
  if (group > 1) {
    all.push_back({"of the first head of the group", [group](Index h, Index) { return h - h % group; }});
    all.push_back(
        {"of the last head of the group", [group](Index h, Index) { return h - h % group + group - 1; }});
  }
  all.push_back({"of head 0", [](Index, Index) { return Index{0}; }});
  all.push_back({"of the next head", [](Index h, Index heads) { return (h + 1) % heads; }});
  all.push_back({"of the head before", [](Index h, Index heads) { return (h + heads - 1) % heads; }});
  return all;
}

std::vector<AxisMap> other_entries() {
  return {{"of batch entry or sequence 0", [](Index, Index) { return Index{0}; }},
          {"of the next batch entry or sequence", [](Index n, Index all) { return (n + 1) % all; }},
          {"of the batch entry or sequence before", [](Index n, Index all) { return (n + all - 1) % all; }}};
}

std::vector<PlaceMap<QueryPlace>> other_rows(const BackwardPass& pass) {
  std::vector<PlaceMap<QueryPlace>> all;
  const AttentionInputs& first = pass.in(0);
  for (AxisMap& x : along_axis("row", "rows")) {
    all.push_back({x.name, [&pass, map = x.map](QueryPlace at) {
                     at.i = map(at.i, pass.in(at.n).queries());
                     return at;
                   }});
  }
  for (AxisMap& x : other_heads(first.group())) {
    if (first.q_heads() == 1) break;
    all.push_back({x.name, [map = x.map, heads = first.q_heads()](QueryPlace at) {
                     at.h = map(at.h, heads);
                     return at;
                   }});
  }
  const auto entries = static_cast<Index>(pass.sequences());
  for (AxisMap& x : other_entries()) {
    if (entries == 1) break;
    all.push_back({x.name, [&pass, map = x.map, entries](QueryPlace at) {
                     const auto n = static_cast<std::size_t>(map(static_cast<Index>(at.n), entries));
                     if (at.i < pass.in(n).queries()) at.n = n;
                     return at;
                   }});
  }
  const std::vector<Sequence>& packed = pass.attention().sequences;
  const bool differ = std::ranges::any_of(packed, [](const Sequence& s) { return s.first_q != s.first_k; });
  if (differ) {
    all.push_back({"at the place of the keys' packed sequence", [&packed](QueryPlace at) {
                     // Rows of all sequences follow each other, and heads after them.
                     const Index all_rows = packed.back().first_q + packed.back().queries;
                     const Index row = (packed[at.n].first_k + at.i) % all_rows;
                     const Index head = at.h + (packed[at.n].first_k + at.i) / all_rows;
                     if (head >= packed[at.n].in.q_heads()) return at;
                     for (std::size_t n = 0; n < packed.size(); ++n) {
                       const Index i = row - packed[n].first_q;
                       if (i >= 0 && i < packed[n].queries) return QueryPlace{n, head, i};
                     }
                     return at;
                   }});
  }
  return all;
}

std::vector<PlaceMap<KeyPlace>> other_keys(const BackwardPass& pass) {
  std::vector<PlaceMap<KeyPlace>> all;
  const AttentionInputs& first = pass.in(0);
  for (AxisMap& x : along_axis("key", "keys")) {
    all.push_back({x.name, [&pass, map = x.map](KeyPlace at) {
                     at.j = map(at.j, pass.in(at.n).keys());
                     return at;
                   }});
  }
  for (AxisMap& x : other_heads(1)) {
    if (first.kv_heads() == 1) break;
    all.push_back({x.name, [map = x.map, heads = first.kv_heads()](KeyPlace at) {
                     at.g = map(at.g, heads);
                     return at;
                   }});
  }
  const auto entries = static_cast<Index>(pass.sequences());
  for (AxisMap& x : other_entries()) {
    if (entries == 1) break;
    all.push_back({x.name, [&pass, map = x.map, entries](KeyPlace at) {
                     const auto n = static_cast<std::size_t>(map(static_cast<Index>(at.n), entries));
                     if (at.j < pass.keys(n)) at.n = n;
                     return at;
                   }});
  }
  return all;
}

class Reads {
 public:
  explicit Reads(const BackwardPass& pass) : pass_(pass) {}
  std::vector<GradientFault> all;

  void of_rows();
  void of_keys();
  void of_groups();

 private:
  bool is(std::string_view output) const { return pass_.output() == output; }
  bool has_ds() const { return !is("dv"); }
  template <class Change>
  void add(const std::string& name, Change change) {
    all.push_back({name, std::move(change)});
  }
  /// change(term, place) where the place is another one.
  template <class Change>
  void at_rows(const std::string& what, const PlaceMap<QueryPlace>& x, Change change) {
    add(what + " " + x.name, [map = x.map, change](GradientTerm& t) {
      if (const QueryPlace at = map(t.row); at != t.row) change(t, at);
    });
  }
  template <class Change>
  void at_keys(const std::string& what, const PlaceMap<KeyPlace>& x, Change change) {
    add(what + " " + x.name, [map = x.map, change](GradientTerm& t) {
      if (const KeyPlace at = map(t.key); at != t.key) change(t, at);
    });
  }

  const BackwardPass& pass_;
};

void Reads::of_rows() {
  const BackwardPass* const b = &pass_;
  const AttentionInputs& in = pass_.in(0);
  for (const PlaceMap<QueryPlace>& x : other_rows(pass_)) {
    const auto q = [b](GradientTerm& t, QueryPlace at) { t.product = b->product(at, t.key); };
    const auto d_o = [b](GradientTerm& t, QueryPlace at) { t.dp = b->dp(at, t.key); };
    const auto lse = [b](GradientTerm& t, QueryPlace at) { t.lse = b->lse(at); };
    const auto delta = [b](GradientTerm& t, QueryPlace at) { t.delta = b->delta(at); };
    at_rows("lse", x, lse);
    if (has_ds()) {
      at_rows("delta", x, delta);
      at_rows("lse and delta", x, [=](GradientTerm& t, QueryPlace at) { lse(t, at), delta(t, at); });
      at_rows("in/do in dP", x, d_o);
      at_rows("in/do in dP and delta", x, [=](GradientTerm& t, QueryPlace at) {
        d_o(t, at);
        const double* const o = b->o(t.row);
        t.delta = 0;
        for (Index e = 0; e < b->in(t.row.n).v_width(); ++e) t.delta += b->d_o(at)[e] * o[e];
      });
    }
    at_rows("in/q in its product with k", x, q);
    if (is("dk")) {
      const auto vector = [b](GradientTerm& t, QueryPlace at) { t.vector = b->q(at); };
      at_rows("in/q in its product with dS", x, vector);
      at_rows("in/q", x, [=](GradientTerm& t, QueryPlace at) { q(t, at), vector(t, at); });
    }
    if (is("dv")) {
      at_rows("in/do in its product with P", x,
              [b](GradientTerm& t, QueryPlace at) { t.vector = b->d_o(at); });
    }
    at_rows(has_ds() ? "dS" : "P", x, [b](GradientTerm& t, QueryPlace at) {
      if (at.n != t.row.n) return;
      const double* const vector = t.vector;
      const QueryPlace own = t.row;
      t = b->term(at, t.key.j);
      t.row = own, t.vector = vector;
    });
    if (in.mask) {
      at_rows("in/mask", x, [b](GradientTerm& t, QueryPlace at) {
        t.is_visible = b->is_in_reach(b->spec(), b->diagonal_of(t.row.n, t.row.i),
                                      b->in(t.row.n).key_position(t.key.j)) &&
                       t.key.j < b->keys(t.row.n) && b->is_in_mask(at, t.key.j);
      });
    }
    if (in.bias)
      at_rows("in/bias", x, [b](GradientTerm& t, QueryPlace at) { t.bias = b->bias(at, t.key.j); });
    if (in.alibi_slopes) {
      at_rows("ALiBi's slope", x, [b](GradientTerm& t, QueryPlace at) {
        at.n = t.row.n;
        t.alibi = b->alibi(at, t.key.j, b->diagonal_of(t.row.n, t.row.i));
      });
    }
  }
}

void Reads::of_keys() {
  const BackwardPass* const b = &pass_;
  const AttentionInputs& in = pass_.in(0);
  for (const PlaceMap<KeyPlace>& x : other_keys(pass_)) {
    const auto k = [b](GradientTerm& t, KeyPlace at) { t.product = b->product(t.row, at); };
    const auto v = [b](GradientTerm& t, KeyPlace at) { t.dp = b->dp(t.row, at); };
    const auto weighted = [b](GradientTerm& t, KeyPlace at) { t.vector = b->k(at); };
    at_keys("in/k in its product with q", x, k);
    if (has_ds()) at_keys("in/v in dP", x, v);
    if (is("dq")) at_keys("in/k in its product with dS", x, weighted);
    if (has_ds())
      at_keys("in/k and in/v in dS", x, [=](GradientTerm& t, KeyPlace at) { k(t, at), v(t, at); });
    if (is("dq")) {
      at_keys("in/k", x, [=](GradientTerm& t, KeyPlace at) { k(t, at), weighted(t, at); });
      at_keys("in/k and in/v", x, [=](GradientTerm& t, KeyPlace at) { k(t, at), v(t, at), weighted(t, at); });
    }
    at_keys(has_ds() ? "dS" : "P", x, [b](GradientTerm& t, KeyPlace at) {
      if (at.n != t.key.n || at.g != t.key.g) return;
      const double* const vector = t.vector;
      const KeyPlace own = t.key;
      t = b->term(t.row, at.j);
      t.key = own, t.vector = vector;
    });
    if (has_ds()) {
      const auto weight = [b](const GradientTerm& t, KeyPlace at) {
        const bool is_own = at.n == t.key.n && at.g == t.key.g;
        return is_own ? b->p(b->term(t.row, at.j)) / b->p(t) : 1;
      };
      at_keys("P in P delta", x, [=](GradientTerm& t, KeyPlace at) {
        if (const double f = weight(t, at); std::isfinite(f)) t.delta *= f;
      });
      at_keys("P in P dP", x, [=](GradientTerm& t, KeyPlace at) {
        if (const double f = weight(t, at); std::isfinite(f)) t.dp *= f;
      });
    }
    if (in.mask) {
      at_keys("in/mask", x, [b](GradientTerm& t, KeyPlace at) {
        t.is_visible = b->is_in_reach(b->spec(), b->diagonal_of(t.row.n, t.row.i),
                                      b->in(t.row.n).key_position(t.key.j)) &&
                       t.key.j < b->keys(t.row.n) && b->is_in_mask(t.row, at.j);
      });
    }
    if (in.bias) at_keys("in/bias", x, [b](GradientTerm& t, KeyPlace at) { t.bias = b->bias(t.row, at.j); });
  }
}

/// Key/value heads that are not those of their group.
void Reads::of_groups() {
  const BackwardPass* const b = &pass_;
  const Index count = pass_.in(0).kv_heads(), group = pass_.in(0).group();
  if (count == 1 || group == 1) return;
  using HeadOf = Index (*)(Index h, Index count);
  const std::pair<const char*, HeadOf> wrong_heads[] = {
      {"of head h mod Hkv", [](Index h, Index kv) { return h % kv; }},
      {"of head h / Hkv", [](Index h, Index kv) { return std::min(h / kv, kv - 1); }}};
  for (const auto& [name, head] : wrong_heads) {
    const auto place = [head = head, count](const GradientTerm& t) {
      return KeyPlace{t.key.n, head(t.row.h, count), t.key.j};
    };
    const std::string of = name;
    add("in/k in its product with q " + of,
        [=](GradientTerm& t) { t.product = b->product(t.row, place(t)); });
    if (!has_ds()) continue;
    add("in/v in dP " + of, [=](GradientTerm& t) { t.dp = b->dp(t.row, place(t)); });
    add("in/k and in/v in dS " + of,
        [=](GradientTerm& t) { t.product = b->product(t.row, place(t)), t.dp = b->dp(t.row, place(t)); });
    if (!is("dq")) continue;
    add("in/k and in/v " + of, [=](GradientTerm& t) {
      t.product = b->product(t.row, place(t)), t.dp = b->dp(t.row, place(t));
      t.vector = b->k(place(t));
    });
    add("in/k in its product with dS " + of, [=](GradientTerm& t) { t.vector = b->k(place(t)); });
  }
}

}  // namespace

std::vector<GradientFault> wrong_reads_of_gradients(const BackwardPass& pass) {
  Reads reads(pass);
  reads.of_rows();
  reads.of_keys();
  reads.of_groups();
  return std::move(reads.all);
}

}  // namespace attest
