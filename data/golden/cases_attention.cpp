// Small cases of attention: every option of the forward pass, and exact and extreme results.
#include <cmath>
#include <limits>

#include "data/golden/builder.hpp"

namespace attest::golden {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double nan = std::numeric_limits<double>::quiet_NaN();
const std::vector<std::string> everything = {"o", "lse", "m", "l", "s", "p"};

struct Shape {
  Index b, hq, hkv, sq, sk, d, e;
};

Builder plain(const std::string& name, DType element, std::uint64_t seed, const Shape& x,
              const std::string& causal, const std::string& purpose) {
  Builder builder(name, "attention", element, seed, purpose);
  builder.spec("causal", causal).spec("scale", 1 / std::sqrt(static_cast<double>(x.d)));
  builder.normal("q", {x.b, x.hq, x.sq, x.d}).normal("k", {x.b, x.hkv, x.sk, x.d});
  builder.normal("v", {x.b, x.hkv, x.sk, x.e}).outputs(everything);
  return builder;
}

void infinite_in_places(std::vector<double>& bias) {
  for (std::size_t n = 0; n < bias.size(); n += 5) bias[n] = -infinity;
}

}  // namespace

std::vector<GoldenCase> attention_forward_cases(std::uint64_t seed) {
  std::vector<GoldenCase> all;
  const auto add = [&](const std::string& name, DType element, const Shape& x, const std::string& causal,
                       const std::string& purpose) { return plain(name, element, seed, x, causal, purpose); };
  using enum DType;
  all.push_back(add("plain_f64", float64, {2, 2, 2, 5, 7, 4, 3}, "none", "no options, in float64"));
  all.push_back(
      add("plain_f32", float32, {1, 2, 2, 7, 5, 8, 4}, "none", "no options, more queries than keys"));
  all.push_back(
      add("plain_e4m3", float8_e4m3fn, {1, 1, 1, 6, 9, 8, 8}, "none", "no options, in float8_e4m3fn"));
  all.push_back(add("plain_e5m2", float8_e5m2, {1, 1, 1, 6, 9, 8, 8}, "none", "no options, in float8_e5m2"));
  all.push_back(
      add("one_key", float16, {1, 1, 1, 3, 1, 8, 5}, "none", "one key: p = 1, l = 1, o = v exactly"));
  all.push_back(
      add("top_left", float32, {1, 1, 1, 5, 8, 4, 4}, "top_left", "causal as PyTorch means it, Sq < Sk"));
  all.push_back(add("bottom_right", bfloat16, {1, 1, 1, 5, 8, 4, 4}, "bottom_right",
                    "causal as FlashAttention means it, Sq < Sk"));
  all.push_back(add("empty_zero", float16, {1, 1, 1, 8, 5, 4, 4}, "bottom_right",
                    "rows that may attend to no key: o = 0, lse = -inf"));
  all.push_back(add("empty_nan", bfloat16, {1, 1, 1, 8, 5, 4, 4}, "bottom_right",
                    "rows that may attend to no key: NaN, lse = +inf")
                    .spec("empty_row", "nan")
                    .spec("lse_empty", "+inf"));
  all.push_back(add("empty_mean_v", float32, {1, 1, 1, 8, 3, 4, 4}, "bottom_right",
                    "rows that may attend to no key: the mean of V, thirds included")
                    .spec("empty_row", "mean_v"));
  all.push_back(
      add("window", float16, {1, 1, 1, 9, 9, 4, 4}, "none", "two keys before the diagonal, one behind it")
          .spec("window_left", std::int64_t{2})
          .spec("window_right", std::int64_t{1}));
  all.push_back(add("causal_window", bfloat16, {1, 2, 1, 9, 12, 4, 4}, "bottom_right", "a sliding window")
                    .spec("window_left", std::int64_t{3}));
  all.push_back(add("bias", float32, {1, 2, 2, 4, 6, 4, 4}, "none", "a bias of full shape with -inf in it")
                    .normal("bias", {1, 2, 4, 6})
                    .change("bias", infinite_in_places));
  all.push_back(
      add("broadcast_bias", float16, {2, 2, 2, 4, 6, 4, 4}, "none", "one bias for all rows of a head")
          .normal("bias", {2, 1, 6}));
  all.push_back(add("mask", float16, {2, 2, 2, 4, 6, 4, 4}, "none", "a boolean mask, the same for all heads")
                    .mask("mask", {2, 1, 4, 6}, 0.7));
  all.push_back(
      add("alibi", float16, {1, 4, 4, 5, 7, 4, 4}, "bottom_right", "ALiBi with the slopes of four heads")
          .values("alibi_slopes", {4},
                  [](Index h) { return std::ldexp(1.0, -2 * static_cast<int>(h + 1)); }));
  all.push_back(
      add("batch_alibi", bfloat16, {2, 2, 2, 5, 7, 4, 4}, "none", "ALiBi with slopes per batch entry")
          .whole("alibi_slopes", {2, 2}, 1, 15, 1.0 / 16));
  all.push_back(
      add("softcap", bfloat16, {1, 2, 2, 5, 7, 8, 4}, "top_left", "softcap 1.5, which bends these scores")
          .spec("softcap", 1.5));
  all.push_back(
      add("sink", float16, {1, 2, 2, 5, 7, 4, 4}, "none", "a sink in every head").normal("sink", {2}));
  all.push_back(
      add("sink_only", float32, {1, 2, 1, 6, 3, 4, 4}, "bottom_right", "rows that see the sink alone: o = 0")
          .normal("sink", {2}));
  all.push_back(
      add("grouped", float16, {1, 6, 2, 4, 5, 4, 4}, "top_left", "three query heads share a key/value head"));
  all.push_back(add("base_2", float32, {1, 1, 1, 4, 6, 4, 4}, "none", "lse in base 2").spec("lse_base", "2"));
  all.push_back(
      add("past", float32, {2, 2, 1, 3, 4, 4, 4}, "top_left", "five keys of a cache before the new ones")
          .normal("past_k", {2, 1, 5, 4})
          .normal("past_v", {2, 1, 5, 4}));
  const auto poison = [](std::vector<double>& x) {
    for (std::size_t n = 0; n < x.size() / 2; ++n) {
      if (n / 4 % 6 >= 4) x[n] = nan;  // batch entry 0, keys from the fifth on
    }
  };
  all.push_back(add("padding", bfloat16, {2, 2, 2, 3, 6, 4, 4}, "bottom_right",
                    "padded keys, NaN-poisoned in the first batch entry: nothing of them shows")
                    .integers("kv_lengths", {2}, {4, 3})
                    .change("k", poison)
                    .change("v", poison));
  Builder packed("packed", "attention", float16, seed, "four packed sequences, one of them without keys");
  packed.spec("causal", "bottom_right").spec("scale", 0.5).spec("layout", "thd");
  packed.normal("q", {11, 4, 4}).normal("k", {13, 2, 4}).normal("v", {13, 2, 4});
  packed.integers("cu_seqlens_q", {5}, {0, 1, 5, 7, 11}).integers("cu_seqlens_k", {5}, {0, 3, 7, 7, 13});
  all.push_back(packed.outputs({"o", "lse", "m", "l"}));
  all.push_back(
      add("everything", float32, {1, 4, 2, 6, 7, 4, 3}, "top_left", "all options at once")
          .spec("window_left", std::int64_t{5})
          .spec("softcap", 2.0)
          .normal("bias", {1, 4, 6, 9})
          .mask("mask", {6, 9}, 0.8)
          .values("alibi_slopes", {4}, [](Index h) { return std::ldexp(1.0, -static_cast<int>(h) - 2); })
          .normal("sink", {4})
          .normal("past_k", {1, 2, 2, 4})
          .normal("past_v", {1, 2, 2, 3}));
  return all;
}

