// The record of `layer_norm_qkv`: LayerNorm, projection to queries, keys and values, split into heads.
#include <algorithm>
#include <cmath>

#include "core/array.hpp"
#include "core/invalid_case.hpp"
#include "ref/layer_norm_qkv.hpp"
#include "verify/axes/extents.hpp"
#include "verify/bounds/expected_view.hpp"
#include "verify/bounds/layer_norm_qkv.hpp"
#include "verify/contract/keys.hpp"
#include "verify/inputs/make_inputs.hpp"
#include "verify/ops/layer_norm_qkv/problem.hpp"
#include "verify/ops/ops.hpp"
#include "verify/recheck.hpp"
#include "verify/text.hpp"

namespace attest {
LayerNormQkvProblem::LayerNormQkvProblem(const Case& c) : Problem(c), case_(c) {
  read_spec();
  read_shapes();
  read_contract();
  for (const auto& [name, tensor] : case_.in) require_finite(case_, name);
  for (Index i = 0; spec_.eps == 0 && i < batch_ * tokens_; ++i) {
    if (std::isfinite(ref::norm_stats(spec_, in_.norm.x.slice(i)).rstd)) continue;
    throw InvalidCase(case_.object("spec") + " attribute eps is 0, but token " + std::to_string(i) +
                      " of in/x has equal values: its result is 0/0; eps > 0 is expected");
  }
}

void LayerNormQkvProblem::read_spec() {
  KeyReader keys(case_, "spec", case_.spec);
  spec_ = {true, keys.number("eps"), 0, {}};
  keys.number("heads");  // required
  heads_ = keys.integer("heads", 0);
  heads_outside_ = keys.choice<bool>("layout", {{"bhsd", true}, {"bshd", false}}, true);
  keys.finish();
  if (spec_.eps < 0) {
    throw InvalidCase(case_.object("spec") + " attribute eps is " + exact_text(spec_.eps) +
                      "; 0 or more is expected");
  }
}

void LayerNormQkvProblem::read_contract() {
  ContractReader& keys = contract_keys_;
  const DType natural = natural_compute_dtype(case_), element = *case_.in.at("x").dtype;
  bounds::NormContract& norm = contract_.norm;
  norm.compute = read_dtype(keys, "compute_dtype", natural);
  norm.variance = keys.choice<bounds::Variance>(
      "variance", {{"two_pass", bounds::Variance::two_pass}, {"one_pass", bounds::Variance::one_pass}},
      bounds::Variance::two_pass);
  const DType stored = read_dtype(keys, "intermediate_dtype", element);
  const DType sum = read_dtype(keys, "accumulate", natural);
  keys.finish();
  require_wide_enough(case_, "compute_dtype", norm.compute);
  if (format_of(stored).precision < format_of(norm.compute).precision) contract_.stored = stored;
  contract_.accumulate = accumulator(sum, stored);
}

std::string LayerNormQkvProblem::contract() const {
  const auto name = [](DType dtype) { return std::string(format_of(dtype).name); };
  return "norm in " + name(contract_.norm.compute) +
         (contract_.norm.variance == bounds::Variance::two_pass ? ", variance in two passes"
                                                                : ", variance in one pass") +
         (contract_.stored ? ", stored in " + name(*contract_.stored) : ", not rounded") + ", product in " +
         name(contract_.accumulate.dtype) + (contract_.accumulate.block > 0 ? " (tensor core)" : "") +
         contract_keys_.origin();
}

void LayerNormQkvProblem::read_shapes() {
  Extents extents(case_);
  const auto unify = [&](const std::string& path, const std::string& pattern) {
    const auto& tensors = path[0] == 'i' ? case_.in : case_.out;
    const auto it = tensors.find(path.substr(path.find('/') + 1));
    if (it != tensors.end()) extents.unify(pattern, it->second, path);
  };
  unify("in/x", "B S M");
  batch_ = extents["B"];
  tokens_ = extents["S"];
  width_ = extents["M"];
  if (heads_ < 1 || width_ % heads_ != 0) {
    throw InvalidCase(case_.object("spec") + " attribute heads is " + std::to_string(heads_) +
                      "; a divisor of M = " + std::to_string(width_) + " (in/x) is expected");
  }
  head_width_ = width_ / heads_;
  extents.bind("H", heads_, "spec attribute heads");
  extents.bind("D", head_width_, "spec attribute heads");
  extents.bind("3M", 3 * width_, "in/x");
  unify("in/weight", "M");
  unify("in/bias", "M");
  unify("in/qkv_weight", "3M M");
  unify("in/qkv_bias", "3M");
  for (const std::string_view name : qkv_names) {
    unify("out/" + std::string(name), heads_outside_ ? "B H S D" : "B S H D");
  }
  in_.norm.x = {data("x"), {batch_ * tokens_, width_}};
  if (data("weight")) in_.norm.weight = {data("weight"), {width_}};
  if (data("bias")) in_.norm.bias = {data("bias"), {width_}};
  in_.qkv_weight = {data("qkv_weight"), {3 * width_, width_}};
  if (data("qkv_bias")) in_.qkv_bias = {data("qkv_bias"), {3 * width_}};
}

std::vector<Expected> LayerNormQkvProblem::expect(const ProgressFunction& progress) {
  std::vector<Expected> all;
  std::array<Expected*, 3> outputs{};
  all.reserve(3);
  for (std::size_t n = 0; n < 3; ++n) {
    const auto it = case_.out.find(std::string(qkv_names[n]));
    if (it != case_.out.end()) outputs[n] = &all.emplace_back(it->first, it->second);
  }
  const Index elements = batch_ * tokens_ * width_;
  const double lambda = bounds::confidence_multiplier(elements);
  bounds::layer_norm_qkv(
      spec_, in_, contract_, elements,
      [&](Index i, Index o, double value, double worst, double systematic, double sigma, double value_error) {
        Expected* e = outputs[o / width_];
        if (!e) return;
        const Index at = place(i, o);
        ElementBound b = bounds::element_bound(value, worst, systematic, sigma, lambda, 0, e->dtype);
        b.value_error = value_error;
        e->set(at, b);
      });
  progress(1);
  return all;
}

std::vector<Decoy> LayerNormQkvProblem::sampled_answers(const std::string& name, const NormSpec& spec,
                                                        const LayerNormQkvInputs& in,
                                                        double (*rstd)(double v, double eps, double n),
                                                        Index (*order)(Index o, Index heads,
                                                                       Index head_width)) const {
  std::vector<Decoy> answers;
  for (const std::string_view output : qkv_names) {
    if (case_.out.contains(std::string(output))) {
      const bool is_subtle = rstd != nullptr;  // eps and the divisor
      answers.push_back({name, std::string(output), {}, {}, is_subtle});
    }
  }
  Array<double, 1> qkv({3 * width_});
  for (const Index i : sampled_tokens()) {
    ref::NormStats stats = ref::norm_stats(spec, in.norm.x.slice(i));
    if (rstd) {
      NormSpec without_eps = spec;
      without_eps.eps = 0;
      const double root = 1 / ref::norm_stats(without_eps, in.norm.x.slice(i)).rstd;
      stats.rstd = rstd(root * root, spec.eps, static_cast<double>(width_));
    }
    ref::layer_norm_qkv_row(spec, contract_.stored, in, stats, i, qkv.view());
    for (Index o = 0; o < 3 * width_; ++o) {
      for (Decoy& answer : answers) {
        if (answer.output != qkv_names[o / width_]) continue;
        answer.at.push_back(place(i, o));
        answer.value.push_back(qkv(order ? order(o, heads_, head_width_) : o));
      }
    }
  }
  return answers;
}

void LayerNormQkvProblem::recheck(std::span<const Expected> expected) const {
  hold_against_ref(expected, sampled_answers("ref", spec_, in_, nullptr, nullptr));
}

std::vector<Decoy> LayerNormQkvProblem::decoys(std::span<const Expected>) const {
  std::vector<Decoy> all;
  const auto add = [&](const std::string& name, const NormSpec& spec, const LayerNormQkvInputs& in, auto rstd,
                       auto order) {
    for (Decoy& decoy : sampled_answers(name, spec, in, rstd, order)) all.push_back(std::move(decoy));
  };
  const auto with_rstd = [&](const std::string& name, double (*rstd)(double, double, double)) {
    add(name, spec_, in_, rstd, nullptr);
  };
  const auto with_order = [&](const std::string& name, Index (*order)(Index, Index, Index)) {
    add(name, spec_, in_, nullptr, order);
  };
  if (spec_.eps > 0) {
    with_rstd("eps outside the root", [](double v, double eps, double) { return 1 / (std::sqrt(v) + eps); });
    with_rstd("a missing eps", [](double v, double, double) { return 1 / std::sqrt(v); });
  }
  if (width_ > 1) {
    with_rstd("a mean square over N - 1",
              [](double v, double eps, double n) { return 1 / std::sqrt(v * n / (n - 1) + eps); });
    NormSpec rms = spec_;
    rms.is_centred = false;
    add("rms_norm in place of layer_norm", rms, in_, nullptr, nullptr);
  }
  LayerNormQkvInputs wrong = in_;
  wrong.norm.weight = {};
  if (in_.norm.weight) add("no weight", spec_, wrong, nullptr, nullptr);
  wrong = in_;
  wrong.norm.bias = {};
  if (in_.norm.bias) add("no bias", spec_, wrong, nullptr, nullptr);
  wrong = in_;
  wrong.qkv_bias = {};
  if (in_.qkv_bias) add("no qkv_bias", spec_, wrong, nullptr, nullptr);
  with_order("queries and keys exchanged", [](Index o, Index heads, Index width) {
    const Index m = heads * width;
    return o < m ? o + m : o < 2 * m ? o - m : o;
  });
  if (heads_ > 1) {
    with_order("qkv_weight as heads of q, k, v", [](Index o, Index heads, Index width) {
      const Index m = heads * width, which = o / m, h = o % m / width;
      return (h * 3 + which) * width + o % width;
    });
  }
  return all;
}

Op layer_norm_qkv_op() {
  using enum PortType;
  return {
      "layer_norm_qkv",
      "LayerNorm, then one linear layer for queries, keys and values, split into heads.",
      {
          {"x", "B S M", floating, true, "tokens"},
          {"weight", "M", floating, false, "of the norm; 1 if absent"},
          {"bias", "M", floating, false, "of the norm; 0 if absent"},
          {"qkv_weight", "3M M", floating, true,
           "outputs x inputs: rows of the queries, the keys, the values; of each, rows [h D, (h + 1) D) are "
           "head h"},
          {"qkv_bias", "3M", floating, false, "0 if absent"},
      },
      {
          {"q", "B H S D", floating, false, "queries; D = M / H"},
          {"k", "B H S D", floating, false, "keys"},
          {"v", "B H S D", floating, false, "values"},
      },
      {
          {"eps", "number", "", "added to the variance, under the root"},
          {"heads", "integer", "", "H, a divisor of M"},
          {"layout", "bhsd, bshd", "bhsd", "order of the axes of q, k and v"},
      },
      {
          {"compute_dtype", "element type", "float32, or float64 for float64 inputs",
           "what every operation of the norm rounds to", "bfloat16"},
          variance_contract_key(),
          {"intermediate_dtype", "element type", "that of in/x",
           "the normalised x as it is stored before the product; that store is replayed", "float8_e5m2"},
          {"accumulate", "element type", "float32, or float64 for float64 inputs", "sums of the product",
           "bfloat16"},
      },
      [](const Case& c) -> std::unique_ptr<Problem> { return std::make_unique<LayerNormQkvProblem>(c); },
      layer_norm_qkv_inputs(),
  };
}

}  // namespace attest
