// The record of `multihead_attention`, and the exact values and bounds of its outputs.
#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <utility>

#include "verify/bounds/attention_forward.hpp"
#include "verify/inputs/make_inputs.hpp"
#include "verify/ops/multihead_attention/problem.hpp"
#include "verify/ops/ops.hpp"

namespace attest {
namespace {

using bounds::ExpectedView;
using bounds::Factor;
using bounds::Linear;

}  // namespace

struct MultiheadProblem::Stored {
  Array<double, 2> value, worst, sigma, systematic;  // [S, M]

  Stored(const Linear& layer, View<const double, 2> x, DType dtype)
      : value({x.extent(0), layer.outputs()}), worst(value), sigma(value), systematic(value) {
    layer.apply(
        x.extent(0),
        [&](Index r, Factor* row) {
          for (Index m = 0; m < layer.inputs(); ++m) row[m] = {x(r, m), 0, 0, 0, 0};
        },
        [&](Index r, Index n, const bounds::Estimate& y) {
          const Factor f = bounds::stored(y, dtype);
          value(r, n) = f.value;
          worst(r, n) = f.worst;
          sigma(r, n) = std::sqrt(f.variance);
          systematic(r, n) = f.systematic;
        });
  }
};

/// float64 stands for exact, so that its bounds are those before a store.
struct MultiheadProblem::Unstored {
  Tensor tensor;
  Expected expected;
  double lambda;

  explicit Unstored(std::vector<Index> shape)
      : tensor{"float64", DType::float64, std::move(shape), {}},
        expected("", tensor),
        lambda(bounds::confidence_multiplier(tensor.size())) {}
  Unstored(const Unstored&) = delete;