std::vector<GoldenCase> attention_special_cases(std::uint64_t seed) {
  std::vector<GoldenCase> all;
  const auto add = [&](const std::string& name, DType element, const Shape& x, const std::string& purpose) {
    return plain(name, element, seed, x, "none", purpose);
  };
  using enum DType;
  const Shape small{1, 1, 1, 4, 8, 4, 4};
  all.push_back(add("constant_v", float16, small, "all values the same: o = v exactly, whatever the weights")
                    .values("v", {1, 1, 8, 4}, [](Index n) { return 0.1 * static_cast<double>(n % 4 + 1); }));
  all.push_back(add("uniform", bfloat16, small, "q = 0: eight equal weights, o the mean of V exactly")
                    .values("q", {1, 1, 4, 4}, [](Index) { return 0.0; }));
  all.push_back(
      add("thirds", float16, {1, 1, 1, 4, 3, 4, 4}, "q = 0 and three keys: weights of 1/3, sums of thirds")
          .values("q", {1, 1, 4, 4}, [](Index) { return 0.0; })
          .whole("v", {1, 1, 3, 4}, -4, 4));
  // q = 0 and two keys give the mean of two values: exactly between two float16 numbers.
  all.push_back(
      add("halfway", float16, {1, 1, 1, 4, 2, 4, 4}, "o exactly halfway between two float16 numbers: to even")
          .values("q", {1, 1, 4, 4}, [](Index) { return 0.0; })
          .values("v", {1, 1, 2, 4}, [](Index n) { return 1 + std::ldexp(static_cast<double>(n), -10); }));
  // The second weight is exp(-40): beyond the doubles, and yet it decides to which side the tie goes.
  const double next_to_one[] = {1 + 0x1p-8, 1 + 3 * 0x1p-8, 2, -2};
  all.push_back(add("nearly_halfway", float16, {1, 1, 1, 2, 2, 1, 2},
                    "a bfloat16 tie that exp(-40) breaks: rounding by way of float64 goes wrong")
                    .spec("scale", 1.0)
                    .values("q", {1, 1, 2, 1}, [](Index n) { return n == 0 ? 40.0 : -40.0; })
                    .values("k", {1, 1, 2, 1}, [](Index n) { return n == 0 ? 0.0 : -1.0; })
                    .values("v", {1, 1, 2, 2}, [&](Index n) { return next_to_one[n]; })
                    .output("o", bfloat16));
  all.push_back(
      add("ties", float16, small, "each key twice: the maximum is there twice")
          .whole("q", {1, 1, 4, 4}, -3, 3)
          .values("k", {1, 1, 8, 4}, [](Index n) { return static_cast<double>(n % 16 * 7 % 5) - 2; }));
  all.push_back(add("integers", float16, small, "whole numbers: scores are exact")
                    .spec("scale", 1.0)
                    .whole("q", {1, 1, 4, 4}, -2, 2)
                    .whole("k", {1, 1, 8, 4}, -2, 2)
                    .whole("v", {1, 1, 8, 4}, -8, 8));
  all.push_back(add("spiky", bfloat16, small, "one key takes nearly all weight: scores far apart")
                    .normal("q", {1, 1, 4, 4}, 12));
  all.push_back(
      add("naive_overflow", float32, small, "scores of a thousand: exp without the maximum overflows")
          .normal("q", {1, 1, 4, 4}, 60)
          .normal("k", {1, 1, 8, 4}, 20));
  all.push_back(
      add("scores_overflow_float16", float16, small, "scores beyond float16: s, and lse in it, are infinite")
          .spec("scale", 1.0)
          .normal("q", {1, 1, 4, 4}, 250)
          .normal("k", {1, 1, 8, 4}, 250)
          .output("lse", float16)
          .output("m", float16));
  all.push_back(add("subnormals", float16, small, "values and weights below float16's normal numbers")
                    .normal("q", {1, 1, 4, 4}, 3)
                    .whole("v", {1, 1, 8, 4}, -40, 40, 0x1p-24));
  all.push_back(add("large_v", float16, small, "values near float16's largest")
                    .whole("v", {1, 1, 8, 4}, 2000, 2047, 32));
  all.push_back(add("cancelling", float32, small, "values that cancel: o is small beside them")
                    .whole("v", {1, 1, 8, 4}, -1, 1, 4096)
                    .normal("q", {1, 1, 4, 4}, 0.01));
  all.push_back(add("float64_tails", float64, small, "weights below float64's subnormal numbers")
                    .normal("q", {1, 1, 4, 4}, 600));
  return all;
}

