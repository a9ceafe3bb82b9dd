// Features of rope.
#include "tests/coverage/rope_features.hpp"

#include <functional>

#include "tests/coverage/tensors.hpp"

namespace attest::coverage {
namespace {

constexpr Index batch = 2, heads = 3, rows = 5, width = 8;

void set_layout(Case& c, const std::string& layout) {
  const Place place(layout, batch, heads, rows, width);
  c.spec["layout"] = layout;
  if (layout.back() == 'm') c.spec["heads"] = std::int64_t{heads};
  for (auto* tensors : {&c.in, &c.out}) {
    for (auto& [name, tensor] : *tensors) {
      if (name == "x" || name == "dy" || name == "y" || name == "dx") tensor.shape = place.shape();
    }
  }
}

/// The rows of both batch entries one after another, in layout thd.
void pack(Case& c) {
  c.spec["layout"] = "thd";
  for (auto* tensors : {&c.in, &c.out}) {
    for (auto& [name, tensor] : *tensors) tensor.shape = {batch * rows, heads, width};
  }
}

/// A table of any numbers: the op uses it as it is.
void set_table(Case& c, DType element, const Shape& shape) {
  test::Random random(50);
  c.spec.erase("theta");
  c.spec.erase("position_start");
  c.in["cos"] = normal(random, element, shape, 0.5);
  c.in["sin"] = normal(random, element, shape, 0.5);
}

void set_scaling(Case& c, const char* scaling, double factor, double original_length) {
  c.spec["scaling"] = scaling;
  c.spec["factor"] = factor;
  if (original_length > 0) c.spec["original_max_position_embeddings"] = original_length;
  c.spec["position_start"] = std::int64_t{5000};
}

void set_positions(Case& c) {
  c.spec.erase("position_start");
  c.in["positions"] = integers({batch, rows}, {7, 0, 3, 3, 11, 2, 40, 41, 1, 9});
}

}  // namespace

std::vector<Feature> rope_features(DType element) {
  std::vector<Feature> all;
  const auto add = [&](const std::string& name, const std::function<void(Case&)>& change) {
    test::Random random(seed_of(name));
    Case& c = all.emplace_back(Feature{name, {}}).c;
    c.op = "rope";
    c.spec = {{"style", "half"}, {"theta", 10000.0}, {"position_start", std::int64_t{3}}};
    c.in["x"] = normal(random, element, {batch, heads, rows, width});
    c.in["dy"] = normal(random, element, {batch, heads, rows, width});
    c.out["y"] = c.out["dx"] = blank(element, {batch, heads, rows, width});
    change(c);
  };
  add("style = half, theta", [](Case&) {});
  add("style = interleaved", [](Case& c) { c.spec["style"] = "interleaved"; });
  add("forward only", [](Case& c) { c.in.erase("dy"), c.out.erase("dx"); });
  add("backward only", [](Case& c) { c.in.erase("x"), c.out.erase("y"); });
  add("the first 6 of 8 columns", [](Case& c) { c.spec["rotary_dim"] = std::int64_t{6}; });
  add("the first 6 of 8 columns, interleaved", [](Case& c) {
    c.spec["rotary_dim"] = std::int64_t{6};
    c.spec["style"] = "interleaved";
  });
  for (const char* layout : {"bhsd", "bshd", "sbhd", "bsm", "sbm"}) {
    add(std::string("layout = ") + layout, [=](Case& c) { set_layout(c, layout); });
  }
  add("layout = thd, sequences of 4, 0 and 6 rows", [](Case& c) {
    pack(c);
    c.in["cu_seqlens"] = integers({4}, {0, 4, 4, 10});
  });
  add("positions of every row", set_positions);
  add("positions that all batch entries share", [](Case& c) {
    c.spec.erase("position_start");
    c.in["positions"] = integers({rows}, {7, 0, 3, 3, 11});
  });
  add("angles in float64", [](Case& c) { c.spec["angle_dtype"] = "float64"; });
  add("position 10^7", [](Case& c) { c.spec["position_start"] = std::int64_t{10'000'000}; });
  add("position 10^7, angles in float64", [](Case& c) {
    c.spec["position_start"] = std::int64_t{10'000'000};
    c.spec["angle_dtype"] = "float64";
  });
  add("inverse frequencies given", [](Case& c) {
    c.spec.erase("theta");
    c.in["inv_freq"] = blank(DType::float32, {width / 2});
    c.in["inv_freq"].values = {1, 0.375, 0.0625, 0.0078125};
    c.spec["attention_factor"] = 1.25;
  });
  add("a table with a column for each column", [=](Case& c) { set_table(c, element, {rows, width}); });
  add("a table with a column for each pair", [=](Case& c) { set_table(c, element, {rows, width / 2}); });
  add("a table for each batch entry", [=](Case& c) { set_table(c, element, {batch, rows, width / 2}); });
  add("a table for each batch entry, layout = sbhd", [=](Case& c) {
    set_layout(c, "sbhd");
    set_table(c, element, {batch, rows, width});
  });
  add("a table for packed rows, layout = thd", [=](Case& c) {
    pack(c);
    set_table(c, element, {batch * rows, width / 2});
  });
  add("a cache with positions", [=](Case& c) {
    set_table(c, element, {50, width});
    set_positions(c);
  });
  add("a cache read from one position on, interleaved", [=](Case& c) {
    set_table(c, element, {50, width / 2});
    c.spec["position_start"] = std::int64_t{30};
    c.spec["style"] = "interleaved";
  });
  add("scaling = linear", [](Case& c) { set_scaling(c, "linear", 3, 0); });
  add("scaling = ntk", [](Case& c) { set_scaling(c, "ntk", 3, 0); });
  add("scaling = dynamic_ntk", [](Case& c) {
    set_scaling(c, "dynamic_ntk", 3, 2048);
    c.spec["sequence_length"] = 6000.0;
  });
  add("scaling = yarn", [](Case& c) { set_scaling(c, "yarn", 16, 4096); });
  add("scaling = yarn, all of its keys", [](Case& c) {
    set_scaling(c, "yarn", 16, 4096);
    c.spec["beta_fast"] = 100.0;
    c.spec["beta_slow"] = 10.0;
    c.spec["attention_factor"] = 1.5;
  });
  add("scaling = yarn, angles in float64", [](Case& c) {
    set_scaling(c, "yarn", 16, 4096);
    c.spec["angle_dtype"] = "float64";
  });
  add("scaling = llama3", [](Case& c) {
    set_scaling(c, "llama3", 8, 8192);
    c.spec["low_freq_factor"] = 1.0;
    c.spec["high_freq_factor"] = 4.0;
    c.spec["theta"] = 500000.0;
  });
  add("approximate angles", [](Case& c) { c.contract["angle_error"] = 1e-6; });
  add("approximate sines and cosines", [](Case& c) { c.contract["sincos_error"] = 1e-6; });
  add("computed in float64", [](Case& c) { c.contract["compute_dtype"] = "float64"; });
  add("computed in float64, by the key's other name", [](Case& c) { c.contract["accumulate"] = "float64"; });
  return all;
}

}  // namespace attest::coverage
