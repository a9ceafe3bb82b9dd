// What would explain a multi-head attention that failed: q, k and v made of another tensor, of other heads or
// batch entries, heads that are split or joined in another way, and weights of some heads only.
#include <algorithm>
#include <iterator>
#include <utility>

#include "verify/ops/multihead_attention/problem.hpp"

namespace attest {
namespace {

using HeadOf = std::function<Index(Index h)>;

/// x[S, M] with head other(h) in the place of head h.
Array<double, 2> exchanged(const Array<double, 2>& x, Index heads, const HeadOf& other) {
  Array<double, 2> y = x;
  const Index d = x.extent(1) / heads;
  for (Index s = 0; s < x.extent(0); ++s)
    for (Index m = 0; m < x.extent(1); ++m) y(s, m) = x(s, other(m / d) * d + m % d);
  return y;
}

struct OtherHeads {
  std::string name;  // what heads read: "of the head before"
  HeadOf of;
};

std::vector<OtherHeads> other_heads(Index heads, Index wrong_head) {
  std::vector<OtherHeads> all;
  if (wrong_head >= 0) {
    for (Index g = 0; g < heads; ++g)
      if (g != wrong_head)
        all.push_back({"of head " + std::to_string(g) + " in head " + std::to_string(wrong_head),
                       [=](Index h) { return h == wrong_head ? g : h; }});
    return all;
  }
  if (heads == 1) return all;
  all.push_back({"of the head before", [=](Index h) { return (h + heads - 1) % heads; }});
  if (heads > 2) all.push_back({"of the next head", [=](Index h) { return (h + 1) % heads; }});
  if (heads > 2) all.push_back({"of the heads in reverse order", [=](Index h) { return heads - 1 - h; }});
  for (Index group = 2; group <= heads; ++group) {
    if (heads % group != 0) continue;
    const std::string kept = std::to_string(heads / group);
    all.push_back({"of head h / " + std::to_string(group) + ", as if there were " + kept,
                   [=](Index h) { return h / group; }});
    if (group == heads) continue;
    all.push_back({"of the first of each " + std::to_string(group) + " heads",
                   [=](Index h) { return h / group * group; }});
    all.push_back({"of head h modulo " + kept, [=](Index h) { return h % (heads / group); }});
  }
  return all;
}

}  // namespace

std::vector<Decoy> MultiheadProblem::other_operands(Index b, const ref::Projected& right,
                                                    const std::vector<Index>& rows, Index head) const {
  const ref::MultiheadInputs in = multihead_.entry(b);
  const AttentionSpec& spec = multihead_.spec;
  const Index heads = multihead_.heads, width = multihead_.width, d = width / heads;
  std::vector<Decoy> all;
  const auto add = [&](const std::string& name, const ref::Projected& x) {
    std::ranges::move(sampled(name, b, spec, attention_inputs(x, in), in, rows), std::back_inserter(all));
  };
  const auto part = [](auto& of, Index n) -> auto& {
    return n == 0 ? of.q : n == 1 ? of.k : of.v;
  };

  // Another of the three inputs, if they have as many rows.
  if (!case_.input("x")) {
    const View<const double, 2> given[] = {in.query, in.key, in.value};
    const char* const names[] = {"query", "key", "value"};
    for (Index n = 0; n < 3; ++n) {
      for (Index other = 0; other < 3; ++other) {
        if (other == n || given[n].extent(0) != given[other].extent(0)) continue;
        ref::MultiheadInputs wrong = in;
        (n == 0 ? wrong.query : n == 1 ? wrong.key : wrong.value) = given[other];
        add(std::string(1, "qkv"[n]) + " made of in/" + names[other] + ", not of in/" + names[n],
            ref::project(wrong));
      }
    }
  }
  const auto repeated = [&](Index n, Index from) {
    ref::Projected wrong = right;
    part(wrong, n) = part(right, from);
    return wrong;
  };
  if (right.k.extent(0) == right.v.extent(0)) {
    add("k in the place of v", repeated(2, 1));
    add("v in the place of k", repeated(1, 2));
    ref::Projected swapped = right;
    std::swap(swapped.k, swapped.v);
    add("k and v exchanged", swapped);
  }
  if (right.q.extent(0) == right.k.extent(0)) add("q in the place of k", repeated(1, 0));

  for (const Index other : {Index{0}, b - 1, b + 1}) {
    if (other < 0 || other == b || other >= multihead_.batch || (other == 0 && b == 1)) continue;
    const ref::Projected of_other = ref::project(multihead_.entry(other));
    const std::string of = other == 0  ? " of the first batch entry"
                           : other < b ? " of the batch entry before"
                                       : " of the next batch entry";
    for (const Index which : {Index{1}, Index{2}, Index{3}}) {
      ref::Projected wrong = right;
      if (which != 2) wrong.k = of_other.k;
      if (which != 1) wrong.v = of_other.v;
      add((which == 1 ? "k" : which == 2 ? "v" : "k and v") + of, wrong);
    }
  }
  for (const OtherHeads& other : other_heads(heads, head)) {
    for (Index n = 0; n < 4; ++n) {
      ref::Projected wrong = right;
      if (n < 3) part(wrong, n) = exchanged(part(right, n), heads, other.of);
      if (n == 3)
        wrong.k = exchanged(right.k, heads, other.of), wrong.v = exchanged(right.v, heads, other.of);
      add((n < 3 ? std::string(1, "qkv"[n]) : "k and v") + " " + other.name, wrong);
    }
  }
  for (Index third = 0; in.in_bias && third < 3; ++third) {
    ref::Projected wrong = right;
    Array<double, 2>& x = part(wrong, third);
    for (Index r = 0; r < x.extent(0); ++r)
      for (Index m = 0; m < width; ++m) x(r, m) += in.in_bias(third * width + m);
    add(std::string("in_proj_bias twice in ") + "qkv"[third], wrong);
  }
  if (in.out_bias) {
    std::vector<double> twice(width);
    for (Index m = 0; m < width; ++m) twice[m] = 2 * in.out_bias(m);
    ref::MultiheadInputs wrong = in;
    wrong.out_bias = {twice.data(), {width}};
    std::ranges::move(sampled("out_proj_bias added twice", b, spec, attention_inputs(right, in), wrong, rows),
                      std::back_inserter(all));
    wrong.out_bias = {};
    std::ranges::move(sampled("no out_proj_bias", b, spec, attention_inputs(right, in), wrong, rows),
                      std::back_inserter(all));
  }

  // Heads that are cut out of a row as [D, H], or out of the whole of [S, M] as [H, S, D]; and joined so.
  const AttentionInputs attention = attention_inputs(right, in);
  const auto untransposed = [&](const Array<double, 2>& x) {
    return View<const double, 3>{x.data(), {heads, x.extent(0), d}};
  };
  AttentionInputs cut = attention;
  cut.q = untransposed(right.q), cut.k = untransposed(right.k), cut.v = untransposed(right.v);
  if (heads > 1)
    std::ranges::move(
        sampled("heads split without transposing: [S, M] taken for [H, S, D]", b, spec, cut, in, rows),
        std::back_inserter(all));
  if (!case_.out.contains("y") || heads == 1) return all;
  std::vector<double> s(attention.keys()), p(attention.keys()), o(d);
  const auto output_of = [&](const AttentionInputs& of, Index h, Index i) {
    const Index n = of.keys();
    ref::attention_forward_row(spec, of, h, i, {s.data(), {n}}, {p.data(), {n}}, {o.data(), {d}});
  };
  /// Element m of row i of the heads, where m counts through [D, H].
  Array<double, 2> whole({heads, d});
  const auto transposed = [&](const AttentionInputs& of) {
    return [&, row = Index{-1}](Index h, Index i, View<double, 1> out) mutable {
      for (Index g = 0; g < heads && row != i; ++g) {
        output_of(of, g, i);
        std::ranges::copy(o, &whole(g, 0));
      }
      row = i;
      for (Index e = 0; e < d; ++e) out(e) = whole((h * d + e) % heads, (h * d + e) / heads);
    };
  };
  all.push_back(joined("heads joined as [D, H], not [H, D]", b, rows, in, transposed(attention)));
  // Row by row of [H, S, D]: a piece of D elements stays in one piece.
  const auto flat = [&](const AttentionInputs& of) {
    return [&](Index h, Index i, View<double, 1> out) {
      const Index piece = i * heads + h;
      output_of(of, piece / multihead_.queries, piece % multihead_.queries);
      for (Index e = 0; e < d; ++e) out(e) = o[e];
    };
  };
  all.push_back(
      joined("heads joined without transposing: [H, S, D] taken for [S, M]", b, rows, in, flat(attention)));
  all.push_back(joined("heads neither split nor joined by transposing", b, rows, in, flat(cut)));
  const auto interleaved = [&](const Array<double, 2>& x) {
    return View<const double, 3>{x.data(), {heads, x.extent(0), d}, {1, width, heads}};
  };
  AttentionInputs every = attention;
  every.q = interleaved(right.q), every.k = interleaved(right.k), every.v = interleaved(right.v);
  all.push_back(joined("heads that take every H-th column, of o too", b, rows, in, transposed(every)));
  return all;
}

}  // namespace attest
