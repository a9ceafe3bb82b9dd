// Cases in memory: inputs of many kinds, and what an emulated kernel makes of them.
#include "tests/emulate/cases.hpp"

#include <algorithm>
#include <limits>

#include "tests/emulate/tensors.hpp"
#include "tests/support/random.hpp"

namespace attest::emulate {
namespace {

std::string_view name_of(Causal causal) {
  return causal == Causal::none ? "none" : causal == Causal::top_left ? "top_left" : "bottom_right";
}

/// Rows of `width` columns; `at` is the flat index.
void shape_values(const Setup& setup, test::Random& random, Tensor& q, Tensor& k, Tensor& v) {
  const Index width = setup.width, v_width = setup.v_width;
  for (double& x : q.values) x = normal(random);
  for (double& x : k.values) x = normal(random);
  for (double& x : v.values) x = normal(random);
  const auto each = [](Tensor& t, auto change) {
    for (Index at = 0; at < t.size(); ++at) t.values[at] = change(t.values[at], at);
  };
  switch (setup.distribution) {
    case Distribution::normal:
      break;
    case Distribution::uniform:
      each(q, [&](double, Index) { return 1.7 * random.symmetric(); });
      each(k, [&](double, Index) { return 1.7 * random.symmetric(); });
      each(v, [&](double, Index) { return 0.5 + 0.5 * random.symmetric(); });
      break;
    case Distribution::large:
      each(q, [](double x, Index) { return 6 * x; });
      each(k, [](double x, Index) { return 6 * x; });
      each(v, [](double x, Index) { return 30 * x; });
      break;
    case Distribution::outlier:
      each(q, [&](double x, Index at) { return at % width < 3 ? 20 * x : x; });
      each(k, [&](double x, Index at) { return at % width < 3 ? 4 * x : x; });
      each(v, [&](double x, Index at) { return at % v_width == 5 ? 60 * x : x; });
      break;
    case Distribution::spiky:
      each(q, [&](double x, Index at) {
        const Index h = at / (setup.queries * width), i = at / width % setup.queries;
        const Index g = h * setup.kv_heads / setup.q_heads, j = i * setup.keys / setup.queries;
        return 1.2 * k.values[(g * setup.keys + j) * width + at % width] + 0.3 * x;
      });
      break;
    case Distribution::near_uniform:
      each(q, [](double x, Index) { return 0.01 * x; });
      each(k, [](double x, Index) { return 0.01 * x; });
      each(v, [](double x, Index) { return 1 + 0.1 * x; });
      break;
    case Distribution::repeated_keys:
      each(k, [&](double x, Index at) {
        const Index j = at / width % setup.keys;
        return j < 4 ? x : k.values[at - (j - j * 7 % 4) * width];
      });
      each(v, [](double x, Index) { return 1 + 0.2 * x; });
      break;
    case Distribution::constant_v:
      each(v, [](double, Index) { return 0.7310585; });
      break;
    case Distribution::cancelling:
      each(q, [](double x, Index) { return 20 + 0.1 * x; });
      each(k, [](double x, Index at) { return (at % 2 == 1 ? -20 : 20) + 0.1 * x; });
      each(v, [&](double x, Index at) { return (at / v_width % 2 == 1 ? -100 : 100) + 0.01 * x; });
      break;
    case Distribution::unit:
      for (Tensor* t : {&q, &k, &v}) each(*t, [&](double, Index) { return 0.5 + 0.5 * random.symmetric(); });
      break;
  }
}

}  // namespace

std::string_view name_of(Distribution distribution) {
  static constexpr std::string_view names[] = {"normal",     "uniform",      "large",         "outlier",
                                               "spiky",      "near uniform", "repeated keys", "constant v",
                                               "cancelling", "unit"};
  return names[static_cast<int>(distribution)];
}

std::string Setup::text() const {
  std::string features;
  if (has_mask) features += " mask";
  if (has_alibi) features += " alibi";
  if (has_sink) features += " sink";
  if (!bias_shape.empty()) features += " bias";
  if (spec.softcap > 0) features += " softcap";
  if (spec.window_left >= 0 || spec.window_right >= 0) features += " window";
  return std::string(format_of(element).name) + " " + std::string(name_of(distribution)) + ", " +
         std::to_string(q_heads) + "/" + std::to_string(kv_heads) + " heads, " + std::to_string(queries) +
         " x " + std::to_string(keys) + ", widths " + std::to_string(width) + " and " +
         std::to_string(v_width) + ", causal " + std::string(name_of(spec.causal)) + features + ", seed " +
         std::to_string(seed);
}

Case inputs_of(const Setup& setup, DType p_dtype) {
  Case c;
  c.file = "emulated.h5";
  c.name = "case";
  c.op = "attention";
  c.spec = {{"causal", std::string(name_of(setup.spec.causal))},
            {"scale", setup.spec.scale},
            {"window_left", std::int64_t{setup.spec.window_left}},
            {"window_right", std::int64_t{setup.spec.window_right}},
            {"softcap", setup.spec.softcap},
            {"alibi", setup.spec.alibi == Alibi::position ? "position" : "distance"}};
  if (p_dtype != setup.element) c.contract = {{"p_dtype", std::string(format_of(p_dtype).name)}};

  test::Random random(setup.seed);
  Tensor q = tensor_of(setup.element, {1, setup.q_heads, setup.queries, setup.width});
  Tensor k = tensor_of(setup.element, {1, setup.kv_heads, setup.keys, setup.width});
  Tensor v = tensor_of(setup.element, {1, setup.kv_heads, setup.keys, setup.v_width});
  Tensor d_o = tensor_of(setup.element, {1, setup.q_heads, setup.queries, setup.v_width});
  shape_values(setup, random, q, k, v);
  for (double& x : d_o.values) x = normal(random);
  c.in = {{"q", q}, {"k", k}, {"v", v}, {"do", d_o}};
  if (setup.has_alibi) {
    Tensor& slopes = c.in["alibi_slopes"] = tensor_of(DType::float32, {setup.q_heads});
    for (Index h = 0; h < setup.q_heads; ++h) slopes.values[h] = 0.25 / static_cast<double>(h + 1);
  }
  if (setup.has_sink) {
    Tensor& sink = c.in["sink"] = tensor_of(DType::float32, {setup.q_heads});
    for (double& x : sink.values) x = 1 + normal(random);
  }
  if (!setup.bias_shape.empty()) {
    Tensor& bias = c.in["bias"] = tensor_of(setup.element, setup.bias_shape);
    for (double& x : bias.values) x = normal(random);
  }
  for (auto& [name, tensor] : c.in) {
    for (double& x : tensor.values) x = round_to(x, *tensor.dtype);
  }
  if (setup.has_mask) {
    Tensor mask{"bool", std::nullopt, {1, 1, setup.queries, setup.keys}, {}};
    for (Index n = 0; n < mask.size(); ++n) {
      const bool row_is_empty = n / setup.keys == setup.queries / 2;
      mask.values.push_back(row_is_empty || random.one_in(4) ? 0 : 1);
    }
    c.in["mask"] = mask;
  }
  return c;
}

AttentionInputs views_of(const Case& c) {
  const auto view = [&](const std::string& name) {
    const Tensor& t = c.in.at(name);
    return View<const double, 3>{t.values.data(), {t.shape[1], t.shape[2], t.shape[3]}};
  };
  AttentionInputs in{view("q"), view("k"), view("v"), {}, {}, {}, {}, 0};
  const auto broadcast = [&](const std::string& name) {
    const Tensor& t = c.in.at(name);
    return View<const double, 3>{t.values.data(),
                                 {in.q_heads(), in.queries(), in.keys()},
                                 {t.shape[1] > 1 ? t.shape[2] * t.shape[3] : 0,
                                  t.shape[2] > 1 ? t.shape[3] : 0, t.shape[3] > 1 ? 1 : 0}};
  };
  if (c.in.contains("mask")) in.mask = broadcast("mask");
  if (c.in.contains("bias")) in.bias = broadcast("bias");
  if (c.in.contains("sink")) in.sink = {c.in.at("sink").values.data(), {in.q_heads()}};
  if (c.in.contains("alibi_slopes"))
    in.alibi_slopes = {c.in.at("alibi_slopes").values.data(), {in.q_heads()}};
  return in;
}

void store(Case& c, const Results& results, const std::vector<std::string>& outputs, DType element,
           DType p_dtype) {
  const DType wide = element == DType::float64 ? element : DType::float32;
  const auto shape = [&](const std::string& name) { return c.in.at(name).shape; };
  const std::vector<Index> o = {1, shape("q")[1], shape("q")[2], shape("v")[3]};
  const std::vector<Index> rows = {1, shape("q")[1], shape("q")[2]};
  const std::vector<Index> scores = {1, shape("q")[1], shape("q")[2], shape("k")[2]};
  c.out.clear();
  const auto add = [&](const std::string& name, DType dtype, const std::vector<Index>& extents,
                       const std::vector<double>& values) {
    if (values.empty() || std::find(outputs.begin(), outputs.end(), name) == outputs.end()) return;
    c.out[name] = Tensor{std::string(format_of(dtype).name), dtype, extents, values};
  };
  add("o", element, o, results.o);
  add("lse", wide, rows, results.lse);
  add("m", wide, rows, results.m);
  add("l", wide, rows, results.l);
  add("s", wide, scores, results.s);
  add("p", p_dtype, scores, results.p);
  add("dq", element, shape("q"), results.dq);
  add("dk", element, shape("k"), results.dk);
  add("dv", element, shape("v"), results.dv);
  if (c.in.contains("bias")) add("dbias", element, shape("bias"), results.dbias);
  if (c.in.contains("sink")) add("dsink", wide, shape("sink"), results.dsink);
}

Case dump_of(const Setup& setup, const Kernel& kernel, bool with_gradients,
             const std::vector<std::string>& outputs) {
  Case c = inputs_of(setup, kernel.p_dtype);
  if (!with_gradients) c.in.erase("do");
  View<const double, 3> d_o;
  if (with_gradients) d_o = {c.in.at("do").values.data(), {setup.q_heads, setup.queries, setup.v_width}};
  store(c, run(kernel, setup.spec, views_of(c), d_o, setup.element), outputs, setup.element, kernel.p_dtype);
  return c;
}

}  // namespace attest::emulate