std::vector<GoldenCase> attention_tile_cases(std::uint64_t seed) {
  std::vector<GoldenCase> all;
  for (const Index tile :
       {16, 64, 96, 128}) {  // 96 is attest::tiled's, the others are those of common kernels
    for (const Index keys : {tile - 1, tile, tile + 1}) {
      all.push_back(plain("keys_" + std::to_string(keys), DType::float16, seed, {1, 1, 1, 3, keys, 8, 8},
                          "bottom_right", "keys around a tile of " + std::to_string(tile))
                        .only_outputs({"o", "lse", "m", "l"}));
    }
  }
  for (const Index rows : {15, 16, 17, 63, 64, 65}) {
    all.push_back(plain("rows_" + std::to_string(rows), DType::bfloat16, seed, {1, 1, 1, rows, rows, 4, 4},
                        "top_left", "rows and keys around a tile, causal")
                      .only_outputs({"o", "lse", "m", "l"}));
  }
  for (const Index width : {1, 7, 8, 9, 31, 32, 33}) {
    all.push_back(plain("width_" + std::to_string(width), DType::float32, seed, {1, 1, 1, 2, 5, width, width},
                        "none", "widths around a vector")
                      .only_outputs({"o", "lse", "m", "l"}));
  }
  return all;
}

std::vector<GoldenCase> attention_gradient_cases(std::uint64_t seed) {
  std::vector<GoldenCase> all;
  const auto add = [&](const std::string& name, DType element, const Shape& x, const std::string& causal,
                       const std::string& purpose) {
    Builder builder = plain(name, element, seed, x, causal, purpose);
    return builder.normal("do", {x.b, x.hq, x.sq, x.e}).only_outputs({"dq", "dk", "dv"}).saved();
  };
  using enum DType;
  all.push_back(add("plain_f64", float64, {2, 2, 2, 5, 7, 4, 3}, "none", "no options, in float64"));
  all.push_back(add("causal", float16, {1, 2, 2, 7, 7, 8, 8}, "top_left", "causal"));
  all.push_back(
      add("grouped", bfloat16, {1, 4, 2, 5, 6, 4, 4}, "bottom_right", "two query heads share dk and dv"));
  all.push_back(add("window", float32, {1, 1, 1, 9, 9, 4, 4}, "top_left", "a sliding window")
                    .spec("window_left", std::int64_t{2}));
  all.push_back(add("bias", float32, {1, 2, 2, 4, 6, 4, 4}, "none", "a bias of full shape")
                    .normal("bias", {1, 2, 4, 6})
                    .output("dbias", float32));
  all.push_back(add("broadcast_bias", float32, {2, 2, 2, 4, 6, 4, 4}, "none",
                    "a bias that batch entries and rows share")
                    .normal("bias", {2, 1, 6})
                    .output("dbias", float32));
  all.push_back(
      add("mask", float16, {1, 2, 2, 4, 6, 4, 4}, "none", "a boolean mask").mask("mask", {1, 2, 4, 6}, 0.6));
  all.push_back(add("alibi", bfloat16, {1, 2, 2, 5, 7, 4, 4}, "bottom_right", "ALiBi")
                    .values("alibi_slopes", {2}, [](Index h) { return h == 0 ? 0.25 : 0.0625; }));
  all.push_back(add("softcap_sink", bfloat16, {1, 2, 2, 5, 7, 8, 4}, "top_left", "softcap and a sink")
                    .spec("softcap", 1.5)
                    .normal("sink", {2})
                    .output("dsink", float32));
  all.push_back(add("empty_zero", float32, {1, 1, 1, 7, 4, 4, 4}, "bottom_right",
                    "rows without keys pass no gradient on"));
  all.push_back(add("empty_mean_v", float32, {1, 1, 1, 7, 3, 4, 4}, "bottom_right",
                    "rows without keys give dv a third each")
                    .spec("empty_row", "mean_v"));
  all.push_back(
      add("empty_nan", float32, {1, 2, 2, 5, 4, 4, 4}, "bottom_right", "rows without keys poison dk and dv")
          .spec("empty_row", "nan"));
  all.push_back(add("past", float16, {1, 2, 2, 3, 4, 4, 4}, "top_left", "keys of a cache get no gradient")
                    .normal("past_k", {1, 2, 3, 4})
                    .normal("past_v", {1, 2, 3, 4}));
  all.push_back(add("padding", float16, {2, 1, 1, 4, 6, 4, 4}, "none", "padded keys get 0")
                    .integers("kv_lengths", {2}, {4, 6}));
  all.push_back(add("one_key", float32, {1, 1, 1, 3, 1, 4, 4}, "none", "one key: dq = dk = 0 exactly"));
  all.push_back(
      add("constant_v", float16, {1, 1, 1, 4, 6, 4, 4}, "none", "all values the same: dq = dk = 0 exactly")
          .values("v", {1, 1, 6, 4}, [](Index n) { return 0.25 * static_cast<double>(n % 4 + 1); }));
  all.push_back(add("e4m3", float8_e4m3fn, {1, 1, 1, 5, 6, 4, 4}, "none", "in float8_e4m3fn"));
  all.push_back(add("e5m2", float8_e5m2, {1, 1, 1, 5, 6, 4, 4}, "none", "in float8_e5m2"));
  all.push_back(
      add("spiky", float32, {1, 1, 1, 5, 6, 4, 4}, "none", "scores far apart").normal("q", {1, 1, 5, 4}, 12));
  for (const Index rows : {15, 16, 17, 33}) {
    all.push_back(add("rows_" + std::to_string(rows), float16, {1, 1, 1, rows, rows, 4, 4}, "top_left",
                      "rows and keys around a tile, causal"));
  }
  Builder packed("packed", "attention", float16, seed, "three packed sequences");
  packed.spec("causal", "bottom_right").spec("scale", 0.5).spec("layout", "thd");
  packed.normal("q", {9, 4, 4}).normal("k", {10, 2, 4}).normal("v", {10, 2, 4}).normal("do", {9, 4, 4});
  packed.integers("cu_seqlens_q", {4}, {0, 1, 5, 9}).integers("cu_seqlens_k", {4}, {0, 3, 7, 10});
  all.push_back(packed.outputs({"dq", "dk", "dv"}).saved());
  return all;
}

