// What would explain a multi-head attention that failed: other scales, numbers of heads, biases and weights.
#include <algorithm>
#include <cmath>
#include <utility>

#include "verify/compare.hpp"
#include "verify/ops/multihead_attention/problem.hpp"
#include "verify/ops/quantised.hpp"
#include "verify/ops/sample.hpp"

namespace attest {
namespace {

/// Projections of a batch entry that cost more than this are not repeated with other weights.
constexpr Index most_products = Index{1} << 28;

/// Batch entries that answers are given for.
constexpr Index most_entries = 4;

/// w[N, M] with every block of N rows transposed.
Array<double, 2> transposed_blocks(View<const double, 2> w) {
  const Index width = w.extent(1);
  Array<double, 2> t({w.extent(0), width});
  for (Index r = 0; r < w.extent(0); ++r)
    for (Index j = 0; j < width; ++j) t(r, j) = w(r / width * width + j, r % width);
  return t;
}

}  // namespace

std::vector<Decoy> MultiheadProblem::alternatives(std::span<const Expected> expected) const {
  std::vector<Decoy> all = other_projections();
  const Index head = wrong_head(expected);
  const bool only_weights_fail = std::ranges::none_of(
      expected, [](const Expected& e) { return e.output == "y" && has_wrong_elements(e); });
  // Masks may differ from entry to entry.
  for (const Index b : evenly_spread(multihead_.batch, most_entries)) {
    const ref::Projected right = ref::project(multihead_.entry(b));
    const std::vector<Index> rows = telling_rows(b, expected);
    for (auto&& answers :
         {other_options(b, right), other_operands(b, right, rows, head), other_biases(b, right, rows),
          other_tokens(b), other_masks(b, right, rows, head, only_weights_fail),
          other_stores(b, right, rows)})
      all.insert(all.end(), answers.begin(), answers.end());
  }
  return all;
}

std::vector<Decoy> MultiheadProblem::other_options(Index b, const ref::Projected& right) const {
  const ref::MultiheadInputs in = multihead_.entry(b);
  const AttentionSpec& spec = multihead_.spec;
  const Index heads = multihead_.heads, width = multihead_.width;
  std::vector<Decoy> all;
  const auto add = [&](std::vector<Decoy> answers, bool is_of_whole_call) {
    for (Decoy& answer : answers) {
      answer.is_of_whole_call = is_of_whole_call;
      all.push_back(std::move(answer));
    }
  };
  const auto with_scale = [&](const std::string& name, double scale) {
    AttentionSpec wrong = spec;
    wrong.scale = scale;
    if (scale != spec.scale) add(sampled(name, b, wrong, attention_inputs(right, in), in), false);
  };
  with_scale("the scale applied twice", spec.scale * spec.scale);
  with_scale("a scale of 1/D", static_cast<double>(heads) / static_cast<double>(width));
  with_scale("a scale of 1/sqrt(M)", 1 / std::sqrt(static_cast<double>(width)));
  for (Index other = 1; other <= width; other *= 2) {
    for (const Index count : {other, heads * other, other > 1 && heads % other == 0 ? heads / other : 0}) {
      // A mask has one plane a head.
      if (count < 1 || count == heads || width % count != 0 || count > 4 * heads || in.mask) continue;
      AttentionSpec wrong = spec;
      const bool is_default = spec.scale == 1 / std::sqrt(static_cast<double>(width / heads));
      if (is_default) wrong.scale = 1 / std::sqrt(static_cast<double>(width / count));
      for (Decoy& answer :
           sampled("heads = " + std::to_string(count), b, wrong, attention_inputs(right, in, count), in))
        if (answer.output == "y") all.push_back(std::move(answer));
    }
  }
  if (in.mask) {
    ref::MultiheadInputs unmasked = in;
    unmasked.mask = {};
    add(sampled("the mask ignored", b, spec, attention_inputs(right, unmasked), unmasked), false);
    Array<double, 3> inverted({heads, multihead_.queries, multihead_.keys});
    for (Index h = 0; h < heads; ++h)
      for (Index i = 0; i < multihead_.queries; ++i)
        for (Index j = 0; j < multihead_.keys; ++j) inverted(h, i, j) = in.mask(h, i, j) == 0;
    ref::MultiheadInputs wrong = in;
    wrong.mask = std::as_const(inverted).view();
    add(sampled("the mask inverted", b, spec, attention_inputs(right, wrong), wrong), false);
  }
  for (Index third = 0; in.in_bias && third < 3; ++third) {
    ref::Projected plain = right;
    Array<double, 2>& x = third == 0 ? plain.q : third == 1 ? plain.k : plain.v;
    for (Index r = 0; r < x.extent(0); ++r)
      for (Index m = 0; m < width; ++m) x(r, m) -= in.in_bias(third * width + m);
    add(sampled(std::string("no in_proj_bias in ") + "qkv"[third], b, spec, attention_inputs(plain, in), in),
        false);
  }
  if (multihead_.average_weights && heads > 1) {
    for (Decoy& answer :
         sampled("weights added up over the heads, not averaged", b, spec, attention_inputs(right, in), in)) {
      if (answer.output != "weights") continue;
      for (double& value : answer.value) value *= static_cast<double>(heads);
      all.push_back(std::move(answer));
    }
  }
  return all;
}

std::vector<Decoy> MultiheadProblem::other_projections() const {
  const ref::MultiheadInputs in = multihead_.entry(0);
  const ref::Projected right = ref::project(in);
  const AttentionSpec& spec = multihead_.spec;
  const Index width = multihead_.width;
  std::vector<Decoy> all;
  const auto add = [&](std::vector<Decoy> answers, bool is_of_whole_call) {
    for (Decoy& answer : answers) {
      answer.is_of_whole_call = is_of_whole_call;
      all.push_back(std::move(answer));
    }
  };
  const auto with_out_weight = [&](const std::string& name, View<const double, 2> w, bool is_of_whole_call) {
    ref::MultiheadInputs wrong = in;
    wrong.out_weight = w;
    add(sampled(name, 0, spec, attention_inputs(right, in), wrong), is_of_whole_call);
  };
  const Array<double, 2> out_transposed = transposed_blocks(in.out_weight);
  with_out_weight("out_proj_weight transposed", out_transposed.view(), false);
  if ((multihead_.queries + 2 * multihead_.keys) * width * width > most_products) return all;

  const auto with_inputs = [&](const std::string& name, const ref::MultiheadInputs& wrong,
                               bool is_of_whole_call) {
    const ref::Projected projected = ref::project(wrong);
    add(sampled(name, 0, spec, attention_inputs(projected, wrong), wrong), is_of_whole_call);
  };
  const Array<double, 2> in_transposed = transposed_blocks(in.in_weight);
  ref::MultiheadInputs wrong = in;
  wrong.in_weight = in_transposed.view();
  with_inputs("each third of in_proj_weight transposed", wrong, false);
  for (const Quantised& q : quantised(in.in_weight)) {
    wrong = in;
    wrong.in_weight = {q.values.data(), {3 * width, width}};
    with_inputs("in_proj_weight" + q.how, wrong, true);
  }
  for (const Quantised& q : quantised(in.out_weight))
    with_out_weight("out_proj_weight" + q.how, {q.values.data(), {width, width}}, true);
  if (!case_.input("x")) return all;
  for (const Quantised& q : quantised(in.query)) {
    // A batch entry need not be contiguous, its copy is.
    wrong = in;
    wrong.query = wrong.key = wrong.value = {q.values.data(), {multihead_.queries, width}};
    with_inputs("x" + q.how, wrong, true);
  }
  return all;
}

}  // namespace attest
