// Multi-head attention held against ref on a sample of rows, and the wrong answers that must not pass.
#include <algorithm>
#include <cmath>
#include <utility>

#include "verify/ops/multihead_attention/problem.hpp"
#include "verify/ops/sample.hpp"
#include "verify/recheck.hpp"
#include "verify/text.hpp"

namespace attest {
namespace {

constexpr Index sampled_rows = 16;  // of a batch entry
constexpr Index few_places = 4;     // of the sequence

}  // namespace

AttentionInputs MultiheadProblem::attention_inputs(const ref::Projected& x, const ref::MultiheadInputs& in,
                                                   Index heads) const {
  AttentionInputs attention;
  attention.q = ref::heads_of(x.q.view(), heads);
  attention.k = ref::heads_of(x.k.view(), heads);
  attention.v = ref::heads_of(x.v.view(), heads);
  attention.mask = in.mask;
  return attention;
}

void MultiheadProblem::add_row(std::vector<Decoy>& answers, Index b, Index i, View<const double, 1> y,
                               View<const double, 2> p) const {
  for (Decoy& answer : answers) {
    const double* base = case_.out.at(answer.output).values.data();
    if (answer.output == "y") {
      const auto place = multihead_.like_y(base, b);
      for (Index m = 0; m < y.extent(0); ++m) {
        answer.at.push_back(&place(i, m) - base);
        answer.value.push_back(y(m));
      }
      continue;
    }
    const auto place = multihead_.like_weights(base, b);
    const Index planes = place.extent(0), together = p.extent(0) / planes;
    for (Index h = 0; h < planes; ++h) {
      for (Index j = 0; j < p.extent(1); ++j) {
        double mean = 0;
        for (Index n = 0; n < together; ++n) mean += p(h * together + n, j) / static_cast<double>(together);
        answer.at.push_back(&place(h, i, j) - base);
        answer.value.push_back(mean);
      }
    }
  }
}

std::vector<Decoy> MultiheadProblem::sampled(const std::string& name, Index b, const AttentionSpec& spec,
                                             const AttentionInputs& attention, const ref::MultiheadInputs& in,
                                             const std::vector<Index>& given) const {
  std::vector<Decoy> answers;
  for (const auto& [output, tensor] : case_.out) answers.push_back({name, output, {}, {}});
  std::vector<double> y(multihead_.width);
  Array<double, 2> p({attention.q.extent(0), attention.keys()});
  for (const Index i : given.empty() ? evenly_spread(attention.queries(), sampled_rows) : given) {
    ref::multihead_attention_row(spec, attention, in, i, {y.data(), {multihead_.width}}, p.view());
    add_row(answers, b, i, {y.data(), {multihead_.width}}, p.view());
  }
  return answers;
}

void MultiheadProblem::recheck(std::span<const Expected> expected) const {
  const Index last = multihead_.batch - 1;
  for (Index b = 0; b <= last; b += std::max(last, Index{1})) {
    const ref::MultiheadInputs in = multihead_.entry(b);
    const ref::Projected projected = ref::project(in);
    hold_against_ref(expected, sampled("ref", b, multihead_.spec, attention_inputs(projected, in), in));
  }
}

std::vector<Decoy> MultiheadProblem::decoys(std::span<const Expected>) const {
  const ref::MultiheadInputs in = multihead_.entry(0);
  const ref::Projected right = ref::project(in);
  const AttentionInputs attention = attention_inputs(right, in);
  const AttentionSpec& spec = multihead_.spec;
  const Index heads = multihead_.heads, width = multihead_.width;
  std::vector<Decoy> all;
  const auto add = [&](const std::string& name, const AttentionSpec& s, const AttentionInputs& a,
                       const ref::MultiheadInputs& m) {
    for (Decoy& decoy : sampled(name, 0, s, a, m)) all.push_back(std::move(decoy));
  };

  for (const auto& [name, causal] :
       {std::pair{"causal = none", Causal::none}, std::pair{"causal = top_left", Causal::top_left},
        std::pair{"causal = bottom_right", Causal::bottom_right}}) {
    AttentionSpec wrong = spec;
    wrong.causal = causal;
    if (causal != spec.causal) add(name, wrong, attention, in);
  }
  // The rounding of q and k hides what changes the scores by less than about 20 roundings.
  const double percent = std::max(1.0, std::round(2000 * unit_roundoff(contract_.intermediate)));
  AttentionSpec off = spec, unscaled = spec;
  off.scale *= 1 + percent / 100;
  unscaled.scale = 1;
  add("a scale " + number_text(percent, 3) + " % off", off, attention, in);
  add("no scale", unscaled, attention, in);
  {
    const auto third = [&](View<const double, 2> x, Index n) {
      Array<double, 2> y({x.extent(0), width});
      ref::linear(x, in.in_weight.narrowed(0, n * width, width),
                  in.in_bias ? in.in_bias.narrowed(0, n * width, width) : in.in_bias, y.view());
      return y;
    };
    const ref::Projected swapped{third(in.query, 1), third(in.key, 0), right.v};
    add("in_proj_weight in the order k, q, v", spec, attention_inputs(swapped, in), in);
  }
  {
    const auto interleaved = [&](const Array<double, 2>& x) {
      return View<const double, 3>{x.data(), {heads, x.extent(0), width / heads}, {1, width, heads}};
    };
    AttentionInputs wrong = attention;
    wrong.q = interleaved(right.q);
    wrong.k = interleaved(right.k);
    wrong.v = interleaved(right.v);
    add("heads that take every H-th column", spec, wrong, in);
  }
  if (in.in_bias) {
    ref::Projected plain = right;
    for (Index n = 0; n < 3 * width; ++n) {
      Array<double, 2>& x = n < width ? plain.q : n < 2 * width ? plain.k : plain.v;
      for (Index r = 0; r < x.extent(0); ++r) x(r, n % width) -= in.in_bias(n);
    }
    add("no in_proj_bias", spec, attention_inputs(plain, in), in);
  }
  if (in.out_bias) {
    ref::MultiheadInputs wrong = in;
    wrong.out_bias = {};
    add("no out_proj_bias", spec, attention, wrong);
  }
  // weights has the batch first in either layout.
  if (case_.input("x") && !case_.input("mask") && case_.out.contains("y")) {
    std::vector<Decoy> answers{{"the other layout", "y", {}, {}}};
    std::vector<double> y(width);
    Array<double, 2> p({heads, multihead_.batch});
    // In causal attention the first of them may well be right.
    for (const Index i : evenly_spread(multihead_.queries, few_places)) {
      const ref::MultiheadInputs wrong = multihead_.across_batch(i);
      const ref::Projected projected = ref::project(wrong);
      for (Index b = 0; b < std::min(multihead_.batch, sampled_rows); ++b) {
        ref::multihead_attention_row(spec, attention_inputs(projected, wrong), wrong, b, {y.data(), {width}},
                                     p.view());
        add_row(answers, b, i, {y.data(), {width}}, {});
      }
    }
    all.push_back(std::move(answers.front()));
  }
  return all;
}

}  // namespace attest