std::vector<GoldenCase> attention_layout_cases(std::uint64_t seed) {
  constexpr Shape n{2, 4, 2, 3, 5, 4, 3};
  constexpr Index past = 2;
  std::vector<GoldenCase> all;
  for (const std::string layout : {"bshd", "sbhd", "bsm", "sbm"}) {
    const bool is_merged = layout.size() == 3;
    const auto shape = [&](Index heads, Index rows, Index width) {
      std::vector<Index> extents = {layout[0] == 'b' ? n.b : rows, layout[0] == 'b' ? rows : n.b};
      if (is_merged) {
        extents.push_back(heads * width);
      } else {
        extents.insert(extents.end(), {heads, width});
      }
      return extents;
    };
    for (const bool is_backward : {false, true}) {
      Builder builder(
          layout + (is_backward ? "_gradients" : ""), "attention", DType::float16, seed,
          std::string(is_backward ? "gradients in" : "a past and shared heads in") + " layout " + layout);
      builder.spec("causal", "top_left").spec("scale", 0.5).spec("layout", layout);
      if (is_merged) builder.spec("heads_q", std::int64_t{n.hq}).spec("heads_kv", std::int64_t{n.hkv});
      builder.normal("q", shape(n.hq, n.sq, n.d)).normal("k", shape(n.hkv, n.sk, n.d));
      builder.normal("v", shape(n.hkv, n.sk, n.e));
      builder.normal("past_k", shape(n.hkv, past, n.d)).normal("past_v", shape(n.hkv, past, n.e));
      if (is_backward) {
        builder.normal("do", shape(n.hq, n.sq, n.e)).outputs({"dq", "dk", "dv"}).saved();
      } else {
        builder.outputs(everything);
      }
      all.push_back(builder);
    }
  }
  return all;
}

}  // namespace attest::golden
