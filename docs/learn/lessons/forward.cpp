// The tiled forward pass: two ways to normalise, tiles under a mask, and keys that are split over workers.
#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "docs/learn/lessons/lessons.hpp"
#include "ref/attention.hpp"
#include "ref/softmax.hpp"
#include "tests/support/random.hpp"
#include "tiled/merge.hpp"

namespace attest::lessons {
namespace {

Array<double, 3> random(Index heads, Index rows, Index columns, std::uint64_t seed) {
  test::Random numbers(seed);
  Array<double, 3> x({heads, rows, columns});
  for (Index n = 0; n < x.size(); ++n) x.data()[n] = 2 * numbers.symmetric();
  return x;
}

/// Two tiles of two keys, one row, as both algorithms see them.
void two_conventions(std::string& text) {
  const Row row;
  print(text, "                     deferred                            per step\n");
  print(text, "tile  m          l  factor          o      kept     share          o\n");
  double m = -INFINITY, l = 0, deferred = 0, per_step = 0;
  for (Index tile = 0; tile < 2; ++tile) {
    const ref::SoftmaxState own = ref::safe_softmax(row.scores().narrowed(0, 2 * tile, 2));
    const double m_new = std::max(m, own.m), factor = std::exp(m - m_new);
    double l_new = factor * l, weighted = 0;
    for (Index j = 2 * tile; j < 2 * tile + 2; ++j) {
      const double p = std::exp(row.x[j] - m_new);
      l_new += p;
      weighted += p * row.v[j];
    }
    const double kept = factor * l / l_new;
    deferred = factor * deferred + weighted;
    per_step = kept * per_step + weighted / l_new;
    m = m_new;
    l = l_new;
    print(text, "%4td  %g  %9.6f  %.4f  %9.5f    %.4f    %.4f  %9.5f\n", tile, m, l, factor, deferred, kept,
          1 / l, per_step);
  }
  print(text, "\nat the end: deferred o / l = %.6f, per step o = %.6f, lse = %.6f\n", deferred / l, per_step,
        m + std::log(l));
}

/// The engine, in both conventions, beside the reference.
void engine(std::string& text) {
  const Array<double, 3> q = random(1, 100, 16, 1), k = random(1, 150, 16, 2), v = random(1, 150, 16, 3);
  const AttentionInputs in{q.view(), k.view(), v.view(), {}, {}, {}, {}};
  const AttentionSpec spec = plain(Causal::bottom_right, 0.25);
  print(text, "row 57              o[0]       o[1]         m          l        lse\n");
  const auto show = [&](const char* label, const Array<double, 3>& o, const Array<double, 2>& m,
                        const Array<double, 2>& l, const Array<double, 2>& lse) {
    print(text, "%-15s %10.7f %10.7f %9.6f %10.6f %10.7f\n", label, o(0, 57, 0), o(0, 57, 1), m(0, 57),
          l(0, 57), lse(0, 57));
  };
  Array<double, 3> o({1, 100, 16});
  Array<double, 2> lse({1, 100}), m = lse, l = lse;
  ref::attention_forward(spec, in, {o.view(), lse.view(), m.view(), l.view(), {}, {}});
  show("ref, row by row", o, m, l, lse);
  for (const auto normalisation : {tiled::Normalisation::deferred, tiled::Normalisation::per_step}) {
    const tiled::Outputs<double> out{o.view(), lse.view(), m.view(), l.view()};
    tiled::attention_forward<double>(spec, {&in, 1}, {&out, 1}, tiled::fastest_level(), normalisation);
    show(normalisation == tiled::Normalisation::deferred ? "tiled, deferred" : "tiled, per step", o, m, l,
         lse);
  }
}

enum class Cover { none, part, all };

/// What query rows [i, i + rows) see of keys [j, j + keys), from the ends of their ranges only. Like the
/// kernel: first and last key of a row grow with the row.
Cover cover(const AttentionSpec& spec, const AttentionInputs& in, Index i, Index rows, Index j, Index keys) {
  const auto range = [&](Index row) {
    Index first = 0, last = in.keys() - 1;
    const Index diagonal = attest::diagonal(spec, in, row);
    if (spec.causal != Causal::none) last = std::min(last, diagonal);
    if (spec.window_left >= 0) first = std::max(first, diagonal - spec.window_left);
    if (spec.window_right >= 0) last = std::min(last, diagonal + spec.window_right);
    return std::pair(first, last);
  };
  const auto [first_begin, first_end] = range(i);
  const auto [last_begin, last_end] = range(i + rows - 1);
  if (last_end < j || first_begin > j + keys - 1) return Cover::none;
  if (last_begin <= j && j + keys - 1 <= first_end) return Cover::all;
  return Cover::part;
}

/// The same from the scores of the reference, one pair at a time.
Cover cover_by_scores(const AttentionSpec& spec, const AttentionInputs& in, Index i, Index rows, Index j,
                      Index keys) {
  std::vector<double> s(in.keys());
  Index seen = 0;
  for (Index row = i; row < i + rows; ++row) {
    ref::attention_scores(spec, in, 0, row, {s.data(), {in.keys()}});
    for (Index key = j; key < j + keys; ++key) seen += s[key] > -INFINITY;
  }
  return seen == 0 ? Cover::none : seen == rows * keys ? Cover::all : Cover::part;
}

void tile_map(std::string& text, const char* title, const AttentionSpec& spec, Index queries, Index keys,
              Index tile) {
  const Array<double, 3> q({1, queries, 1}), k({1, keys, 1}), v({1, keys, 1});
  const AttentionInputs in{q.view(), k.view(), v.view(), {}, {}, {}, {}};
  print(text, "%s\n", title);
  Index count[3] = {0, 0, 0};
  for (Index i = 0; i < queries; i += tile) {
    const Index rows = std::min(tile, queries - i);
    print(text, "rows %2td-%2td ", i, i + rows - 1);
    for (Index j = 0; j < keys; j += tile) {
      const Index columns = std::min(tile, keys - j);
      const Cover of_tile = cover(spec, in, i, rows, j, columns);
      if (of_tile != cover_by_scores(spec, in, i, rows, j, columns)) std::abort();
      text += of_tile == Cover::none ? " none" : of_tile == Cover::part ? " part" : " all ";
      ++count[static_cast<int>(of_tile)];
    }
    text += "\n";
  }
  print(text, "none %td, part %td, all %td\n", count[0], count[1], count[2]);
}

struct Covered {
  Index none, part, all;
  double work() const { return static_cast<double>(part + all) / static_cast<double>(none + part + all); }
};

Covered count_tiles(const AttentionSpec& spec, Index n, Index tile) {
  const Array<double, 3> x({1, n, 1});
  const AttentionInputs in{x.view(), x.view(), x.view(), {}, {}, {}, {}};
  Covered covered{0, 0, 0};
  for (Index i = 0; i < n; i += tile) {
    for (Index j = 0; j < n; j += tile) {
      const Cover of_tile = cover(spec, in, i, std::min(tile, n - i), j, std::min(tile, n - j));
      ++(of_tile == Cover::none ? covered.none : of_tile == Cover::part ? covered.part : covered.all);
    }
  }
  return covered;
}

}  // namespace

void tiled_forward(Numbers& numbers) {
  two_conventions(numbers["tiled_forward.example"]);
  engine(numbers["tiled_forward.engine"]);
  std::string& extra = numbers["tiled_forward.exercise_divisions"];
  constexpr Index n = 8192, e = 128, tile = 64, tiles = n / tile;
  print(extra, "N = %td, E = %td, %td tiles of %td keys; multiply-adds with V: %td\n", n, e, tiles, tile,
        n * e);
  print(extra, "deferred: %6td multiplications to rescale o, %6td to normalise it\n", tiles * e, e);
  print(extra, "per step: %6td multiplications to rescale o, %6td to scale what is added\n", tiles * e,
        tiles * e);
}

void causal_tiles(Numbers& numbers) {
  std::string& text = numbers["causal_tiles.example"];
  tile_map(text, "10 queries, 14 keys, tiles of 4 x 4, bottom_right", plain(Causal::bottom_right, 1), 10, 14,
           4);
  std::string& other = numbers["causal_tiles.top_left"];
  tile_map(other, "10 queries, 14 keys, tiles of 4 x 4, top_left", plain(Causal::top_left, 1), 10, 14, 4);

  std::string& counts = numbers["causal_tiles.counts"];
  print(counts, "#  square causal attention: tiles, and the share of the products that is done\n");
  print(counts, "#    N  tile     none    part     all   share\n");
  for (const Index n : {1024, 4096, 16384}) {
    for (const Index tile : {32, 64, 128}) {
      const Covered c = count_tiles(plain(Causal::top_left, 1), n, tile);
      print(counts, "%6td %5td %8td %7td %7td  %.4f\n", n, tile, c.none, c.part, c.all, c.work());
    }
  }
  std::string& empty = numbers["causal_tiles.exercise_empty"];
  const Array<double, 3> q({1, 6, 1}), k({1, 4, 1}), v({1, 4, 1}, 1.0);
  const AttentionInputs in{q.view(), k.view(), v.view(), {}, {}, {}, {}};
  Array<double, 3> o({1, 6, 1});
  Array<double, 2> lse({1, 6});
  ref::attention_forward(plain(Causal::bottom_right, 1), in, {o.view(), lse.view(), {}, {}, {}, {}});
  for (Index i = 0; i < 6; ++i) {
    print(empty, "row %td: last key %2td   o = %g   lse = %.6f\n", i,
          attest::diagonal(plain(Causal::bottom_right, 1), in, i), o(0, i, 0), lse(0, i));
  }
}

void split_keys(Numbers& numbers) {
  constexpr std::array<double, 6> x{1, 3, 2, 5, 0, 4}, values{10, 20, 30, 40, 50, 60};
  const Array<double, 3> q({1, 1, 1}, 1.0);
  std::string& text = numbers["split_keys.example"];
  print(text, "scores (1, 3, 2, 5, 0, 4), values (10, 20, 30, 40, 50, 60)\n");
  constexpr std::array<std::pair<Index, Index>, 3> shares{{{0, 3}, {3, 3}, {6, 0}}};
  std::vector<Array<double, 3>> outputs;
  std::vector<Array<double, 2>> sums;
  const auto attend = [&](Index first, Index count) {
    Array<double, 3> k({1, count, 1}), v({1, count, 1});
    for (Index j = 0; j < count; ++j) k(0, j, 0) = x[first + j], v(0, j, 0) = values[first + j];
    Array<double, 3> o({1, 1, 1});
    Array<double, 2> lse({1, 1});
    ref::attention_forward(plain(Causal::none, 1), {q.view(), k.view(), v.view(), {}, {}, {}, {}},
                           {o.view(), lse.view(), {}, {}, {}, {}});
    return std::pair(o, lse);
  };
  for (const auto& [first, count] : shares) {
    auto [o, lse] = attend(first, count);
    outputs.push_back(o);
    sums.push_back(lse);
  }
  std::vector<tiled::Part<double>> parts;
  for (std::size_t n = 0; n < shares.size(); ++n) {
    parts.push_back({outputs[n].view(), sums[n].view(), {}});
  }
  Array<double, 3> o({1, 1, 1});
  Array<double, 2> lse({1, 1});
  tiled::merge<double>(parts, {o.view(), lse.view(), {}, {}});
  for (std::size_t n = 0; n < shares.size(); ++n) {
    print(text, "worker %zu: %td keys  o = %9.6f  lse = %9.6f  e^(lse_n - lse) = %.6f\n", n, shares[n].second,
          outputs[n](0, 0, 0), sums[n](0, 0), std::exp(sums[n](0, 0) - lse(0, 0)));
  }
  print(text, "merged:           o = %9.6f  lse = %9.6f\n", o(0, 0, 0), lse(0, 0));
  const auto [whole, of_all] = attend(0, 6);
  print(text, "one worker:       o = %9.6f  lse = %9.6f\n", whole(0, 0, 0), of_all(0, 0));

  std::string& wrong = numbers["split_keys.exercise_average"];
  print(wrong, "mean of the two workers' o: %.6f   right: %.6f\n",
        (outputs[0](0, 0, 0) + outputs[1](0, 0, 0)) / 2, o(0, 0, 0));
  std::string& cost = numbers["split_keys.exercise_cost"];
  constexpr Index keys = 65536, d = 128;
  for (const Index splits : {1, 8, 64}) {
    print(cost, "%2td workers: %5td keys each; elements: K and V %td, partial results %4td\n", splits,
          keys / splits, 2 * keys * d, splits > 1 ? splits * (d + 1) : Index{0});
  }
}

void heads_and_windows(Numbers& numbers) {
  std::string& cache = numbers["heads_and_windows.cache"];
  constexpr Index queries = 32, n = 8192, d = 128;
  print(cache, "32 query heads, 8192 keys, D = E = 128, float16, one layer\n");
  for (const Index kv : {32, 8, 1}) {
    print(cache, "Hkv = %2td: %2td query heads a key head, cache %4td MiB, head 13 reads %td\n", kv,
          queries / kv, 2 * kv * n * d * 2 / 1048576, 13 / (queries / kv));
  }

  std::string& gradients = numbers["heads_and_windows.gradients"];
  const Array<double, 3> q = random(4, 3, 2, 4), k = random(2, 3, 2, 5), v = random(2, 3, 2, 6),
                         d_o = random(4, 3, 2, 7);
  const AttentionSpec spec = plain(Causal::top_left, 1);
  const auto dk_of = [&](const AttentionInputs& in, View<const double, 3> d_out, Index g) {
    Array<double, 3> o({in.q_heads(), 3, 2}), dk({in.kv_heads(), 3, 2});
    Array<double, 2> lse({in.q_heads(), 3});
    ref::attention_forward(spec, in, {o.view(), lse.view(), {}, {}, {}, {}});
    ref::attention_backward(spec, in, {o.view(), lse.view(), d_out}, {{}, dk.view(), {}, {}, {}});
    return dk(g, 1, 0);
  };
  const AttentionInputs all{q.view(), k.view(), v.view(), {}, {}, {}, {}};
  print(gradients, "dk of key head 1, key 1, column 0\n");
  double sum = 0;
  for (const Index h : {2, 3}) {
    const AttentionInputs one{
        q.view().narrowed(0, h, 1), k.view().narrowed(0, 1, 1), v.view().narrowed(0, 1, 1), {}, {}, {}, {}};
    const double share = dk_of(one, d_o.view().narrowed(0, h, 1), 0);
    print(gradients, "query head %td alone    %10.6f\n", h, share);
    sum += share;
  }
  print(gradients, "their sum             %10.6f\n", sum);
  print(gradients, "both heads at once    %10.6f\n", dk_of(all, d_o.view(), 1));

  std::string& map = numbers["heads_and_windows.window"];
  AttentionSpec window = plain(Causal::top_left, 1);
  window.window_left = 5;
  tile_map(map, "16 queries, 16 keys, tiles of 4 x 4, causal, window_left 5", window, 16, 16, 4);
  std::string& counts = numbers["heads_and_windows.exercise_window"];
  window.window_left = 1023;
  for (const Index length : {4096, 16384, 65536}) {
    const Covered c = count_tiles(window, length, 128),
                  full = count_tiles(plain(Causal::top_left, 1), length, 128);
    print(counts, "N = %5td: %4td tiles of 128 with a window of 1024 keys, %6td without\n", length,
          c.part + c.all, full.part + full.all);
  }
}

}  // namespace attest::lessons
