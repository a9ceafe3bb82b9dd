// Features of multihead_attention.
#include "tests/oracle/multihead_attention.hpp"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>

#include "tests/coverage/attention_arithmetic.hpp"
#include "tests/coverage/feature.hpp"
#include "tests/coverage/tensors.hpp"

namespace attest::coverage {
namespace {

constexpr long double nan = std::numeric_limits<long double>::quiet_NaN();

/// One batch entry's rows, copied out of [length, B, M] or [B, length, M].
Array<double, 2> rows_of(const Tensor& t, bool batch_first, Index b) {
  const Index length = t.shape[batch_first ? 1 : 0], batch = t.shape[batch_first ? 0 : 1], width = t.shape[2];
  Array<double, 2> rows({length, width});
  for (Index i = 0; i < length; ++i) {
    for (Index m = 0; m < width; ++m)
      rows(i, m) = t.values[(batch_first ? b * length + i : i * batch + b) * width + m];
  }
  return rows;
}

struct Sizes {
  Index batch, queries, keys, width, heads;
};

void answer_entry(const Case& c, const Sizes& n, Index b, bool batch_first, Answers& all) {
  const auto given = [&](const char* name) -> const Tensor& {
    return c.in.contains("x") ? c.in.at("x") : c.in.at(name);
  };
  const Array<double, 2> query = rows_of(given("query"), batch_first, b),
                         key = rows_of(given("key"), batch_first, b),
                         value = rows_of(given("value"), batch_first, b);
  const auto vector = [&](const char* name) {
    const Tensor* t = c.input(name);
    return t ? View<const double, 1>{t->values.data(), {t->size()}} : View<const double, 1>{};
  };
  Array<double, 3> mask({n.heads, n.queries, n.keys}, 1);
  if (const Tensor* t = c.input("mask")) {
    const Broadcast at(t->shape);
    for (Index h = 0; h < n.heads; ++h) {
      for (Index i = 0; i < n.queries; ++i) {
        for (Index j = 0; j < n.keys; ++j) mask(h, i, j) = t->values[at(b, h, i, j)];
      }
    }
  }
  const std::string causal = text_of(c, "causal", "");
  const Index offset = causal == "top_left"       ? 0
                       : causal == "bottom_right" ? n.keys - n.queries
                                                  : n.keys + n.queries;
  const double scale = number_of(c, "scale", 1 / std::sqrt(static_cast<double>(n.width / n.heads)));
  const oracle::Multihead right =
      oracle::multihead_attention({query.view(),
                                   key.view(),
                                   value.view(),
                                   {c.in.at("in_proj_weight").values.data(), {3 * n.width, n.width}},
                                   {c.in.at("out_proj_weight").values.data(), {n.width, n.width}},
                                   vector("in_proj_bias"),
                                   vector("out_proj_bias"),
                                   mask.view(),
                                   n.heads,
                                   scale,
                                   offset});

  // The oracle's errors are those of a reference in double, 2^11 times smaller, for twice the roundings.
  constexpr long double finer = 0x1p-10L;
  const bool is_nan = text_of(c, "empty_row", "zero") == "nan",
             averages = flag_of(c, "average_weights", true);
  for (Index i = 0; i < n.queries; ++i) {
    bool row_is_empty = false;  // in some head
    for (Index h = 0; h < n.heads; ++h) {
      bool sees = false;
      for (Index j = 0; j < n.keys; ++j) sees |= mask(h, i, j) != 0 && j <= i + offset;
      row_is_empty |= !sees;
      for (Index j = 0; all.contains("weights") && j < n.keys; ++j) {
        Answer& weights = all.at("weights");
        const Index plane = averages ? b : b * n.heads + h, at = (plane * n.queries + i) * n.keys + j;
        const long double share = averages ? 1 / static_cast<long double>(n.heads) : 1;
        weights.value[at] += !sees && is_nan ? nan : share * right.weights(h, i, j);
        weights.error[at] += finer * share * right.weights_error(h, i, j);
      }
    }
    for (Index m = 0; all.contains("y") && m < n.width; ++m) {
      const Index row = batch_first ? b * n.queries + i : i * n.batch + b;
      all.at("y").value[row * n.width + m] = row_is_empty && is_nan ? nan : right.y(i, m);
      all.at("y").error[row * n.width + m] = finer * right.y_error(i, m);
    }
  }
}

Answers answers(const Case& c) {
  Answers all;
  for (const auto& [name, tensor] : c.out) all.emplace(name, Answer(tensor));
  const bool batch_first = text_of(c, "layout", "") == "blm", is_self = c.in.contains("x");
  const Shape &q = c.in.at(is_self ? "x" : "query").shape, &k = c.in.at(is_self ? "x" : "key").shape;
  const Index length = batch_first ? 1 : 0;
  const Sizes n{q[1 - length], q[length], k[length], q[2], static_cast<Index>(number_of(c, "heads", 0))};
  for (Index b = 0; b < n.batch; ++b) answer_entry(c, n, b, batch_first, all);
  return all;
}

std::vector<Feature> features(DType element) {
  std::vector<Feature> all;
  const Index b = 2, s = 9, keys = 11, m = 24, h = 3;
  const auto add = [&](const std::string& name, const std::function<void(Case&)>& change) {
    test::Random random(seed_of(name));
    Case& c = all.emplace_back(Feature{name, {}}).c;
    c.op = "multihead_attention";
    c.spec = {{"heads", std::int64_t{h}}, {"causal", "none"}, {"layout", "lbm"}};
    c.in["x"] = normal(random, element, {s, b, m});
    c.in["in_proj_weight"] = normal(random, element, {3 * m, m}, 0.3);
    c.in["in_proj_bias"] = normal(random, element, {3 * m}, 0.5);
    c.in["out_proj_weight"] = normal(random, element, {m, m}, 0.2);
    c.in["out_proj_bias"] = normal(random, element, {m}, 0.5);
    c.out["y"] = blank(element, {s, b, m});
    c.out["weights"] = blank(element, {b, s, s});
    change(c);
  };
  const auto cross = [&](Case& c, bool batch_first) {
    test::Random random(77);
    const auto shape = [&](Index length) { return batch_first ? Shape{b, length, m} : Shape{length, b, m}; };
    c.in.erase("x");
    c.in["query"] = normal(random, element, shape(s));
    c.in["key"] = normal(random, element, shape(keys));
    c.in["value"] = normal(random, element, shape(keys));
    c.spec["layout"] = batch_first ? "blm" : "lbm";
    c.out["y"].shape = shape(s);
    c.out["weights"].shape = {b, s, keys};
  };
  const auto mask = [&](Case& c, const Shape& shape) {
    test::Random random(7);
    c.in["mask"] = booleans(random, shape);
  };
  add("self-attention, length first", [](Case&) {});
  add("self-attention, batch first", [&](Case& c) {
    c.spec["layout"] = "blm";
    c.in["x"].shape = c.out["y"].shape = {b, s, m};
  });
  add("cross-attention, length first", [&](Case& c) { cross(c, false); });
  add("cross-attention, batch first", [&](Case& c) { cross(c, true); });
  add("causal = top_left", [&](Case& c) {
    cross(c, false);
    c.spec["causal"] = "top_left";
  });
  add("causal = bottom_right", [&](Case& c) {
    cross(c, true);
    c.spec["causal"] = "bottom_right";
  });
  add("no biases", [](Case& c) { c.in.erase("in_proj_bias"), c.in.erase("out_proj_bias"); });
  add("scale", [](Case& c) { c.spec["scale"] = 0.5; });
  add("weights of every head", [&](Case& c) {
    c.spec["average_weights"] = false;
    c.out["weights"].shape = {b, h, s, s};
  });
  add("mask", [&](Case& c) { mask(c, {b, h, s, s}); });
  add("mask that broadcasts", [&](Case& c) { mask(c, {b, 1, 1, s}); });
  const auto empty_row = [&](Case& c) {
    mask(c, {s, s});
    std::fill_n(c.in["mask"].values.begin() + 2 * s, s, 0.0);
  };
  add("empty rows, zero", empty_row);
  add("empty rows, NaN", [&](Case& c) {
    empty_row(c);
    c.spec["empty_row"] = "nan";
    c.spec["average_weights"] = false;
    c.out["weights"].shape = {b, h, s, s};
  });
  for (const DeclaredArithmetic& x : attention_arithmetic()) add(x.name, x);
  const auto declared = [&](const std::string& name, const char* key, const Attribute& value) {
    add(name, [=](Case& c) { c.contract[key] = value; });
  };
  declared("q, k, v and o in bfloat16", "intermediate_dtype", "bfloat16");
  declared("projections added up in float64", "accumulate", "float64");
  declared("tanh within 1e-4", "tanh_error", 1e-4);
  return all;
}

}  // namespace

const Suite multihead_attention_suite = {"multihead_attention", "tests/oracle/multihead_attention.cpp",
                                         features, answers};

}  // namespace attest::coverage
