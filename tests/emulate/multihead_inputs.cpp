// Inputs of emulated multi-head attention.
#include <cmath>
#include <string>
#include <string_view>
#include <vector>

#include "tests/emulate/multihead_attention.hpp"
#include "tests/emulate/tensors.hpp"
#include "tests/support/random.hpp"

namespace attest::emulate {
namespace {

std::string_view name_of(MultiheadData data) {
  static constexpr std::string_view names[] = {"normal",     "peaked",   "outlier",  "rank one", "positive",
                                               "equal rows", "repeated", "constant", "tiny"};
  return names[static_cast<int>(data)];
}

void fill(const MultiheadSetup& s, test::Random& random, Case& c) {
  const Index m = s.width;
  const double size = 1 / std::sqrt(static_cast<double>(m));
  for (auto& [name, t] : c.in) {
    const bool is_x = name.find("proj") == std::string::npos,
               is_bias = name.find("bias") != std::string::npos;
    for (Index at = 0; at < t.size(); ++at) {
      double x = normal(random) * (is_x ? 1 : is_bias ? 0.3 : size);
      const Index row = at / m, column = at % m;
      switch (s.data) {
        case MultiheadData::normal:
          break;
        case MultiheadData::peaked:
          if (name == "in_proj_weight" && row < 2 * m) x *= 4;
          break;
        case MultiheadData::outlier:
          if (is_x && column < 2) x *= 30;
          break;
        case MultiheadData::rank_one:
          if (name == "in_proj_weight" && row >= 2 * m) x = row == 2 * m ? x : t.values[2 * m * m + column];
          if (name == "out_proj_weight") x = std::abs(x);
          break;
        case MultiheadData::positive:
          x = std::abs(x);
          break;
        case MultiheadData::equal_rows:
          if (!is_x && !is_bias && row > 0) x = t.values[column];
          break;
        case MultiheadData::repeated:
          if (is_x && row >= 4) x = t.values[(row % 4) * m + column];
          break;
        case MultiheadData::constant:
          x = is_x ? 0.7 : is_bias ? 0.1 : 0.4 * size;
          break;
        case MultiheadData::tiny:
          if (is_x) x = std::ldexp(x, format_of(s.element).emin + 3);
          if (is_bias) x = 0;
          break;
      }
      t.values[at] = round_to(x, s.element);
    }
  }
}

}  // namespace

std::string MultiheadSetup::text() const {
  return std::string(format_of(element).name) + " " + std::string(name_of(data)) + ", batch " +
         std::to_string(batch) + ", " + std::to_string(queries) + " x " +
         std::to_string(is_self ? queries : keys) + ", width " + std::to_string(width) + ", " +
         std::to_string(heads) + " heads, " + (causal == Causal::none ? "" : "causal, ") +
         (has_mask ? "mask, " : "") + (has_bias ? "" : "no bias, ") + "seed " + std::to_string(seed);
}

Case multihead_inputs(const MultiheadSetup& s) {
  Case c;
  c.file = "emulated.h5";
  c.name = "case";
  c.op = "multihead_attention";
  const std::string causal = s.causal == Causal::none       ? "none"
                             : s.causal == Causal::top_left ? "top_left"
                                                            : "bottom_right";
  c.spec = {{"heads", std::int64_t{s.heads}},
            {"causal", causal},
            {"layout", std::string(s.batch_first ? "blm" : "lbm")},
            {"average_weights", s.average_weights}};

  test::Random random(s.seed);
  const auto shape = [&](Index length) {
    return s.batch_first ? std::vector{s.batch, length, s.width} : std::vector{length, s.batch, s.width};
  };
  if (s.is_self) {
    c.in["x"] = tensor_of(s.element, shape(s.queries));
  } else {
    c.in["query"] = tensor_of(s.element, shape(s.queries));
    c.in["key"] = tensor_of(s.element, shape(s.keys));
    c.in["value"] = tensor_of(s.element, shape(s.keys));
  }
  c.in["in_proj_weight"] = tensor_of(s.element, {3 * s.width, s.width});
  c.in["out_proj_weight"] = tensor_of(s.element, {s.width, s.width});
  if (s.has_bias) {
    c.in["in_proj_bias"] = tensor_of(s.element, {3 * s.width});
    c.in["out_proj_bias"] = tensor_of(s.element, {s.width});
  }
  fill(s, random, c);
  if (s.has_mask) {  // keys that are padding; the first one stays
    const Index keys = s.is_self ? s.queries : s.keys;
    Tensor mask{"bool", std::nullopt, {s.batch, 1, 1, keys}, {}};
    for (Index n = 0; n < mask.size(); ++n) mask.values.push_back(n % keys > 0 && random.one_in(4) ? 0 : 1);
    c.in["mask"] = mask;
  }
  return c;
}

}  // namespace attest::emulate
