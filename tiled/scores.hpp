// One tile of scores, transposed: S^T[key, query], so that the lanes of a vector are queries and a row's
// maximum and sum are lane by lane. Scores are in base 2: multiplied by log2(e).
#pragma once

#include "tiled/micro_kernel.hpp"
#include "tiled/pack.hpp"

namespace attest::tiled::ATTEST_TILED_LEVEL {

/// Keys in one tile, B_c, so that a tile of V and one of scores share the first-level cache. The last tile
/// takes a few more rather than leaving a small one.
constexpr Index key_tile = 96, longest_key_tile = key_tile + key_tile / 4;

/// Is the last row of the forward pass left over by the vectors? It would be one of `lanes` in a panel:
/// lone_row.hpp turns it round.
template <class Real>
constexpr bool has_lone_row(Index queries) {
  return lanes<Real> >= 8 && queries % lanes<Real> == 1;
}

/// The panels of rows of a head. All have as many rows, up to the last, which has those that are left: fewer,
/// or one vector more, because a vector alone is slow.
template <class Real>
RowTiles row_panels(Index queries) {
  const Index vectors = most((queries + lanes<Real> - 1) / lanes<Real>, 1), taken = panel_vectors(vectors);
  const bool takes_one_more = vectors > taken && vectors % taken == 1 && taken < most_vectors;
  return {taken * lanes<Real>, takes_one_more ? vectors / taken : (vectors + taken - 1) / taken};
}

/// Tasks of at most so many of these panels, as even as they get.
inline RowTiles row_tasks(const RowTiles& panels, Index most_panels) {
  const Index tasks = (panels.count + most_panels - 1) / most_panels;
  const Index panels_of_task = (panels.count + tasks - 1) / tasks;
  return {panels_of_task * panels.rows, (panels.count + panels_of_task - 1) / panels_of_task};
}

/// Rows of the largest of these panels.
template <class Real>
Index most_panel_rows(const RowTiles& panels, Index queries) {
  return most(panels.rows, round_up(queries - (panels.count - 1) * panels.rows, lanes<Real>));
}

struct KeyRange {
  Index first, last;  // first <= j < last
};

/// The keys that the diagonal and the windows leave to query row i. Both ends grow with i.
template <class Real>
KeyRange visible_keys(const Head<Real>& head, Index i) {
  const AttentionSpec& spec = head.spec;
  const Index diagonal = head.first_diagonal + i;
  KeyRange keys{0, head.keys};
  if (spec.causal != Causal::none) keys.last = least(keys.last, diagonal + 1);
  if (spec.window_right >= 0) keys.last = least(keys.last, diagonal + spec.window_right + 1);
  if (spec.window_left >= 0) keys.first = least(most(0, diagonal - spec.window_left), head.keys);
  return {keys.first, most(keys.first, keys.last)};
}

/// Is anything but the ranges of visible_keys added to or taken from q.k?
template <class Real>
bool is_adjusted(const Head<Real>& head) {
  return head.spec.softcap != 0 || head.alibi_slope || head.bias.data || head.mask.data;
}

/// The share of a part in the keys that some row of [first_row, first_row + rows) sees, counted in whole
/// tiles from the first on. `grid`: tiles begin and end at multiples of it.
template <class Real>
KeyRange keys_of_part(const Head<Real>& head, const RowTask& task, Index tile, Index grid) {
  const Index first = visible_keys(head, task.first_row).first / grid * grid;
  const Index last =
      least(round_up(visible_keys(head, task.first_row + task.rows - 1).last, grid), head.keys);
  const Index tiles = (most(last - first, 0) + tile - 1) / tile;
  return {least(first + tiles * task.part / task.parts * tile, last),
          least(first + tiles * (task.part + 1) / task.parts * tile, last)};
}

/// What q is multiplied with: for scores in base 2, or for the argument of softcap's tanh.
template <class Real>
Real query_factor(const Head<Real>& head) {
  const double softcap = head.spec.softcap;
  return static_cast<Real>(softcap != 0 ? head.spec.scale / softcap
                                        : head.spec.scale * 1.44269504088896340736);
}

/// Vectors of rows in a tile: several panels, and one more.
constexpr Index tile_vectors = 16;

struct Place {  // of a score in its head
  Index row, key;
};

/// Rows of queries [first_row, first_row + rows) against keys [first_key, first_key + keys).
template <class Real>
struct ScoreTile {
  static constexpr Index w = lanes<Real>;

