// Rotary embeddings of other rows, heads or batch entries than their own, or turned as if the axes had
// another order.
#include <functional>
#include <string>

#include "verify/compare.hpp"
#include "verify/ops/rope/problem.hpp"
#include "verify/ops/rope/sample.hpp"
#include "verify/ops/rope/turns.hpp"
#include "verify/ops/sample.hpp"

namespace attest {
namespace {

constexpr Index most_vectors = 128;

/// The columns of one head in one row.
struct Vector {
  Index b, h, s;
};

struct OtherVector {
  std::string name;  // "the row before"
  std::function<Vector(Vector)> of;
};

std::vector<OtherVector> other_rows(Index entries) {
  return {{"the row before",
           [](Vector v) {
             return Vector{v.b, v.h, v.s - 1};
           }},
          {"the next row",
           [](Vector v) {
             return Vector{v.b, v.h, v.s + 1};
           }},
          {entries == 2 ? "the other batch entry" : "the next batch entry",
           [entries](Vector v) {
             return Vector{(v.b + 1) % entries, v.h, v.s};
           }},
          {"batch entry 0", [](Vector v) {
             return Vector{0, v.h, v.s};
           }}};
}

std::vector<OtherVector> other_heads(Index heads) {
  std::vector<OtherVector> all;
  const auto add = [&](const std::string& name, auto of) {
    all.push_back({name, [of](Vector v) { return Vector{v.b, of(v.h), v.s}; }});
  };
  add("the head before", [](Index h) { return h - 1; });
  add("the next head", [](Index h) { return h + 1; });
  add("head 0", [](Index) { return Index{0}; });
  for (Index n = 2; n < heads; n *= 2) {
    const std::string text = std::to_string(n);
    add("head h / " + text + " without remainder, not h", [n](Index h) { return h / n; });
    add("head h modulo " + text + ", not h", [n](Index h) { return h % n; });
  }
  return all;
}

}  // namespace

std::vector<Decoy> RopeProblem::other_reads(const Expected& e, const RopeDirection& direction) const {
  const AxisSizes& sizes = rope_.shape.sizes;
  const std::vector<double>& input = case_.input(direction.input)->values;
  const Index width = sizes.width;
  // Of column 0.
  const auto place_of = [&](Vector v) {
    return &sequence_view(input.data(), rope_.shape.order, sizes, v.b, v.s, 1)(v.h, 0, 0) - input.data();
  };
  const auto exists = [&](Vector v) {
    return 0 <= v.b && v.b < sizes.b && 0 <= v.h && v.h < sizes.h && 0 <= v.s && v.s < sizes.s;
  };
  std::vector<Vector> wrong, some;
  for (Index b = 0; b < sizes.b; ++b) {
    for (Index s = 0; s < sizes.s; ++s) {
      for (Index h = 0; h < sizes.h; ++h) {
        const Index at = place_of({b, h, s});
        for (Index d = 0; d < width; ++d) {
          if (within_bound(e, at + d, e.dumped->values[at + d])) continue;
          wrong.push_back({b, h, s});
          break;
        }
      }
    }
  }
  if (wrong.empty()) return {};
  for (const Index n : evenly_spread(std::ssize(wrong), most_vectors)) some.push_back(wrong[n]);

  const auto row_of = [&](Vector v) { return v.b * sizes.s + v.s; };
  const auto turned_as_itself = [&](Vector v, Index row) {
    const bounds::RopeSource& source = rope_.source;
    return row == row_of(v) || (source.has_table() ? source.table_rows[row] == source.table_rows[row_of(v)]
                                                   : source.positions[row] == source.positions[row_of(v)]);
  };
  std::vector<Decoy> all;
  // Vector v holds what is at `from`, turned as in row `turned_as`.
  const auto add = [&](const std::string& name, const auto& from, const auto& turned_as) {
    Decoy decoy{name, e.output, {}, {}};
    for (const Vector& v : some) {
      const Vector source = from(v);
      if (!exists(source)) continue;
      const Index at = place_of(v), own = place_of(source), row = turned_as(v);
      if (own == at && turned_as_itself(v, row)) {  // it would be right, and is not
        for (Index d = 0; d < width; ++d) decoy.at.push_back(at + d), decoy.value.push_back(e.value[at + d]);
        continue;
      }
      std::vector<double> value(input.begin() + own, input.begin() + own + width);
      for (Index k = 0; k < rope_.spec.pairs(); ++k) {
        Coefficients c = right_coefficients(rope_.source, rope_.spec, row, k);
        if (direction.backward) c = turned_back(c);
        double &x = value[rope_.spec.first(k)], &y = value[rope_.spec.second(k)];
        const double a = x, b = y;
        x = a * c.cos_i - b * c.sin_i;
        y = b * c.cos_j + a * c.sin_j;
      }
      for (Index d = 0; d < width; ++d) {
        decoy.at.push_back(at + d);
        decoy.value.push_back(value[d]);
      }
    }
    // Of few that there are, most would be outside of the tensor.
    if (2 * std::ssize(decoy.at) >= std::ssize(some) * width) all.push_back(std::move(decoy));
  };
  const auto itself = [](Vector v) { return v; };
  for (const OtherVector& other : other_heads(sizes.h))
    add(direction.input + " of " + other.name, other.of, row_of);
  for (const OtherVector& other : other_rows(sizes.b)) {
    add(direction.input + " of " + other.name, other.of, row_of);
    add(e.output + " of " + other.name, other.of, [&](Vector v) { return row_of(other.of(v)); });
  }
  if (rope_.shape.order.front() == 'b' && sizes.h > 1 && sizes.s > 1) {
    const auto index_in_entry = [&](Vector v) { return place_of(v) / width % (sizes.s * sizes.h); };
    add("positions counted as if the layout were bhsd", itself,
        [&](Vector v) { return v.b * sizes.s + index_in_entry(v) % sizes.s; });
    add("positions counted as if the layout were bshd", itself,
        [&](Vector v) { return v.b * sizes.s + index_in_entry(v) / sizes.h; });
  }
  return all;
}

}  // namespace attest
