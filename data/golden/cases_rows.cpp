// Cases of softmax, activations, norms and rotary embeddings.
#include <cmath>
#include <limits>

#include "data/golden/builder.hpp"

namespace attest::golden {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
const std::vector<std::string> softmax_outputs = {"y", "lse", "m", "l", "dx"};
using enum DType;

constexpr DType all_types[] = {float64, float32, float16, bfloat16, float8_e4m3fn, float8_e5m2};

std::string short_name(DType dtype) {
  constexpr const char* names[] = {"f64", "f32", "f16", "bf16", "e4m3", "e5m2"};
  return names[static_cast<std::size_t>(dtype)];
}

}  // namespace

std::vector<GoldenCase> softmax_cases(std::uint64_t seed) {
  std::vector<GoldenCase> all;
  const auto add = [&](const std::string& name, DType element, std::vector<Index> shape, double deviation,
                       const std::string& purpose) {
    Builder builder(name, "softmax", element, seed, purpose);
    builder.normal("x", shape, deviation).normal("dy", shape).outputs(softmax_outputs);
    return builder;
  };
  for (const DType element : all_types) {
    all.push_back(add("plain_" + short_name(element), element, {3, 9}, 2, "rows of nine"));
  }
  all.push_back(add("one", float32, {2, 1}, 1, "rows of one: y = 1, dx = 0 exactly"));
  all.push_back(
      add("axis", float32, {2, 5, 3}, 2, "along the axis in the middle").spec("axis", std::int64_t{1}));
  all.push_back(add("scale", bfloat16, {3, 7}, 2, "with a scale").spec("scale", 0.3125));
  all.push_back(add("clamp", float16, {3, 8}, 4, "limited to [-2, 2] first").spec("clamp", 2.0));
  all.push_back(add("mask", float16, {4, 8}, 2, "a mask that leaves one row nothing")
                    .mask("mask", {4, 8}, 0.6)
                    .change("mask", [](std::vector<double>& mask) {
                      for (std::size_t n = 8; n < 16; ++n) mask[n] = 0;
                    }));
  all.push_back(add("empty_nan", bfloat16, {3, 4}, 2, "-inf in x; a row of nothing else is NaN")
                    .spec("empty_row", "nan")
                    .change("x", [](std::vector<double>& x) {
                      for (const std::size_t n : {1, 4, 5, 6, 7}) x[n] = -infinity;
                    }));
  all.push_back(add("without_maximum", float32, {3, 8}, 2, "m = 0, l the plain sum of exponentials")
                    .spec("subtract_max", false));
  all.push_back(add("ties", float16, {4, 16}, 1, "maxima that repeat").whole("x", {4, 16}, -2, 2));
  all.push_back(
      add("equal", float16, {2, 16}, 1, "sixteen equal scores: 1/16 exactly").values("x", {2, 16}, [](Index) {
        return 0.3;
      }));
  all.push_back(
      add("constant_dy", float32, {2, 11}, 2, "a gradient that is the same everywhere: dx = 0 exactly")
          .values("dy", {2, 11}, [](Index) { return 1.5; }));
  all.push_back(add("far", float32, {2, 9}, 400, "scores hundreds apart: weights underflow"));
  all.push_back(add("large", float16, {2, 9}, 20000, "scores of tens of thousands"));
  for (const Index n : {127, 128, 129}) {
    all.push_back(add("row_" + std::to_string(n), float16, {2, n}, 2, "rows around 128"));
  }
  return all;
}

