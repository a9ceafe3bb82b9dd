// What would explain a multi-head attention that failed: biases indexed by the row, and tokens whose batch
// entry and row are those of the other layout.
#include <iterator>
#include <utility>

#include "verify/ops/multihead_attention/problem.hpp"
#include "verify/ops/sample.hpp"

namespace attest {
namespace {

constexpr Index sampled_rows = 16;  // of a batch entry

/// Projections of a batch entry that cost more than this are not repeated.
constexpr Index most_products = Index{1} << 28;

}  // namespace

std::vector<Decoy> MultiheadProblem::other_biases(Index b, const ref::Projected& right,
                                                  const std::vector<Index>& rows) const {
  const ref::MultiheadInputs in = multihead_.entry(b);
  const Index width = multihead_.width, batch = multihead_.batch;
  std::vector<Decoy> all;
  if (width == 0) return all;
  struct Place {
    const char* name;
    std::function<Index(Index row, Index rows)> of;
  };
  // The number of a token among those of all batch entries, or of its row in its own.
  std::vector<Place> places = {{"the row", [](Index row, Index) { return row; }}};
  if (batch > 1) {
    const bool is_batch_first = multihead_.is_batch_first();
    places.push_back({"the number of the token", [=](Index row, Index count) {
                        return is_batch_first ? b * count + row : row * batch + b;
                      }});
  }
  for (const Place& place : places) {
    const std::string by = std::string(" indexed by ") + place.name + ", not by the column";
    for (Index third = 0; in.in_bias && third < 3; ++third) {
      ref::Projected wrong = right;
      Array<double, 2>& x = third == 0 ? wrong.q : third == 1 ? wrong.k : wrong.v;
      for (Index r = 0; r < x.extent(0); ++r)
        for (Index m = 0; m < width; ++m)
          x(r, m) +=
              in.in_bias(third * width + place.of(r, x.extent(0)) % width) - in.in_bias(third * width + m);
      std::ranges::move(sampled(std::string("in_proj_bias of ") + "qkv"[third] + by, b, multihead_.spec,
                                attention_inputs(wrong, in), in, rows),
                        std::back_inserter(all));
    }
    if (!in.out_bias) continue;
    for (const Index i : rows) {
      const std::vector<double> bias(width, in.out_bias(place.of(i, multihead_.queries) % width));
      ref::MultiheadInputs wrong = in;
      wrong.out_bias = {bias.data(), {width}};
      for (Decoy& answer :
           sampled("out_proj_bias" + by, b, multihead_.spec, attention_inputs(right, in), wrong, {i}))
        if (answer.output == "y") all.push_back(std::move(answer));
    }
  }
  return all;
}

std::vector<Decoy> MultiheadProblem::other_tokens(Index b) const {
  const Index width = multihead_.width, queries = multihead_.queries;
  std::vector<Decoy> all;
  if (multihead_.batch == 1 || !case_.out.contains("y")) return all;
  if ((queries + 2 * multihead_.keys) * width * width > most_products) return all;
  const MultiheadCase other = multihead_.with_tokens_of_other_layout();
  ref::MultiheadInputs in = other.entry(b);
  in.mask = multihead_.entry(b).mask;
  const ref::Projected x = ref::project(in);
  const AttentionInputs attention = attention_inputs(x, in);
  const std::string taken = multihead_.is_batch_first()
                                ? " of layout blm taken for lbm: token r is row r / B of batch entry r mod B"
                                : " of layout lbm taken for blm: token r is row r mod S of batch entry r / S";
  Decoy reads{"tokens" + taken + ", where they are read", "y", {}, {}}, both{"tokens" + taken, "y", {}, {}};
  const double* base = case_.out.at("y").values.data();
  const View<const double, 2> own = multihead_.like_y(base, b), others = other.like_y(base, b);
  std::vector<double> y(width);
  Array<double, 2> p({multihead_.heads, multihead_.keys});
  for (const Index i : evenly_spread(queries, sampled_rows)) {
    ref::multihead_attention_row(multihead_.spec, attention, in, i, {y.data(), {width}}, p.view());
    for (Index m = 0; m < width; ++m) {
      reads.at.push_back(&own(i, m) - base), both.at.push_back(&others(i, m) - base);
      reads.value.push_back(y[m]), both.value.push_back(y[m]);
    }
  }
  all.push_back(std::move(reads));
  all.push_back(std::move(both));
  return all;
}

}  // namespace attest
