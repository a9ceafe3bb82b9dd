// Features of layer_norm_qkv.
#include "tests/oracle/layer_norm_qkv.hpp"

#include <cmath>
#include <functional>

#include "tests/coverage/feature.hpp"
#include "tests/coverage/tensors.hpp"

namespace attest::coverage {
namespace {

/// What the normalised x is stored in before the product; none if that is as wide as its arithmetic.
std::optional<DType> stored_type(const Case& c) {
  const auto declared = c.contract.find("intermediate_dtype");
  const DType dtype = declared == c.contract.end()
                          ? *c.in.at("x").dtype
                          : dtype_named(std::get<std::string>(declared->second)).value();
  const DType compute = c.contract.contains("compute_dtype") ? DType::float64 : DType::float32;
  if (format_of(dtype).precision >= format_of(compute).precision) return std::nullopt;
  return dtype;
}

Answers answers(const Case& c) {
  const Shape& shape = c.in.at("x").shape;
  const Index batch = shape[0], length = shape[1], width = shape[2],
              heads = static_cast<Index>(number_of(c, "heads", 0)), head_width = width / heads;
  const auto vector = [&](const char* name) {
    const Tensor* t = c.input(name);
    return t ? View<const double, 1>{t->values.data(), {t->size()}} : View<const double, 1>{};
  };
  LayerNormQkvInputs in;
  in.norm = {{c.in.at("x").values.data(), {batch * length, width}}, vector("weight"), vector("bias")};
  in.qkv_weight = {c.in.at("qkv_weight").values.data(), {3 * width, width}};
  in.qkv_bias = vector("qkv_bias");
  const NormSpec spec{true, number_of(c, "eps", 0), 0, {}};
  const std::optional<DType> stored = stored_type(c);
  const oracle::LayerNormQkv right = oracle::layer_norm_qkv(spec, in, stored);
  const long double n = static_cast<long double>(width);

  const Place place(text_of(c, "layout", "bhsd"), batch, heads, length, head_width);
  Answers all;
  for (const auto& [name, tensor] : c.out) {
    Answer& answer = all.emplace(name, Answer(tensor)).first->second;
    const Index first = name == "q" ? 0 : name == "k" ? width : 2 * width;
    for (Index t = 0; t < batch * length; ++t) {
      for (Index m = 0; m < width; ++m) {
        const Index at = place(t / length, m / head_width, t % length, m % head_width);
        long double magnitude = 0;
        for (Index j = 0; j < width; ++j)
          magnitude += (1 + std::abs(right.y(t, j))) * std::abs(in.qkv_weight(first + m, j));
        answer.value[at] = right.qkv(t, first + m);
        // The products; and, where it is not rounded, the norm: n^2 / 2 squares, x below 8 deviations.
        const long double of_norm = stored ? 0 : 16 * (n * n + 16);
        answer.error[at] = oracle_unit * (n + 4 + of_norm) * (magnitude + 1);
      }
    }
  }
  return all;
}

std::vector<Feature> features(DType element) {
  std::vector<Feature> all;
  const Index b = 2, s = 3, m = 15, h = 3, d = 5;
  const auto add = [&](const std::string& name, const std::function<void(Case&)>& change) {
    test::Random random(seed_of(name));
    Case& c = all.emplace_back(Feature{name, {}}).c;
    c.op = "layer_norm_qkv";
    c.spec = {{"eps", 1e-3}, {"heads", std::int64_t{h}}};
    c.in["x"] = normal(random, element, {b, s, m}, 1, 0.5);
    for (Index j = 0; j < m; ++j)  // a token of which eps is a part
      c.in["x"].values[j] = round_to(c.in["x"].values[j] / 32, element);
    c.in["weight"] = normal(random, element, {m}, 0.3, 1);
    c.in["bias"] = normal(random, element, {m}, 0.5);
    c.in["qkv_weight"] = normal(random, element, {3 * m, m}, 0.25);
    c.in["qkv_bias"] = normal(random, element, {3 * m}, 0.5);
    c.out["q"] = c.out["k"] = c.out["v"] = blank(element, {b, h, s, d});
    change(c);
  };
  add("heads outside", [](Case&) {});
  add("heads inside", [&](Case& c) {
    c.spec["layout"] = "bshd";
    for (auto& [name, tensor] : c.out) tensor.shape = {b, s, h, d};
  });
  add("neither weight nor biases", [](Case& c) {
    for (const char* name : {"weight", "bias", "qkv_bias"}) c.in.erase(name);
  });
  add("one head, one token", [&](Case& c) {
    c.spec["heads"] = std::int64_t{1};
    c.in["x"].shape = {1, 1, m};
    c.in["x"].values.erase(c.in["x"].values.begin() + m, c.in["x"].values.end());
    for (auto& [name, tensor] : c.out) tensor.shape = {1, 1, 1, m};
  });
  const auto declared = [&](const std::string& name, const char* key, const char* value) {
    add(name, [=](Case& c) { c.contract[key] = value; });
  };
  declared("the norm in float64", "compute_dtype", "float64");
  declared("the norm stored in bfloat16", "intermediate_dtype", "bfloat16");
  declared("the product added up in float64", "accumulate", "float64");
  declared("variance in one pass", "variance", "one_pass");
  declared("variance in two passes", "variance", "two_pass");
  return all;
}

}  // namespace

const Suite layer_norm_qkv_suite = {"layer_norm_qkv", "tests/oracle/layer_norm_qkv.cpp", features, answers};

}  // namespace attest::coverage