std::vector<GoldenCase> activation_cases(std::uint64_t seed) {
  std::vector<GoldenCase> all;
  const auto add = [&](const std::string& op, const std::string& kind, const std::string& name) {
    for (const DType element : all_types) {
      Builder builder(name + "_" + short_name(element), op, element, seed,
                      "points from -8 to 8, tails and zero");
      if (!kind.empty()) builder.spec("approximate", kind);
      builder.normal("x", {48}, 3).change("x", [&](std::vector<double>& x) {
        const double smallest = ulp(0, element), largest = std::fmin(format_of(element).max, 1e5);
        const double points[] = {0, smallest, -smallest, 1, -1, 5.5, -5.5, 9, -9, 20, -20, largest, -largest};
        for (std::size_t n = 0; n < std::size(points); ++n) x[n] = points[n];
      });
      all.push_back(builder.normal("dy", {48}).outputs({"y", "dx"}));
    }
  };
  add("gelu", "none", "gelu_erf");
  add("gelu", "tanh", "gelu_tanh");
  add("gelu", "quick", "gelu_quick");
  add("silu", "", "silu");
  add("sigmoid", "", "sigmoid");
  return all;
}

namespace {

Builder norm_case(const std::string& op, const std::string& name, DType element, std::uint64_t seed,
                  std::vector<Index> shape, double mean, const std::string& purpose) {
  const Index width = shape.back();
  Builder builder(op + "_" + name, op, element, seed, purpose);
  builder.spec("eps", 0x1p-17).normal("x", shape, 1, mean).normal("dy", shape);
  builder.normal("weight", {width}, 0.25, 1).outputs({"y", "rstd", "dx", "dweight"});
  if (op == "layer_norm") builder.normal("bias", {width}, 0.25).outputs({"mean", "dbias"});
  return builder;
}

}  // namespace

std::vector<GoldenCase> norm_cases(std::uint64_t seed) {
  std::vector<GoldenCase> all;
  for (const std::string op : {"rms_norm", "layer_norm"}) {
    const auto add = [&](const std::string& name, DType element, std::vector<Index> shape, double mean,
                         const std::string& purpose) {
      return norm_case(op, name, element, seed, std::move(shape), mean, purpose);
    };
    for (const DType element : all_types) {
      all.push_back(add("plain_" + short_name(element), element, {3, 12}, 0, "rows of twelve"));
    }
    for (const Index width : {1, 2, 15, 16, 17, 33}) {
      all.push_back(add("width_" + std::to_string(width), float32, {2, width}, 0, "widths around a vector"));
    }
    all.push_back(
        add("bias", bfloat16, {3, 8}, 0, "with a bias").normal("bias", {8}, 0.25).outputs({"dbias"}));
    all.push_back(add("far_mean", float32, {3, 16}, 64, "a mean far from 0: one-pass variances cancel"));
    all.push_back(add("offset", bfloat16, {3, 8}, 0, "the weight is stored less 1")
                      .spec("weight_offset", 1.0)
                      .normal("weight", {8}, 0.25));
    all.push_back(add("cast", bfloat16, {3, 8}, 0, "the normalised x is rounded before the weight")
                      .spec("cast_before_weight", true));
    all.push_back(add("residual", float16, {3, 8}, 0, "x + residual, rounded before it is normalised")
                      .normal("residual", {3, 8}, 4)
                      .spec("round_sum", true)
                      .outputs({"sum"}));
    all.push_back(add("exact_sum", float16, {3, 8}, 0, "x + residual, not rounded")
                      .normal("residual", {3, 8}, 4)
                      .spec("round_sum", false)
                      .outputs({"sum"}));
    all.push_back(
        add("constant", float32, {2, 8}, 0, "rows of equal values").values("x", {2, 8}, [](Index n) {
          return n < 8 ? 0.75 : 0.0;
        }));
    all.push_back(add("outliers", float16, {2, 16}, 0, "two columns a thousand times larger")
                      .change("x", [](std::vector<double>& x) {
                        for (const std::size_t n : {3, 11, 19, 27}) x[n] *= 1000;
                      }));
  }
  return all;
}

std::vector<GoldenCase> wide_norm_cases(std::uint64_t seed) {
  return {norm_case("rms_norm", "4096", bfloat16, seed, {2, 4096}, 0, "the width of a Llama model").step(3),
          norm_case("layer_norm", "1024", float16, seed, {4, 1024}, 0, "the width of CLIP ViT-L/14").step(3)};
}

