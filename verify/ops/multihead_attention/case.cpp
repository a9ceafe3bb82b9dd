// Reads a multihead_attention case: spec, shapes and values have to fit together.
#include "verify/ops/multihead_attention/case.hpp"

#include <cmath>

#include "core/invalid_case.hpp"
#include "verify/text.hpp"

namespace attest {

MultiheadCase::MultiheadCase(const Case& c) : case_(c), extents_(c) {
  read_spec();
  read_shapes();
  check_values();
}

void MultiheadCase::read_spec() {
  KeyReader keys_of_spec(case_, "spec", case_.spec);
  spec.causal = keys_of_spec.choice<Causal>(
      "causal",
      {{"none", Causal::none}, {"top_left", Causal::top_left}, {"bottom_right", Causal::bottom_right}});
  batch_first_ = keys_of_spec.choice<bool>("layout", {{"lbm", false}, {"blm", true}});
  heads = keys_of_spec.integer("heads", 0);
  spec.scale = keys_of_spec.number("scale", 0);
  spec.empty_row = keys_of_spec.choice<EmptyRow>(
      "empty_row", {{"zero", EmptyRow::zero}, {"nan", EmptyRow::nan}}, EmptyRow::zero);
  average_weights = keys_of_spec.boolean("average_weights", true);
  keys_of_spec.finish();
  if (heads < 1) {
    throw InvalidCase(case_.object("spec") + " attribute heads is " +
                      (keys_of_spec.has("heads") ? std::to_string(heads) : "missing") +
                      "; at least 1 is expected");
  }
}

void MultiheadCase::read_shapes() {
  const Tensor* x = case_.input("x");
  query_ = x ? x : case_.input("query");
  key_ = x ? x : case_.input("key");
  value_ = x ? x : case_.input("value");
  for (const std::string name : {"query", "key", "value"}) {
    if (x && case_.input(name)) {
      throw InvalidCase(case_.object("in/" + name) +
                        " is given beside in/x; either in/x or in/query, in/key " +
                        "and in/value are expected");
    }
    if (!x && !case_.input(name)) {
      throw InvalidCase(case_.object("in/" + name) +
                        " is missing; in/x or in/query, in/key and in/value are " + "expected");
    }
  }
  const auto pattern = [&](const std::string& length) {
    return batch_first_ ? "B " + length + " M" : length + " B M";
  };
  if (x) {
    extents_.unify(pattern("Sq"), *x, "in/x");
    extents_.bind("Sk", extents_["Sq"], "in/x");
  } else {
    extents_.unify(pattern("Sq"), *query_, "in/query");
    extents_.unify(pattern("Sk"), *key_, "in/key");
    extents_.unify(pattern("Sk"), *value_, "in/value");
  }
  batch = extents_["B"];
  queries = extents_["Sq"];
  keys = extents_["Sk"];
  width = extents_["M"];
  if (width % heads != 0) {
    throw InvalidCase(case_.object("spec") + " attribute heads is " + std::to_string(heads) +
                      ", which does not divide M = " + std::to_string(width));
  }
  if (!case_.spec.contains("scale")) spec.scale = 1 / std::sqrt(static_cast<double>(width / heads));

  extents_.bind("3M", 3 * width, x ? "in/x" : "in/query");
  extents_.unify("3M M", *case_.input("in_proj_weight"), "in/in_proj_weight");
  extents_.unify("M M", *case_.input("out_proj_weight"), "in/out_proj_weight");
  if (const Tensor* bias = case_.input("in_proj_bias")) extents_.unify("3M", *bias, "in/in_proj_bias");
  if (const Tensor* bias = case_.input("out_proj_bias")) extents_.unify("M", *bias, "in/out_proj_bias");

  const auto fits = [](const std::vector<Index>& shape, const std::vector<Index>& full) {
    if (shape.size() > full.size()) return false;
    for (std::size_t axis = 0; axis < shape.size(); ++axis) {
      const Index extent = shape[shape.size() - 1 - axis];
      if (extent != 1 && extent != full[full.size() - 1 - axis]) return false;
    }
    return true;
  };
  const std::vector<Index> scores = {batch, heads, queries, keys};
  if (const Tensor* mask = case_.input("mask"); mask && !fits(mask->shape, scores)) {
    throw InvalidCase(case_.object("in/mask") + " has shape " + shape_text(mask->shape) +
                      ", which does not broadcast to [B, H, Sq, Sk] = " + shape_text(scores));
  }
  if (const auto y = case_.out.find("y"); y != case_.out.end())
    extents_.unify(pattern("Sq"), y->second, "out/y");
  if (const auto weights = case_.out.find("weights"); weights != case_.out.end()) {
    extents_.bind("H", heads, "spec attribute heads");
    extents_.unify(average_weights ? "B Sq Sk" : "B H Sq Sk", weights->second, "out/weights");
  }
}

void MultiheadCase::check_values() const {
  for (const auto& [name, tensor] : case_.in) {
    for (Index n = 0; n < tensor.size(); ++n) {
      const double value = tensor.values[n];
      if (name == "mask" ? value == 0 || value == 1 : std::isfinite(value)) continue;
      std::vector<Index> at(tensor.shape.size());
      for (Index axis = static_cast<Index>(at.size()) - 1, rest = n; axis >= 0; rest /= tensor.shape[axis--])
        at[axis] = rest % tensor.shape[axis];
      const std::string found = std::isnan(value)   ? "NaN"
                                : std::isinf(value) ? "an infinity"
                                                    : number_text(value, 6);
      throw InvalidCase(case_.object("in/" + name) + " holds " + found + " at " + shape_text(at) + "; " +
                        (name == "mask" ? "0 or 1 is" : "finite values are") + " expected");
    }
  }
}

ref::MultiheadInputs MultiheadCase::entry(Index b) const {
  ref::MultiheadInputs in;
  in.query = rows(query_->values.data(), queries, b);
  in.key = rows(key_->values.data(), keys, b);
  in.value = rows(value_->values.data(), keys, b);
  in.in_weight = {case_.input("in_proj_weight")->values.data(), {3 * width, width}};
  in.out_weight = {case_.input("out_proj_weight")->values.data(), {width, width}};
  if (const Tensor* bias = case_.input("in_proj_bias")) in.in_bias = {bias->values.data(), {3 * width}};
  if (const Tensor* bias = case_.input("out_proj_bias")) in.out_bias = {bias->values.data(), {width}};
  if (const Tensor* mask = case_.input("mask")) {
    Index stride[4] = {0, 0, 0, 0}, step = 1;
    for (std::size_t axis = 0; axis < mask->shape.size(); ++axis) {
      const Index extent = mask->shape[mask->shape.size() - 1 - axis];
      if (extent > 1) stride[3 - axis] = step;
      step *= extent;
    }
    in.mask = {
        mask->values.data() + b * stride[0], {heads, queries, keys}, {stride[1], stride[2], stride[3]}};
  }
  return in;
}

ref::MultiheadInputs MultiheadCase::across_batch(Index i) const {
  ref::MultiheadInputs in = entry(0);
  const Index step = batch_first_ ? queries * width : width;
  in.query = in.key = in.value = {&in.query(i, 0), {batch, width}, {step, 1}};
  in.mask = {};
  return in;
}

}  // namespace attest
