// Features of attention: what makes a score, and which keys there are.
#include <algorithm>
#include <limits>

#include "tests/coverage/attention_features.hpp"

namespace attest::coverage {

constexpr double infinity = std::numeric_limits<double>::infinity();

void AttentionFeatures::add_masks() {
  const AttentionExtents short_keys{2, 3, 3, 11, 7, 8, 8};
  add("cross-attention", [](Case&) {});
  add("self-attention", [](Case&) {}, {2, 3, 3, 9, 9, 8, 8});
  add("causal = top_left", [](Case& c) { c.spec["causal"] = "top_left"; });
  add("causal = bottom_right", [](Case& c) { c.spec["causal"] = "bottom_right"; });
  add(
      "causal = bottom_right, 4 empty rows", [](Case& c) { c.spec["causal"] = "bottom_right"; }, short_keys);
  add("a window to the left", [](Case& c) {
    c.spec["causal"] = "bottom_right";
    c.spec["window_left"] = std::int64_t{3};
  });
  add("windows on both sides", [](Case& c) {
    c.spec["window_left"] = std::int64_t{3};
    c.spec["window_right"] = std::int64_t{1};
  });
  add("windows about the top-left diagonal", [](Case& c) {
    c.spec["causal"] = "top_left";
    c.spec["window_left"] = std::int64_t{2};
    c.spec["window_right"] = std::int64_t{0};
  });
  add("mask", [](Case& c) { set_mask(c, {2, 3, 9, 11}); });
  add("mask that broadcasts", [](Case& c) { set_mask(c, {2, 1, 1, 11}); });
  add("empty rows, zero", [](Case& c) { set_mask_with_empty_row(c); });
  add("empty rows, NaN", [](Case& c) {
    set_mask_with_empty_row(c);
    c.spec["empty_row"] = "nan";
  });
  add("empty rows, mean of v, lse +inf", [](Case& c) {
    set_mask_with_empty_row(c);
    c.spec["empty_row"] = "mean_v";
    c.spec["lse_empty"] = "+inf";
  });
}

void AttentionFeatures::add_biases() {
  add("bias", [this](Case& c) { set_bias(c, {2, 3, 9, 11}); });
  add("bias of -inf", [this](Case& c) {
    set_bias(c, {2, 3, 9, 11});
    for (std::size_t n = 0; n < c.in["bias"].values.size(); n += 5) c.in["bias"].values[n] = -infinity;
    std::fill_n(c.in["bias"].values.begin() + 11, 11, -infinity);
  });
  add("bias that all batch entries and rows share", [this](Case& c) { set_bias(c, {3, 1, 11}); });
  add("ALiBi", [this](Case& c) { set_slopes(c, {3}); });
  add("ALiBi by position", [this](Case& c) {
    set_slopes(c, {3});
    c.spec["alibi"] = "position";
  });
  add("causal ALiBi with slopes for each batch entry", [this](Case& c) {
    set_slopes(c, {2, 3});
    c.spec["causal"] = "top_left";
  });
  add("softcap", [](Case& c) { c.spec["softcap"] = 1.5; });
  add("sink", [this](Case& c) { set_sink(c, 3); });
  add("sink where no key is visible",
      [this](Case& c) {
        set_sink(c, 3);
        c.spec["causal"] = "bottom_right";
      },
      {2, 3, 3, 11, 7, 8, 8});
  add("sink, lse in base 2", [this](Case& c) {
    set_sink(c, 3);
    c.spec["lse_base"] = "2";
  });
  add("negative scale", [](Case& c) { c.spec["scale"] = -0.375; });
  add("softcap, bias, ALiBi, mask, window and sink", [this](Case& c) {
    set_bias(c, {1, 3, 9, 11});
    set_slopes(c, {3});
    set_mask(c, {9, 11});
    set_sink(c, 3);
    c.spec["causal"] = "bottom_right";
    c.spec["softcap"] = 2.0;
    c.spec["window_left"] = std::int64_t{6};
  });
}

void AttentionFeatures::add_keys() {
  const auto lengths = [](Case& c) {
    c.in["kv_lengths"] = integers({2}, {5, 10});
    for (Index n = 0; n < 8; ++n)  // what absent keys hold is never looked at
      c.in["k"].values[10 * 8 + n] = std::numeric_limits<double>::quiet_NaN();
  };
  add("past keys", [this](Case& c) { set_past(c, {2, 3, 4, 8}); });
  add("past keys, causal = top_left", [this](Case& c) {
    set_past(c, {2, 3, 4, 8});
    c.spec["causal"] = "top_left";
  });
  add("past keys, causal = bottom_right", [this](Case& c) {
    set_past(c, {2, 3, 4, 8});
    c.spec["causal"] = "bottom_right";
  });
  add("key lengths of every batch entry", lengths);
  add("key lengths, causal = bottom_right", [&](Case& c) {
    lengths(c);
    c.spec["causal"] = "bottom_right";
  });
  add("key lengths within the past and none at all", [this](Case& c) {
    set_past(c, {2, 3, 4, 8});
    c.in["kv_lengths"] = integers({2}, {3, 0});
  });
  add("key lengths and past keys, windows and ALiBi", [&](Case& c) {
    lengths(c);
    set_past(c, {2, 3, 4, 8});
    c.in["kv_lengths"].values = {9, 14};
    c.spec["window_left"] = std::int64_t{6};
    c.spec["window_right"] = std::int64_t{2};
    set_slopes(c, {3});
  });
  add("key lengths and past keys, empty rows, mean of v", [&](Case& c) {
    set_past(c, {2, 3, 4, 8});
    c.in["kv_lengths"] = integers({2}, {7, 15});
    c.spec["causal"] = "bottom_right";
    c.spec["empty_row"] = "mean_v";
  });
  add("4 query heads to 2 of keys", [](Case&) {}, {2, 4, 2, 9, 11, 8, 8});
  add("4 query heads to 2 of keys, sink, ALiBi and bias of each head",
      [this](Case& c) {
        set_bias(c, {4, 9, 11});
        set_slopes(c, {4});
        set_sink(c, 4);
      },
      {2, 4, 2, 9, 11, 8, 8});
  add("3 query heads to 1 of keys", [](Case&) {}, {2, 3, 1, 9, 11, 8, 8});
  add("values wider than keys", [](Case&) {}, {2, 3, 3, 9, 11, 5, 12});
  add("values narrower than keys", [](Case&) {}, {2, 3, 3, 9, 11, 12, 5});
}

}  // namespace attest::coverage
