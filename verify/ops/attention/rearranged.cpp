// Right numbers of attention in wrong places.
#include "verify/ops/attention/rearranged.hpp"

#include <algorithm>
#include <string>
#include <utility>

namespace attest {
namespace {

constexpr Index most_elements = 1 << 14;

/// In a sequence; of sizes, how many there are.
struct Place {
  Index h, i, e, sequence;
};

/// What stands at a place is what belongs to the place from(place, sizes), if there is such a place.
template <class From>
Decoy moved(const std::string& name, const AttentionCase& attention, const Expected& e, const From& from) {
  Decoy answer{name, e.output, {}, {}};
  const Index step = std::max<Index>(1, static_cast<Index>(e.value.size()) / most_elements);
  std::vector<View<const double, 3>> views;
  for (const Sequence& s : attention.sequences) views.push_back(view_of_rows(attention, e, s));
  Index n = 0;
  for (Index sequence = 0; sequence < std::ssize(views); ++sequence) {
    const View<const double, 3>& view = views[sequence];
    const Place size{view.extent(0), view.extent(1), view.extent(2), std::ssize(views)};
    for (Index h = 0; h < size.h; ++h) {
      for (Index i = 0; i < size.i; ++i) {
        for (Index c = 0; c < size.e; ++c, ++n) {
          // Places of all remainders, so that no period of columns is always met alike.
          if (n % step != (n / step) % step) continue;
          const Place x = from(Place{h, i, c, sequence}, size);
          const View<const double, 3>& source = views[x.sequence];
          if (x.i < 0 || x.i >= source.extent(1)) continue;
          answer.at.push_back(&view(h, i, c) - e.value.data());
          answer.value.push_back(source(x.h, x.i, x.e));
        }
      }
    }
  }
  return answer;
}

}  // namespace

View<const double, 3> view_of_rows(const AttentionCase& attention, const Expected& e, const Sequence& s) {
  const double* data = e.value.data();
  if (e.output == "o") return attention.like_o(data, s);
  if (e.output == "dq") return attention.like_q(data, s);
  if (e.output == "dk") return attention.like_k(data, s);
  if (e.output == "dv") return attention.like_v(data, s);
  return attention.like_rows(data, *e.dumped, s);
}

std::vector<Decoy> rearranged_outputs(const AttentionCase& attention, std::span<const Expected> expected) {
  std::vector<Decoy> all;
  const auto find = [&](std::string_view output) {
    const auto e = std::ranges::find(expected, output, &Expected::output);
    return e == expected.end() ? nullptr : &*e;
  };
  for (const char* name : {"o", "lse", "dq", "dk", "dv"}) {
    const Expected* e = find(name);
    if (!e) continue;
    const std::string output = name;
    const auto add = [&](const std::string& what, auto from) {
      all.push_back(moved(output + what, attention, *e, from));
    };
    // One row that holds another's results is no exchange.
    const auto exchange = [&](const std::string& what, auto from) {
      add(what, from);
      all.back().is_of_whole_call = true;
    };
    const Sequence& first = attention.sequences.front();
    const bool has_keys = output == "dk" || output == "dv";
    if ((has_keys ? first.in.kv_heads() : first.in.q_heads()) > 1) {
      exchange(" of the heads in reverse order: that of head h in head Hq - 1 - h", [](Place x, Place n) {
        x.h = n.h - 1 - x.h;
        return x;
      });
      add(" of head 0 in all heads", [](Place x, Place) {
        x.h = 0;
        return x;
      });
      add(" in another layout: written as [S, H, width], read as [H, S, width]", [](Place x, Place n) {
        const Index row = x.h * n.i + x.i;
        return Place{row % n.h, row / n.h, x.e, x.sequence};
      });
    }
    const Index group = first.in.group();
    if (!has_keys && group > 1 && first.queries > 1) {
      add(" of the query heads of a group in another layout: written as [Sq, heads], read as [heads, Sq]",
          [group](Place x, Place n) {
            const Index at = x.h % group * n.i + x.i;
            return Place{x.h / group * group + at % group, at / group, x.e, x.sequence};
          });
    }
    if (attention.sequences.size() > 1) {
      exchange(" of the sequences in reverse order", [](Place x, Place n) {
        x.sequence = n.sequence - 1 - x.sequence;
        return x;
      });
    }
    if (output == "lse") {  // of other outputs, misplaced_rows says so
      for (const Index shift : {-1, 1}) {
        add(std::string(" of another row: the one ") + (shift < 0 ? "before" : "after"),
            [shift](Place x, Place) {
              x.i += shift;
              return x;
            });
        if (first.in.q_heads() < 2) continue;
        add(std::string(" of another head: the one ") + (shift < 0 ? "before" : "after"),
            [shift](Place x, Place n) {
              x.h = (x.h + shift + n.h) % n.h;
              return x;
            });
      }
      for (const Index tile : {16, 32, 64, 128}) {
        if (first.queries <= tile) break;
        add(" of row tiles in reverse order, of " + std::to_string(tile) + " rows", [tile](Place x, Place n) {
          x.i = ((n.i - 1) / tile - x.i / tile) * tile + x.i % tile;
          return x;
        });
      }
      continue;
    }
    exchange(std::string(" with its ") + (has_keys ? "keys" : "rows") + " exchanged in pairs",
             [](Place x, Place) {
               x.i ^= 1;
               return x;
             });
    add(" with its tiles of width x width transposed", [](Place x, Place n) {
      const Index tile = x.i / n.e * n.e;
      return Place{x.h, tile + x.e, x.i - tile, x.sequence};
    });
    add(" with its columns exchanged in pairs", [](Place x, Place n) {
      x.e = std::min(x.e ^ 1, n.e - 1);
      return x;
    });
    add(" with the halves of its columns exchanged", [](Place x, Place n) {
      x.e = (x.e + n.e / 2) % n.e;
      return x;
    });
  }
  for (const Expected& e : expected) {
    if (e.output == "lse" || e.output == "m" || e.output == "l") continue;  // lse has an answer of its own
    Decoy negated{e.output + " of the other sign", e.output, {}, {}};
    const Index step = std::max<Index>(1, static_cast<Index>(e.value.size()) / most_elements);
    for (Index at = 0; at < static_cast<Index>(e.value.size()); at += step) {
      negated.at.push_back(at);
      negated.value.push_back(-e.value[at]);
    }
    all.push_back(std::move(negated));
  }
  const Expected *dk = find("dk"), *dv = find("dv");
  if (dk && dv && dk->dumped->shape == dv->dumped->shape) {
    for (const auto& [to, from] : {std::pair{dk, dv}, std::pair{dv, dk}}) {
      Decoy exchanged{"dk and dv exchanged", to->output, {}, from->value};
      for (std::size_t at = 0; at < from->value.size(); ++at) exchanged.at.push_back(static_cast<Index>(at));
      all.push_back(std::move(exchanged));
    }
  }
  return all;
}

}  // namespace attest
