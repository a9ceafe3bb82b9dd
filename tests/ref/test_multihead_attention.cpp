// The reference's multi-head attention against the oracle, and against attention itself.
#include "ref/multihead_attention.hpp"

#include <array>
#include <cmath>
#include <utility>

#include "tests/catch.hpp"
#include "tests/oracle/multihead_attention.hpp"
#include "tests/support/random.hpp"

namespace {

using namespace attest;

struct Tensors {
  Array<double, 2> query, key, value, in_weight, out_weight;
  Array<double, 1> in_bias, out_bias;
  Array<double, 3> mask;
  Index heads;
  bool has_bias, has_mask;

  Tensors(Index queries, Index keys, Index width, Index head_count, bool bias, bool masked,
          std::uint64_t seed)
      : query({queries, width}),
        key({keys, width}),
        value({keys, width}),
        in_weight({3 * width, width}),
        out_weight({width, width}),
        in_bias({3 * width}),
        out_bias({width}),
        mask({head_count, queries, keys}),
        heads(head_count),
        has_bias(bias),
        has_mask(masked) {
    test::Random random(seed);
    const auto fill = [&](auto& x, double size) {
      for (Index n = 0; n < x.size(); ++n) x.data()[n] = size * random.symmetric();
    };
    for (auto* x : {&query, &key, &value}) fill(*x, 2);
    for (auto* x : {&in_weight, &out_weight}) fill(*x, 1.5 / std::sqrt(static_cast<double>(width)));
    for (auto* x : {&in_bias, &out_bias}) fill(*x, 0.5);
    for (Index n = 0; n < mask.size(); ++n) mask.data()[n] = random.one_in(3) ? 0 : 1;
  }

  ref::MultiheadInputs inputs() const {
    ref::MultiheadInputs in{query.view(), key.view(),        value.view(), in_weight.view(),
                            {},           out_weight.view(), {},           {}};
    if (has_bias) in.in_bias = in_bias.view();
    if (has_bias) in.out_bias = out_bias.view();
    if (has_mask) in.mask = mask.view();
    return in;
  }
};

AttentionSpec spec_of(Causal causal, double scale) {
  return {causal, scale, -1, -1, 0, EmptyRow::zero};
}

struct Answer {
  Array<double, 2> y;
  Array<double, 3> p;
};

Answer run(const AttentionSpec& spec, const Tensors& t) {
  Answer out{Array<double, 2>({t.query.extent(0), t.query.extent(1)}),
             Array<double, 3>({t.heads, t.query.extent(0), t.key.extent(0)})};
  ref::multihead_attention(spec, t.heads, t.inputs(), out.y.view(), out.p.view());
  return out;
}

}  // namespace

TEST_CASE("multi-head attention agrees with an oracle that multiplies in another order") {
  for (const auto& [queries, keys, width, heads] : {std::array<Index, 4>{1, 1, 1, 1},
                                                    {1, 1, 8, 8},
                                                    {7, 7, 12, 3},
                                                    {5, 9, 16, 1},
                                                    {9, 5, 16, 4},
                                                    {33, 33, 24, 2}}) {
    for (const Causal causal : {Causal::none, Causal::top_left, Causal::bottom_right}) {
      for (const int options : {0, 1, 2, 3}) {
        const Tensors t(queries, keys, width, heads, options & 1, options & 2, 10 * queries + options);
        const double scale = 1.7 / std::sqrt(static_cast<double>(width / heads));
        const Answer got = run(spec_of(causal, scale), t);
        const ref::MultiheadInputs in = t.inputs();
        const Index offset = causal == Causal::none ? keys : causal == Causal::top_left ? 0 : keys - queries;
        const oracle::Multihead want =
            oracle::multihead_attention({in.query, in.key, in.value, in.in_weight, in.out_weight, in.in_bias,
                                         in.out_bias, in.mask, heads, scale, offset});
        INFO(queries << " x " << keys << ", " << width << "/" << heads << ", options " << options
                     << ", offset " << offset);
        for (Index n = 0; n < got.y.size(); ++n) {
          REQUIRE(std::abs(got.y.data()[n] - want.y.data()[n]) <= want.y_error.data()[n]);
          REQUIRE(want.y_error.data()[n] < 1e-10);
        }
        for (Index n = 0; n < got.p.size(); ++n) {
          REQUIRE(std::abs(got.p.data()[n] - want.weights.data()[n]) <= want.weights_error.data()[n]);
        }
      }
    }
  }
}

TEST_CASE("projections that change nothing leave attention") {
  const Index m = 12, heads = 3;
  Tensors t(6, 8, m, heads, false, false, 3);
  for (Index n = 0; n < m; ++n) {
    for (Index c = 0; c < m; ++c) {
      for (const Index third : {0, 1, 2}) t.in_weight(third * m + n, c) = n == c;
      t.out_weight(n, c) = n == c;
    }
  }
  const AttentionSpec spec = spec_of(Causal::bottom_right, 0.5);
  const Answer got = run(spec, t);
  AttentionInputs in;
  in.q = ref::heads_of(std::as_const(t.query).view(), heads);
  in.k = ref::heads_of(std::as_const(t.key).view(), heads);
  in.v = ref::heads_of(std::as_const(t.value).view(), heads);
  Array<double, 3> o({heads, 6, m / heads});
  ref::attention_forward(spec, in, {o.view(), {}, {}, {}, {}, {}});
  for (Index h = 0; h < heads; ++h) {
    for (Index i = 0; i < 6; ++i) {
      for (Index d = 0; d < m / heads; ++d) CHECK(got.y(i, h * m / heads + d) == o(h, i, d));
    }
  }
}

TEST_CASE("a causal mask and causality are the same") {
  Tensors t(9, 9, 16, 4, true, true, 5);
  for (Index h = 0; h < 4; ++h) {
    for (Index i = 0; i < 9; ++i) {
      for (Index j = 0; j < 9; ++j) t.mask(h, i, j) = j <= i;
    }
  }
  const Answer masked = run(spec_of(Causal::none, 0.5), t);
  t.has_mask = false;
  const Answer causal = run(spec_of(Causal::top_left, 0.5), t);
  for (Index n = 0; n < masked.y.size(); ++n) CHECK(masked.y.data()[n] == causal.y.data()[n]);
}

TEST_CASE("without scores every row is the projected mean of the values") {
  const Tensors t(4, 6, 8, 2, true, false, 9);
  const Answer got = run(spec_of(Causal::none, 0), t);
  const ref::MultiheadInputs in = t.inputs();
  Array<double, 2> mean({1, 8}), v({1, 8}), y({1, 8});
  for (Index j = 0; j < 6; ++j) {
    for (Index m = 0; m < 8; ++m) mean(0, m) += t.value(j, m) / 6;
  }
  ref::linear(std::as_const(mean).view(), in.in_weight.narrowed(0, 16, 8), in.in_bias.narrowed(0, 16, 8),
              v.view());
  ref::linear(std::as_const(v).view(), in.out_weight, in.out_bias, y.view());
  for (Index i = 0; i < 4; ++i) {
    for (Index m = 0; m < 8; ++m) CHECK(std::abs(got.y(i, m) - y(0, m)) < 1e-14);
  }
}

TEST_CASE("a row that sees no key gives the output bias") {
  const Tensors t(5, 3, 8, 2, true, false, 11);
  const Answer got = run(spec_of(Causal::bottom_right, 0.5), t);
  for (Index i = 0; i < 2; ++i) {
    for (Index m = 0; m < 8; ++m) CHECK(got.y(i, m) == t.out_bias(m));
  }
}
