// Right numbers of attention in wrong places.
#include "verify/ops/attention_rearranged.hpp"

#include <algorithm>
#include <string>
#include <utility>

namespace attest {
namespace {

constexpr Index most_elements = 1 << 14;

struct Place {
  Index h, i, e;
};

/// An output of [heads, rows, width] per sequence; copies of lse count as its width.
View<const double, 3> view_of(const AttentionCase& attention, const Expected& e, const Sequence& s) {
  const double* data = e.value.data();
  if (e.output == "o") return attention.like_o(data, s);
  if (e.output == "dq") return attention.like_q(data, s);
  if (e.output == "dk") return attention.like_k(data, s);
  if (e.output == "dv") return attention.like_v(data, s);
  return attention.like_rows(data, *e.dumped, s);
}

/// What stands at a place is what belongs to the place from(place, extents).
template <class From>
Decoy moved(const std::string& name, const AttentionCase& attention, const Expected& e, const From& from) {
  Decoy answer{name, e.output, {}, {}};
  const Index step = std::max<Index>(1, static_cast<Index>(e.value.size()) / most_elements);
  Index n = 0;
  for (const Sequence& s : attention.sequences) {
    const View<const double, 3> view = view_of(attention, e, s);
    const Place size{view.extent(0), view.extent(1), view.extent(2)};
    for (Index h = 0; h < size.h; ++h) {
      for (Index i = 0; i < size.i; ++i) {
        for (Index c = 0; c < size.e; ++c, ++n) {
          // Places of all remainders, so that no period of columns is always met alike.
          if (n % step != (n / step) % step) continue;
          const Place x = from(Place{h, i, c}, size);
          answer.at.push_back(&view(h, i, c) - e.value.data());
          answer.value.push_back(view(x.h, x.i, x.e));
        }
      }
    }
  }
  return answer;
}

}  // namespace

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
    add(" of the heads in reverse order: that of head h in head Hq - 1 - h", [](Place x, Place n) {
      return Place{n.h - 1 - x.h, x.i, x.e};
    });
    add(" in another layout: written as [S, H, width], read as [H, S, width]", [](Place x, Place n) {
      const Index row = x.h * n.i + x.i;
      return Place{row % n.h, row / n.h, x.e};
    });
    if (output == "lse") {
      add(" of another row: the one before", [](Place x, Place) {
        return Place{x.h, std::max<Index>(x.i - 1, 0), x.e};
      });
      continue;
    }
    add(" with its columns exchanged in pairs", [](Place x, Place n) {
      return Place{x.h, x.i, std::min(x.e ^ 1, n.e - 1)};
    });
    add(" with the halves of its columns exchanged", [](Place x, Place n) {
      return Place{x.h, x.i, (x.e + n.e / 2) % n.e};
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
