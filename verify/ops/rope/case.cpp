// Reads a rotary embedding case: spec, shapes and values have to fit together.
#include "verify/ops/rope/case.hpp"

#include <algorithm>
#include <cmath>
#include <initializer_list>

#include "core/invalid_case.hpp"
#include "verify/text.hpp"

namespace attest {
namespace {

using enum RopeScaling;

/// The spec keys that only some scalings use.
struct ScalingKey {
  std::string_view name;
  std::initializer_list<RopeScaling> used_by;
};
const ScalingKey scaling_keys[] = {
    {"factor", {linear, ntk, dynamic_ntk, yarn, llama3}},
    {"original_max_position_embeddings", {dynamic_ntk, yarn, llama3}},
    {"sequence_length", {dynamic_ntk}},
    {"beta_fast", {yarn}},
    {"beta_slow", {yarn}},
    {"low_freq_factor", {llama3}},
    {"high_freq_factor", {llama3}},
};

}  // namespace

RopeCase::RopeCase(const Case& c) : case_(c), extents_(c) {
  read_shapes();
  read_spec();
  read_positions();
  source.cos = {};
  case_.input("cos") ? read_table() : read_angles();
  check_values();
}

void RopeCase::reject(const std::string& path, const std::string& message) const {
  throw InvalidCase(case_.object(path) + " " + message);
}

void RopeCase::reject_key(const std::string& key, const std::string& message) const {
  reject("spec", "attribute " + key + " " + message);
}

void RopeCase::read_shapes() {
  if (!case_.input("x") && !case_.input("dy")) reject("in/x", "is missing; it or in/dy is needed");
  if (case_.out.contains("y") && !case_.input("x")) reject("out/y", "is given, but in/x is missing");
  if (case_.out.contains("dx") && !case_.input("dy")) reject("out/dx", "is given, but in/dy is missing");
  KeyReader keys(case_, "spec", case_.spec);
  layout_ = read_layout(keys);
  if (merges_heads(layout_)) {
    const Index heads = keys.integer("heads", 0);
    if (heads < 1) {
      reject_key("heads",
                 std::string("is ") + (keys.has("heads") ? std::to_string(heads) : "missing") +
                     "; layouts bsm and sbm merge the heads into the last axis and need it to be at least 1");
    }
    extents_.bind("H", heads, "spec attribute heads");
  } else if (keys.has("heads")) {
    reject_key("heads", "is given, but only layouts bsm and sbm use it");
  }
  const std::string s = layout_ == Layout::thd ? "T" : "S";
  const std::string pattern = extents_pattern(layout_, "B", "H", s, "D");
  for (const std::string path : {"in/x", "in/dy", "out/y", "out/dx"}) {
    const bool is_input = path.starts_with("in/");
    const auto& tensors = is_input ? case_.in : case_.out;
    if (const auto it = tensors.find(path.substr(is_input ? 3 : 4)); it != tensors.end())
      extents_.unify(pattern, it->second, path);
  }
  shape.order = axis_order(layout_);
  shape.sizes = {layout_ == Layout::thd ? 1 : extents_["B"], extents_["H"], extents_[s], extents_["D"]};
}

void RopeCase::read_spec() {
  KeyReader keys(case_, "spec", case_.spec);
  read_layout(keys);
  if (merges_heads(layout_)) keys.integer("heads", 0);
  spec.style =
      keys.choice<RopeStyle>("style", {{"half", RopeStyle::half}, {"interleaved", RopeStyle::interleaved}});
  const Index width = shape.sizes.width;
  spec.rotary_dim = keys.integer("rotary_dim", width);
  if (spec.rotary_dim < 2 || spec.rotary_dim > width || spec.rotary_dim % 2 != 0) {
    reject_key("rotary_dim", "is " + std::to_string(spec.rotary_dim) +
                                 (keys.has("rotary_dim") ? "" : ", all columns,") +
                                 "; an even number from 2 to D = " + std::to_string(width) + " is expected");
  }
  position_start_ = static_cast<double>(keys.integer("position_start", 0));
  has_theta_ = keys.has("theta");
  read_frequencies(keys);
  keys.finish();
}

void RopeCase::read_frequencies(KeyReader& keys) {
  const bool has_table = case_.input("cos") || case_.input("sin"), has_inv_freq = case_.input("inv_freq");
  if (has_table + has_inv_freq + has_theta_ != 1) {
    std::string found;
    for (const auto& [name, is_given] :
         {std::pair{"in/cos and in/sin", has_table}, std::pair{"in/inv_freq", has_inv_freq},
          std::pair{"spec attribute theta", has_theta_}}) {
      if (is_given) found += (found.empty() ? "" : " and ") + std::string(name);
    }
    reject("", "gives its angles by " + (found.empty() ? "nothing" : found) +
                   "; one of in/cos with in/sin, in/inv_freq and spec attribute theta is expected");
  }
  if (has_table && !(case_.input("cos") && case_.input("sin")))
    reject(case_.input("cos") ? "in/sin" : "in/cos", "is missing; in/cos and in/sin must be given together");
  source.rule = keys.choice<AngleRule>(
      "angle_dtype", {{"float32", AngleRule::float32}, {"float64", AngleRule::exact}}, AngleRule::float32);
  frequencies.scaling = keys.choice<RopeScaling>("scaling",
                                                 {{"none", none},
                                                  {"linear", linear},
                                                  {"ntk", ntk},
                                                  {"dynamic_ntk", dynamic_ntk},
                                                  {"yarn", yarn},
                                                  {"llama3", llama3}},
                                                 none);
  RopeFrequencies& f = frequencies;
  reject_unused_keys();
  if (!has_theta_) {
    source.attention_factor = keys.number("attention_factor", 1);
    return;
  }

  const auto at_least = [&](const std::string& key, double least, double value) {
    if (value >= least) return value;
    reject_key(key,
               "is " + exact_text(value) + "; a number of at least " + exact_text(least) + " is expected");
  };
  f.theta = keys.number("theta");
  if (!(1 < f.theta && f.theta <= format_of(DType::float32).max))
    reject_key("theta", "is " + exact_text(f.theta) + "; a number above 1, in float32, is expected");
  if (f.scaling == none) return;
  f.factor = at_least("factor", 1, keys.number("factor"));
  if ((f.scaling == ntk || f.scaling == dynamic_ntk) && spec.rotary_dim == 2)
    reject_key("rotary_dim", "is 2; scalings ntk and dynamic_ntk need at least 4");
  if (f.scaling == linear || f.scaling == ntk) return;
  const std::string m = "original_max_position_embeddings";
  f.original_max_position_embeddings = at_least(m, 1, keys.number(m));
  if (f.scaling == dynamic_ntk)
    f.sequence_length = at_least("sequence_length", 1, keys.number("sequence_length"));
  if (f.scaling == yarn) {
    // The paper's values (Peng et al., YaRN, 2023), which Transformers and vLLM fall back to as well.
    f.beta_fast = keys.number("beta_fast", 32);
    f.beta_slow = keys.number("beta_slow", 1);
    if (!(0 < f.beta_slow && f.beta_slow < f.beta_fast))
      reject_key("beta_slow", "is " + exact_text(f.beta_slow) + "; a number above 0 and below beta_fast = " +
                                  exact_text(f.beta_fast) + " is expected");
    source.attention_factor = keys.number("attention_factor", 0.1 * std::log(f.factor) + 1);
  }
  if (f.scaling == llama3) {
    f.low_freq_factor = keys.number("low_freq_factor");
    f.high_freq_factor = keys.number("high_freq_factor");
    if (!(0 < f.low_freq_factor && f.low_freq_factor < f.high_freq_factor))
      reject_key("low_freq_factor", "is " + exact_text(f.low_freq_factor) +
                                        "; a number above 0 and below high_freq_factor = " +
                                        exact_text(f.high_freq_factor) + " is expected");
  }
}

void RopeCase::reject_unused_keys() const {
  const auto is_given = [&](std::string_view key) { return case_.spec.contains(std::string(key)); };
  if (!has_theta_) {
    if (is_given("scaling")) reject_key("scaling", "is given, but spec attribute theta is missing");
    if (case_.input("cos") && is_given("angle_dtype"))
      reject_key("angle_dtype", "is given, but a table has no angles to compute");
  }
  if (is_given("attention_factor") && frequencies.scaling != yarn && !case_.input("inv_freq"))
    reject_key("attention_factor", "is given, but only scaling = yarn and in/inv_freq use it");
  for (const ScalingKey& key : scaling_keys) {
    if (!is_given(key.name) ||
        std::find(key.used_by.begin(), key.used_by.end(), frequencies.scaling) != key.used_by.end())
      continue;
    const std::string scaling = case_.spec.contains("scaling") ? "this scaling" : "scaling = none";
    reject_key(std::string(key.name), "is given, but " + scaling + " does not use it");
  }
}

/// Positions of the rows, if the case gives them: [B * S].
void RopeCase::read_positions() {
  const bool is_packed = layout_ == Layout::thd;
  const bool has_start = case_.spec.contains("position_start");
  has_positions_ = case_.input("positions") || has_start || case_.input("cu_seqlens");
  if (case_.input("cu_seqlens") && !is_packed) reject("in/cu_seqlens", "is given, but the layout is not thd");
  if (case_.input("positions")) {
    if (has_start) reject_key("position_start", "is given, but so is in/positions; one of them is expected");
    if (case_.input("cu_seqlens"))
      reject("in/cu_seqlens", "is given, but so is in/positions; one is expected");
    source.positions = given_positions();
  } else if (has_positions_) {
    if (is_packed && !case_.input("cu_seqlens"))
      reject("in/cu_seqlens", "is missing; layout thd needs it to count positions");
    source.positions = counted_positions();
  } else if (!case_.input("cos")) {
    reject("in/positions", is_packed ? "is missing; it or in/cu_seqlens is needed"
                                     : "is missing; it or spec attribute position_start is needed");
  }
}

std::vector<double> RopeCase::given_positions() const {
  const Tensor& tensor = *case_.input("positions");
  Extents extents = extents_;
  if (layout_ == Layout::thd) {
    extents.unify("T", tensor, "in/positions");
  } else {
    extents.unify(tensor.shape.size() == 2 ? "B S" : "S", tensor, "in/positions");
  }
  for (Index n = 0; n < tensor.size(); ++n) {
    if (std::abs(tensor.values[n]) <= 0x1p53) continue;  // the whole numbers that double holds
    reject("in/positions", "holds " + exact_text(tensor.values[n]) + " at " + index_text(tensor, n) +
                               "; at most 2^53 is expected");
  }
  std::vector<double> positions;
  while (static_cast<Index>(positions.size()) < rows())
    positions.insert(positions.end(), tensor.values.begin(), tensor.values.end());
  return positions;
}

std::vector<double> RopeCase::counted_positions() const {
  const Index length = shape.sizes.s;
  std::vector<double> positions;
  if (layout_ != Layout::thd) {
    for (Index row = 0; row < rows(); ++row)
      positions.push_back(position_start_ + static_cast<double>(row % length));
    return positions;
  }
  const Tensor& tensor = *case_.input("cu_seqlens");
  const std::vector<double>& starts = tensor.values;
  const bool good = tensor.shape.size() == 1 && starts.size() >= 2 && starts.front() == 0 &&
                    std::is_sorted(starts.begin(), starts.end()) &&
                    starts.back() == static_cast<double>(length);
  if (!good) {
    reject("in/cu_seqlens", "must be [B + 1] integers that start with 0, never decrease and end with the " +
                                std::to_string(length) + " packed rows");
  }
  for (std::size_t n = 1; n < starts.size(); ++n) {
    for (double row = starts[n - 1]; row < starts[n]; ++row)
      positions.push_back(position_start_ + row - starts[n - 1]);
  }
  return positions;
}

Index RopeCase::first_row(Index row) const {
  const Tensor* starts = case_.input("cu_seqlens");
  if (!starts) return row / shape.sizes.s * shape.sizes.s;
  const auto next = std::ranges::upper_bound(starts->values, static_cast<double>(row));
  return static_cast<Index>(*(next - 1));
}

void RopeCase::read_table() {
  const Tensor &cos = *case_.input("cos"), &sin = *case_.input("sin");
  const std::string s = layout_ == Layout::thd ? "T" : "S";
  // With positions the table is a cache whose rows they number.
  const std::string pattern = has_positions_ ? "P W" : cos.shape.size() == 3 && s == "S" ? "B S W" : s + " W";
  extents_.unify(pattern, cos, "in/cos");
  extents_.unify(pattern, sin, "in/sin");
  const Index width = extents_["W"], table_rows = cos.size() / std::max(width, Index{1});
  if (width != spec.rotary_dim && width != spec.pairs()) {
    reject("in/cos", "has " + std::to_string(width) + " columns; rotary_dim = " +
                         std::to_string(spec.rotary_dim) + " or half of that is expected");
  }
  source.cos = {cos.values.data(), {table_rows, width}};
  source.sin = {sin.values.data(), {table_rows, width}};
  for (Index row = 0; row < rows(); ++row) {
    Index at = pattern.front() == 'B' ? row : row % shape.sizes.s;
    if (has_positions_) {
      const double position = source.positions[row];
      if (!(0 <= position && position < static_cast<double>(table_rows))) {
        reject("in/cos", "has " + std::to_string(table_rows) + " rows, but row " + std::to_string(row) +
                             " of the tensor has position " + exact_text(position));
      }
      at = static_cast<Index>(position);
    }
    source.table_rows.push_back(at);
  }
}

void RopeCase::read_angles() {
  if (const Tensor* inv_freq = case_.input("inv_freq")) {
    extents_.bind("R/2", spec.pairs(), "spec attribute rotary_dim");
    extents_.unify("R/2", *inv_freq, "in/inv_freq");
    source.frequencies = bounds::pair_frequencies(inv_freq->values, source.rule);
  } else {
    source.frequencies = bounds::pair_frequencies(frequencies, spec.rotary_dim, source.rule);
  }
}

void RopeCase::use_exact_angles() {
  source.rule = AngleRule::exact;
  read_angles();
}

void RopeCase::check_values() const {
  for (const auto& [name, tensor] : case_.in) {
    for (Index n = 0; n < tensor.size(); ++n) {
      const double x = tensor.values[n];
      if (std::isfinite(x)) continue;
      reject("in/" + name, std::string("holds ") + (std::isnan(x) ? "NaN" : "an infinity") + " at " +
                               index_text(tensor, n) + "; finite values are expected");
    }
  }
}

}  // namespace attest