  const Head<Real>& head;
  Index first_row, rows, vectors;  // at most tile_vectors
  Index first_key = 0, keys = 0;
  // Of each vector of rows, counted from first_key: the keys that some row sees, and those that all see.
  KeyRange some[tile_vectors], all[tile_vectors];
  bool is_whole = false;  // every row sees every key, and nothing but q.k decides the score
  bool is_empty = true;   // no row sees a key
  bool takes_all;         // rows that see none of the keys of a tile are multiplied with it like the others

  ScoreTile(const Head<Real>& head_, Index first_row_, Index rows_, bool takes_all_ = false)
      : head(head_),
        first_row(first_row_),
        rows(rows_),
        vectors((rows_ + w - 1) / w),
        takes_all(takes_all_) {}

  Index stride() const { return vectors * w; }

  void move_to(Index first_key_, Index keys_) {
    first_key = first_key_;
    keys = keys_;
    is_whole = !is_adjusted(head);
    is_empty = true;
    for (Index x = 0; x < vectors; ++x) {
      const Index last_row = least(x * w + w, rows) - 1;
      const KeyRange begin = visible_keys(head, first_row + x * w);
      const KeyRange end = visible_keys(head, first_row + last_row);
      some[x] = clipped({begin.first, end.last});
      all[x] = clipped({end.first, begin.last});
      is_empty = is_empty && some[x].first == some[x].last;
      is_whole = is_whole && all[x].first == 0 && all[x].last == keys;
    }
    for (Index x = 0; x < vectors && takes_all; ++x) some[x] = {0, keys};
  }

  KeyRange clipped(KeyRange range) const {
    const Index first = least(most(range.first - first_key, 0), keys);
    return {first, least(most(range.last - first_key, first), keys)};
  }

  /// Calls f(x, vectors, j, keys) for rectangles that cover `some` of all vectors: vectors from x on, keys
  /// from j on.
  template <class F>
  ATTEST_ALWAYS_INLINE void for_rectangles(const F& f) const {
    if (is_whole) {
      f(Index{0}, vectors, Index{0}, keys);
      return;
    }
    for (Index j = 0, next; j < keys; j = next) {
      next = keys;
      Index begin = vectors, end = 0;
      for (Index x = 0; x < vectors; ++x) {
        if (some[x].first > j) next = least(next, some[x].first);
        if (some[x].last > j) next = least(next, some[x].last);
        if (some[x].first <= j && j < some[x].last) {
          begin = least(begin, x);
          end = x + 1;
        }
      }
      if (begin < end) f(begin, end - begin, j, next - j);
    }
  }

  /// s = K Q^T, wherever `some` row of a vector sees the key. k: [keys, depth], q: [depth, stride()].
  template <class Products>
  void multiply_queries(const Products& products, const Rows<Real>& k, Index depth, const Real* q,
                        Real* s) const {
    const Index n = stride();
    for_rectangles([&](Index x, Index vectors_, Index j, Index keys_) ATTEST_INLINE_LAMBDA {
      products.template multiply<Operand::plain>(
          {depth, k.data + j * k.stride, k.stride, q + x * w, n, s + j * n + x * w, n, false}, keys_,
          vectors_);
    });
  }