  /// The probable bound is systematic + lambda sigma, or the rigorous bound if that is less.
  double systematic(Index at) const {
    return std::max(0.0, expected.probable[at] - lambda * expected.sigma[at]);
  }
  bounds::Estimate estimate(Index at) const {
    return {expected.value[at], expected.rigorous[at], systematic(at),
            expected.sigma[at] * expected.sigma[at]};
  }
};

MultiheadProblem::MultiheadProblem(const Case& c)
    : Problem(c),
      case_(c),
      multihead_(c),
      contract_(read_multihead_contract(contract_keys_, *multihead_.x().dtype,
                                        *c.in.at("in_proj_weight").dtype,
                                        *c.in.at("out_proj_weight").dtype)) {}

MultiheadProblem::Layers MultiheadProblem::layers() const {
  const ref::MultiheadInputs in = multihead_.entry(0);
  const Index width = multihead_.width;
  const auto third = [&](Index n) {
    return Linear(in.in_weight.narrowed(0, n * width, width),
                  in.in_bias ? in.in_bias.narrowed(0, n * width, width) : in.in_bias,
                  contract_.in_projection);
  };
  return {third(0), third(1), third(2), Linear(in.out_weight, in.out_bias, contract_.out_projection)};
}

std::vector<Expected> MultiheadProblem::expect(const ProgressFunction& progress) {
  std::vector<Expected> all;
  for (const std::string name : {"y", "weights"}) {
    if (const auto it = case_.out.find(name); it != case_.out.end()) all.emplace_back(name, it->second);
  }
  const auto find = [&](std::string_view name) -> Expected* {
    const auto it = std::find_if(all.begin(), all.end(), [&](const Expected& e) { return e.output == name; });
    return it == all.end() ? nullptr : &*it;
  };
  const Layers all_layers = layers();
  for (Index b = 0; b < multihead_.batch; ++b) {
    expect_entry(b, all_layers, find("y"), find("weights"));
    progress(static_cast<double>(b + 1) / static_cast<double>(multihead_.batch));
  }
  return all;
}

void MultiheadProblem::expect_entry(Index b, const Layers& layers, Expected* y, Expected* weights) const {
  const ref::MultiheadInputs in = multihead_.entry(b);
  const Index heads = multihead_.heads;
  const Stored q(layers.q, in.query, contract_.intermediate);
  const Stored k(layers.k, in.key, contract_.intermediate);
  const Stored v(layers.v, in.value, contract_.intermediate);
  const auto split = [&](const Array<double, 2>& x) { return ref::heads_of(x.view(), heads); };
  AttentionInputs attention;
  attention.q = split(q.value);
  attention.k = split(k.value);
  attention.v = split(v.value);
  attention.mask = in.mask;
  const double projections = std::max(layers.q.reference_share(), layers.out.reference_share());
  const bounds::InputErrors errors{
      split(q.worst),      split(q.sigma), split(q.systematic), split(k.worst),      split(k.sigma),
      split(k.systematic), split(v.worst), split(v.sigma),      split(v.systematic), projections};
  const double share = std::max(
      projections,
      bounds::Arithmetic(contract_.attention).reference_share(attention.qk_width(), attention.keys()));

  Unstored o({multihead_.queries, multihead_.width});
  std::optional<Unstored> p;
  bounds::ForwardOutputs out{};
  if (y) {
    const View<double, 2> rows{o.expected.value.data(), {multihead_.queries, multihead_.width}};
    out.o = {o.expected, ref::heads_of(rows, heads)};
  }
  if (weights && multihead_.average_weights) {
    const View<double, 3>::Extents full{heads, multihead_.queries, multihead_.keys};
    p.emplace(std::vector<Index>(full.begin(), full.end()));
    out.p = {p->expected, View<double, 3>(p->expected.value.data(), full)};
  } else if (weights) {
    out.p = {*weights, multihead_.like_weights(weights->value.data(), b)};
  }
  bounds::attention_forward(multihead_.spec, attention, contract_.attention, out, &errors);
  if (y) expect_y(b, layers.out, o, v, share, *y);
  if (p) expect_mean_weights(b, *p, share, *weights);
}

void MultiheadProblem::expect_y(Index b, const Linear& out, const Unstored& o, const Stored& v, double share,
                                Expected& y) const {
  const Index width = multihead_.width, heads = multihead_.heads, d = width / heads;
  const View<const double, 2> w = multihead_.entry(b).out_weight;
  std::vector<Factor> factors(multihead_.queries * width);
  for (Index at = 0; at < o.tensor.size(); ++at) {
    factors[at] = bounds::stored(o.estimate(at), contract_.intermediate);
  }

  // The columns of a head share their weights, so that their errors are not independent where those of v are
  // not. docs/bounds_multihead.md, (6).
  Array<double, 2> excess({width, width});
  for (Index h = 0; h < heads; ++h) {
    const std::vector<double> more =
        bounds::coherence(v.value.view().narrowed(1, h * d, d), w.narrowed(1, h * d, d));
    for (Index n = 0; n < width; ++n) {
      for (Index m = h * d; m < (h + 1) * d; ++m) excess(n, m) = (more[n] - 1) * w(n, m) * w(n, m);
    }
  }
  const ExpectedView<2> view(y, multihead_.like_y(y.value.data(), b));
  out.apply(
      multihead_.queries, [&](Index i, Factor* row) { std::copy_n(&factors[i * width], width, row); },
      [&](Index i, Index n, const bounds::Estimate& e) {
        if (std::isnan(e.value)) {  // a row that may attend to no key
          view.set_exact(e.value, i, n);
          return;
        }
        double variance = e.variance;
        for (Index m = 0; m < width; ++m) variance += excess(n, m) * factors[i * width + m].variance;
        view.set_bound(e.value, e.worst, e.systematic, std::sqrt(variance), share, i, n);
      });
}

// docs/bounds_multihead.md, (7).
void MultiheadProblem::expect_mean_weights(Index b, const Unstored& p, double share,
                                           Expected& weights) const {
  const ExpectedView<3> view(weights, multihead_.like_weights(weights.value.data(), b));
  const double heads = static_cast<double>(multihead_.heads);
  const double sum = bounds::gamma(heads + 1, unit_roundoff(contract_.attention.softmax_dtype));
  const Index plane = multihead_.queries * multihead_.keys;
  for (Index i = 0; i < multihead_.queries; ++i) {
    for (Index j = 0; j < multihead_.keys; ++j) {
      bounds::Estimate mean{};
      for (Index h = 0; h < multihead_.heads; ++h) {
        const bounds::Estimate e = p.estimate(h * plane + i * multihead_.keys + j);
        mean.value += e.value / heads;
        mean.worst += (e.worst * (1 + sum) + sum * e.value) / heads;
        mean.systematic += (e.systematic + sum * e.value) / heads;
        mean.variance += e.variance / (heads * heads);
      }
      if (std::isnan(mean.value)) {
        view.set_exact(mean.value, 0, i, j);
      } else {
        view.set_bound(mean.value, mean.worst, mean.systematic, std::sqrt(mean.variance), share, 0, i, j);
      }
    }
  }
}

Op multihead_attention_op() {
  using enum PortType;
  return {
      "multihead_attention",
      "Attention between linear projections, as torch.nn.MultiheadAttention computes it.",
      {
          {"x", "Sq B M", floating, false, "query, key and value in one: self-attention"},
          {"query", "Sq B M", floating, false, "what queries are made of; with key and value, instead of x"},
          {"key", "Sk B M", floating, false, "what keys are made of"},
          {"value", "Sk B M", floating, false, "what values are made of"},
          {"in_proj_weight", "3M M", floating, true, "rows of Wq, then of Wk, then of Wv; q = x Wq^T"},
          {"in_proj_bias", "3M", floating, false, "the same of the biases; 0 if absent"},
          {"out_proj_weight", "M M", floating, true, "y = o Wo^T"},
          {"out_proj_bias", "M", floating, false, "added to y; 0 if absent"},
          {"mask", "~ B H Sq Sk", boolean, false, "true = may attend"},
      },
      {
          {"y", "Sq B M", floating, false, "output"},
          {"weights", "B Sq Sk or B H Sq Sk", floating, false,
           "attention weights, averaged over the heads or not; batch first in either layout"},
      },
      {
          {"heads", "integer", "", "head h owns the columns [h M/heads, (h + 1) M/heads) of q, k, v and o"},
          {"causal", "none, top_left, bottom_right", "", "which diagonal a row may not look beyond, if any"},
          {"layout", "lbm, blm", "", "order of length, batch and width: as above, or batch first"},
          {"scale", "number", "1/sqrt(M/heads)", "factor of q.k"},
          {"empty_row", "zero, nan", "zero",
           "o of a row that may attend to no key; y is then the bias, or NaN"},
          {"average_weights", "true, false", "true", "out/weights is the mean over the heads"},
      },
      multihead_contract_keys(),
      [](const Case& c) -> std::unique_ptr<Problem> { return std::make_unique<MultiheadProblem>(c); },
      multihead_attention_inputs(),
  };
}

}  // namespace attest
