// Rows, columns and heads of K and V as kernels have misread them.
#include <algorithm>
#include <set>

#include "verify/ops/attention/misreader.hpp"

namespace attest {
namespace {

constexpr Index most_keys_for_tiles = 1024;

}  // namespace

void Misreader::of_heads(const AttentionInputs& in) {
  const Index kv = in.kv_heads();
  if (kv < 2) return;
  using HeadOf = Index (*)(Index h, Index q, Index kv);
  const HeadOf own = [](Index h, Index q, Index count) { return h * count / q; };
  const HeadOf modulo = [](Index h, Index, Index count) { return h % count; };
  const auto heads = [&](const std::string& name, HeadOf of_k, HeadOf of_v) {
    const auto read = [](HeadOf head, View<const double, 3> x, Index q) {
      return of_keys(x, q, [=, count = x.extent(0)](Index h, Index j) {
        return std::pair{head(h, q, count), j};
      });
    };
    const Kept<3> k([=](const AttentionInputs& x) { return read(of_k, x.k, x.q_heads()); });
    const Kept<3> v([=](const AttentionInputs& x) { return read(of_v, x.v, x.q_heads()); });
    add(name, [k, v](AttentionInputs& x) {
      const View<const double, 3> keys = k(x), values = v(x);
      x.k = keys, x.v = values;
    });
    all.back().is_of_whole_call = true;  // heads that it has wrong are wrong
  };
  const auto of_both = [&](const std::string& name, HeadOf head) { heads(name, head, head); };
  of_both("every query head reads key/value head 0", [](Index, Index, Index) { return Index{0}; });
  of_both("key/value heads in the reverse order",
          [](Index h, Index q, Index count) { return count - 1 - h * count / q; });
  if (in.group() > 1) {
    of_both("query head h reads key/value head h mod Hkv", modulo);
    of_both("query head h reads key/value head min(h, Hkv - 1)",
            [](Index h, Index, Index count) { return std::min(h, count - 1); });
    heads("query head h reads K of its key/value head, but V of head h mod Hkv", own, modulo);
    heads("query head h reads V of its key/value head, but K of head h mod Hkv", modulo, own);
    of_both("query head h reads key/value head h / Hkv",
            [](Index h, Index, Index count) { return std::min(h / count, count - 1); });
  }
}

void Misreader::of_columns(const AttentionInputs& in) {
  const Index width = in.qk_width();
  std::set<Index> ends;
  for (const Index tile : {8, 16, 32, 64, 128, 256, 512}) {
    const Index end = (width - 1) / tile * tile;
    if (end > 0 && ends.insert(end).second) {
      const Kept<3> zeroed([end](const AttentionInputs& x) {
        Array<double, 3> k = of_keys(x.k, x.kv_heads(), [](Index h, Index j) { return std::pair{h, j}; });
        for (Index h = 0; h < k.extent(0); ++h) {
          for (Index j = 0; j < k.extent(1); ++j) std::fill(&k(h, j, end), &k(h, j, 0) + k.extent(2), 0.0);
        }
        return k;
      });
      add("columns " + std::to_string(end) + ".." + std::to_string(width - 1) + " missing in q.k",
          [zeroed](AttentionInputs& x) { x.k = zeroed(x); });
    }
    const Index padded = (width + tile - 1) / tile * tile, more = padded - width;
    if (more == 0 || more > width || spec_.softcap > 0 || !has_few_scores_) continue;
    // In memory the columns of the next row follow.
    add_to_bias("columns " + std::to_string(width) + ".." + std::to_string(padded - 1) +
                    " of q.k not masked: they are those of the next rows",
                [more, scale = spec_.scale](const AttentionInputs& x, Index h, Index i, Index j) {
                  if (i + 1 >= x.queries() || j + 1 >= x.keys()) return 0.0;
                  double sum = 0;
                  for (Index d = 0; d < more; ++d) sum += x.q(h, i + 1, d) * x.k(x.kv_head(h), j + 1, d);
                  return scale * sum;
                });
  }
}

void Misreader::of_values(const AttentionInputs& in) {
  const auto of_both = [&](const std::string& rows, auto from) {
    for (const bool is_v : {true, false}) {
      const Kept<3> kept([=](const AttentionInputs& x) {
        const View<const double, 3> tensor = is_v ? x.v : x.k;
        return of_keys(tensor, tensor.extent(0), [=, count = tensor.extent(1)](Index h, Index j) {
          return from(h, j, count);  // packed sequences have different numbers of keys
        });
      });
      add("rows of " + std::string(is_v ? "V " : "K ") + rows, [kept, is_v](AttentionInputs& x) {
        const View<const double, 3> changed = kept(x);
        (is_v ? x.v : x.k) = changed;
      });
    }
  };
  const Index keys = in.keys();
  if (keys < 2) return;
  of_both("of the key before", [](Index h, Index j, Index) {
    return std::pair{h, std::max<Index>(j - 1, 0)};
  });
  of_both("of the key after", [](Index h, Index j, Index count) {
    return std::pair{h, std::min(j + 1, count - 1)};
  });
  if (in.kv_heads() > 1) {
    of_both("read in another layout, [Sk, Hkv, width]",
            [heads = in.kv_heads()](Index h, Index j, Index count) {
              const Index n = j * heads + h;
              return std::pair{n / count, n % count};
            });
  }
  if (keys > most_keys_for_tiles) return;
  for (const Index tile : {16, 32, 64, 128}) {
    for (Index first = tile; first < keys; first += tile) {
      const std::string tiles = "of keys " + std::to_string(first) + ".." +
                                std::to_string(std::min(first + tile, keys) - 1) +
                                " stale: those of the tile before";
      of_both(tiles, [=](Index h, Index j, Index) {
        return std::pair{h, j >= first && j < first + tile ? j - tile : j};
      });
    }
  }
}

}  // namespace attest