  /// Softcap, ALiBi, bias, and -inf where a row may not attend, for vector x of rows.
  __attribute__((noinline)) void adjust(Index x, Real* s) const {
    const Index n = stride();
    if (is_adjusted(head)) {
      for (Index j = some[x].first; j < some[x].last; ++j) {
        store(s + j * n + x * w, adjusted(load(s + j * n + x * w), [&](Index i) {
                return Place{first_row + least(x * w + i, rows - 1), first_key + j};
              }));
      }
    }
    if (all[x].first <= some[x].first && some[x].last <= all[x].last) return;
    alignas(vector_bytes) Integer<Real> first_of_row[w], last_of_row[w];
    for (Index i = 0; i < w; ++i) {
      const KeyRange keys_of_row = visible_keys(head, first_row + x * w + i);
      first_of_row[i] = static_cast<Integer<Real>>(keys_of_row.first - first_key);
      last_of_row[i] = static_cast<Integer<Real>>(keys_of_row.last - first_key);
    }
    const Integers<Real> first = *reinterpret_cast<const Integers<Real>*>(first_of_row);
    const Integers<Real> last = *reinterpret_cast<const Integers<Real>*>(last_of_row);
    for (Index j = some[x].first; j < some[x].last; ++j) {
      if (all[x].first <= j && j < all[x].last) continue;
      const Integers<Real> key = static_cast<Integer<Real>>(j) - Integers<Real>{};
      const Vector<Real> score = load(s + j * n + x * w), hidden = broadcast(-infinity<Real>);
      store(s + j * n + x * w, first <= key && key < last ? score : hidden);
    }
  }

  /// The derivative 1 - tanh^2 of softcap, for vector x of rows, before `adjust`.
  void store_slopes(Index x, const Real* s, Real* slope) const {
    for (Index j = some[x].first; j < some[x].last; ++j) {
      const Vector<Real> t = tanh<Real>(load(s + j * stride() + x * w));
      store(slope + j * stride() + x * w, Real{1} - t * t);
    }
  }

  /// Softcap, ALiBi, bias and mask for the scores of a vector, whose lanes are at places of the head.
  template <class PlaceOfLane>
  Vector<Real> adjusted(Vector<Real> s, const PlaceOfLane& place_of) const {
    if (head.spec.softcap != 0) s = tanh<Real>(s) * static_cast<Real>(head.spec.softcap * log2_of_e<double>);
    for (Index i = 0; i < w; ++i) {
      const auto [row, key] = place_of(i);
      if (head.alibi_slope) {
        const Index distance = alibi_distance(head.spec.alibi, head.first_diagonal + row, key);
        s[i] -= *head.alibi_slope * log2_of_e<Real> * static_cast<Real>(distance);
      }
      if (head.bias.data) s[i] += *head.bias.at(row, key) * log2_of_e<Real>;
      if (head.mask.data && *head.mask.at(row, key) == 0) s[i] = -infinity<Real>;
    }
    return s;
  }
};

/// C[rows, c_stride] += X B for the rows and keys of a tile, where s holds X^T and b [keys, c_stride] a row
/// for each key. With a factor: C = diag(factor) C + X B.
template <class Real, class Products>
void accumulate_rows(const Products& products, const ScoreTile<Real>& tile, const Real* s, const Real* factor,
                     const Rows<Real>& b, Real* c, Index c_stride) {
  constexpr Index w = lanes<Real>;
  const Index n = tile.stride(), columns = c_stride / w;
  if (tile.is_whole || tile.takes_all) {
    products.template multiply<Operand::transposed>(
        {tile.keys, s, n, b.data, b.stride, c, c_stride, true, factor}, tile.rows, columns);
    return;
  }
  const Index block = block_rows(static_cast<int>(panel_vectors(columns)));
  for (Index x = 0; x < tile.vectors; ++x) {
    const Index end = least(x * w + w, tile.rows);
    for (Index i = x * w; i < end; i += block) {
      const Index count = least(block, end - i);
      const Index j = tile.clipped(visible_keys(tile.head, tile.first_row + i)).first;
      const Index last = tile.clipped(visible_keys(tile.head, tile.first_row + i + count - 1)).last;
      products.template multiply<Operand::transposed>(
          {last - j, s + j * n + i, n, b.data + j * b.stride, b.stride, c + i * c_stride, c_stride, true,
           factor ? factor + i : nullptr},
          count, columns);
    }
  }
}

}  // namespace attest::tiled::ATTEST_TILED_LEVEL