std::vector<GoldenCase> rope_cases(std::uint64_t seed) {
  std::vector<GoldenCase> all;
  const auto add = [&](const std::string& name, DType element, const std::string& style,
                       std::vector<Index> shape, const std::string& purpose) {
    Builder builder(name, "rope", element, seed, purpose);
    return builder.spec("style", style).normal("x", shape).normal("dy", shape).outputs({"y", "dx"});
  };
  const auto angles = [&](const std::string& name, const std::string& scaling, const std::string& purpose) {
    Builder builder = add(name, float32, "half", {1, 1, 6, 16}, purpose);
    builder.spec("theta", 10000.0)
        .spec("angle_dtype", "float64")
        .integers("positions", {6}, {0, 1, 2, 77, 1023, 9001});
    if (scaling != "none") builder.spec("scaling", scaling).spec("factor", 4.0);
    return builder;
  };
  for (const std::string style : {"half", "interleaved"}) {
    for (const DType element : all_types) {
      all.push_back(add(style + "_" + short_name(element), element, style, {1, 2, 3, 8}, "a table for pairs")
                        .normal("cos", {3, 4}, 0.5)
                        .normal("sin", {3, 4}, 0.5));
    }
    all.push_back(add(style + "_full", float32, style, {2, 2, 3, 6}, "a table for columns, per batch entry")
                      .normal("cos", {2, 3, 6}, 0.5)
                      .normal("sin", {2, 3, 6}, 0.5));
    all.push_back(add(style + "_partial", float16, style, {1, 2, 3, 10}, "columns from 6 on are copied")
                      .spec("rotary_dim", std::int64_t{6})
                      .normal("cos", {3, 3}, 0.5)
                      .normal("sin", {3, 3}, 0.5));
    all.push_back(add(style + "_cache", bfloat16, style, {2, 1, 3, 8}, "positions choose the rows of a cache")
                      .normal("cos", {9, 4}, 0.5)
                      .normal("sin", {9, 4}, 0.5)
                      .integers("positions", {2, 3}, {0, 8, 3, 3, 4, 5}));
  }
  all.push_back(add("packed", float16, "half", {7, 2, 8}, "packed sequences count their own positions")
                    .spec("layout", "thd")
                    .spec("theta", 10000.0)
                    .spec("angle_dtype", "float64")
                    .integers("cu_seqlens", {4}, {0, 3, 3, 7}));
  all.push_back(
      add("inv_freq", float32, "half", {1, 1, 4, 8}, "given inverse frequencies, angles in float32")
          .values("inv_freq", {4}, [](Index k) { return std::ldexp(0.7, -2 * static_cast<int>(k)); })
          .spec("position_start", std::int64_t{100}));
  all.push_back(add("float32_angles", float32, "half", {1, 1, 5, 16},
                    "frequencies and angles rounded to float32, as models do")
                    .spec("theta", 10000.0)
                    .integers("positions", {5}, {0, 1, 77, 1023, 131071}));
  all.push_back(angles("theta", "none", "exact angles"));
  all.push_back(angles("linear", "linear", "positions stretched by 4"));
  all.push_back(angles("ntk", "ntk", "a larger base"));
  all.push_back(angles("dynamic_ntk", "dynamic_ntk", "a base that grows with the sequence")
                    .spec("original_max_position_embeddings", 2048.0)
                    .spec("sequence_length", 9002.0));
  all.push_back(angles("yarn", "yarn", "YaRN, its attention factor included")
                    .spec("original_max_position_embeddings", 2048.0));
  all.push_back(angles("llama3", "llama3", "Llama 3.1")
                    .spec("original_max_position_embeddings", 2048.0)
                    .spec("low_freq_factor", 1.0)
                    .spec("high_freq_factor", 4.0));
  return all;
}

}  // namespace attest::golden
