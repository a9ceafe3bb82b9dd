// Features of attention: how their cases are made.
#include "tests/coverage/attention_features.hpp"

#include <algorithm>

namespace attest::coverage {
namespace {

Case plain_case(DType element, const AttentionExtents& n, const std::string& layout, std::uint64_t seed) {
  test::Random random(seed);
  const auto shape = [&](Index heads, Index length, Index d) {
    return Place(layout, n.batch, heads, length, d).shape();
  };
  Case c;
  c.op = "attention";
  c.spec = {{"causal", "none"}, {"scale", 0.375}};
  if (layout != "bhsd") c.spec["layout"] = layout;
  if (layout.back() == 'm') {
    c.spec["heads_q"] = std::int64_t{n.q_heads};
    c.spec["heads_kv"] = std::int64_t{n.kv_heads};
  }
  c.in["q"] = normal(random, element, shape(n.q_heads, n.queries, n.width));
  c.in["k"] = normal(random, element, shape(n.kv_heads, n.keys, n.width));
  c.in["v"] = normal(random, element, shape(n.kv_heads, n.keys, n.v_width), 1, 0.25);
  c.in["do"] = normal(random, element, shape(n.q_heads, n.queries, n.v_width));
  c.out["o"] = blank(element, shape(n.q_heads, n.queries, n.v_width));
  c.out["lse"] = blank(DType::float32, {n.batch, n.q_heads, n.queries});
  for (const char* name : {"q", "k", "v"})
    c.out[std::string("d") + name] = blank(element, c.in.at(name).shape);
  return c;
}

}  // namespace

void AttentionFeatures::add(const std::string& name, const Change& change, const AttentionExtents& n,
                            const std::string& layout) {
  all_.push_back({name, plain_case(element_, n, layout, seed_of(name))});
  change(all_.back().c);
}

void AttentionFeatures::set_bias(Case& c, const Shape& shape) const {
  test::Random random(51);
  c.in["bias"] = normal(random, element_, shape);
  c.out["dbias"] = blank(element_, shape);
}

void AttentionFeatures::set_sink(Case& c, Index heads) const {
  test::Random random(52);
  c.in["sink"] = normal(random, element_, {heads});
  c.out["dsink"] = blank(DType::float32, {heads});
}

void AttentionFeatures::set_slopes(Case& c, const Shape& shape) const {
  Tensor& slopes = c.in["alibi_slopes"] = blank(element_, shape);
  for (Index n = 1; n <= slopes.size(); ++n)
    slopes.values.push_back(round_to(0.5 / static_cast<double>(n), element_));
}

void AttentionFeatures::set_past(Case& c, const Shape& k_shape, const Shape& v_shape) const {
  test::Random random(54);
  c.in["past_k"] = normal(random, element_, k_shape);
  c.in["past_v"] = normal(random, element_, v_shape);
}

void AttentionFeatures::set_mask(Case& c, const Shape& shape) {
  test::Random random(53);
  c.in["mask"] = booleans(random, shape);
}

void AttentionFeatures::set_mask_with_empty_row(Case& c) {
  set_mask(c, {2, 3, 9, 11});
  std::fill_n(c.in["mask"].values.begin() + 2 * 11, 11, 0.0);
}

std::vector<Feature> attention_features(DType element) {
  AttentionFeatures all(element);
  all.add_masks();
  all.add_biases();
  all.add_keys();
  all.add_layouts();
  all.add_statistics();
  all.add_types();
  return all.take();
}

}  // namespace attest::coverage
