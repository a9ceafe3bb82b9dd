// Emulated multi-head attention: projections, an emulated attention kernel, and a projection.
#include "tests/emulate/multihead_attention.hpp"

#include <cmath>
#include <vector>

#include "tests/emulate/tensors.hpp"
#include "tests/support/random.hpp"

namespace attest::emulate {
namespace {

using Values = std::vector<double>;

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

template <class Real>
class Pipeline {
 public:
  Pipeline(const MultiheadSetup& setup, const MultiheadKernel& kernel, Case& c)
      : s_(setup), kernel_(kernel), c_(c) {}

  void run();

 private:
  /// Rows of x[S, M] times rows [first, first + M) of a weight.
  Values project(const Adder& adder, const Values& x, const std::string& weight, const std::string& bias,
                 Index first, bool has_bias, DType stored) const;
  /// [S, M] of batch entry b.
  Values rows(const Tensor& tensor, Index length, Index b) const;
  View<const double, 3> heads(const Values& x) const {
    const Index length = static_cast<Index>(x.size()) / s_.width, d = s_.width / s_.heads;
    if (kernel_.interleaves_heads) return {x.data(), {s_.heads, length, d}, {1, s_.width, s_.heads}};
    return {x.data(), {s_.heads, length, d}, {d, s_.width, 1}};
  }
  Index place(Index length, Index b, Index i) const {
    return (s_.batch_first ? b * length + i : i * s_.batch + b) * s_.width;
  }

  const MultiheadSetup& s_;
  const MultiheadKernel& kernel_;
  Case& c_;
};

template <class Real>
Values Pipeline<Real>::rows(const Tensor& tensor, Index length, Index b) const {
  Values x;
  for (Index i = 0; i < length; ++i) {
    const double* row = &tensor.values[place(length, b, i)];
    x.insert(x.end(), row, row + s_.width);
  }
  return x;
}

template <class Real>
Values Pipeline<Real>::project(const Adder& adder, const Values& x, const std::string& weight,
                               const std::string& bias, Index first, bool has_bias, DType stored) const {
  const Index m = s_.width;
  Values w = c_.in.at(weight).values, y;
  if (weight == "in_proj_weight")
    for (double& value : w) value = round_to(value, kernel_.in_weight);
  for (std::size_t row = 0; row < x.size(); row += m) {
    for (Index n = 0; n < m; ++n) {
      Real sum = add_products(
          adder, Real{0}, m, [&](Index d) { return static_cast<Real>(x[row + d]); },
          [&](Index d) { return static_cast<Real>(w[(first + n) * m + d]); });
      if (has_bias && kernel_.stores_before_bias) sum = static_cast<Real>(round_to(sum, stored));
      if (has_bias) sum += static_cast<Real>(c_.in.at(bias).values[first + n]);
      y.push_back(round_to(sum, stored));
    }
  }
  return y;
}

template <class Real>
void Pipeline<Real>::run() {
  const Index m = s_.width, h = s_.heads, keys = s_.is_self ? s_.queries : s_.keys;
  const AttentionSpec spec{
      s_.causal, kernel_.scale_factor / std::sqrt(static_cast<double>(m / h)), -1, -1, 0, EmptyRow::zero};
  Tensor& y = c_.out["y"] = tensor_of(s_.element, s_.batch_first ? std::vector{s_.batch, s_.queries, m}
                                                                 : std::vector{s_.queries, s_.batch, m});
  Values weights;
  for (Index b = 0; b < s_.batch; ++b) {
    const auto third = [&](const std::string& name, Index length, Index n) {
      const Values x = rows(c_.in.at(s_.is_self ? "x" : name), length, b);
      return project(kernel_.in_projection, x, "in_proj_weight", "in_proj_bias", n * m,
                     s_.has_bias && !kernel_.forgets_in_bias && n != kernel_.forgets_bias_of,
                     kernel_.intermediate);
    };
    const Values q = third("query", s_.queries, kernel_.swaps_q_and_k ? 1 : 0);
    const Values k = third("key", keys, kernel_.swaps_q_and_k ? 0 : 1);
    const Values v = third("value", keys, 2);
    AttentionInputs in{heads(q), heads(k), heads(v), {}, {}, {}, {}, 0};
    if (s_.has_mask) in.mask = {&c_.in.at("mask").values[b * keys], {h, s_.queries, keys}, {0, 0, 1}};
    const Results found = emulate::run(kernel_.attention, spec, in, {}, kernel_.intermediate);

    Values o(s_.queries * m);  // heads joined again, as they were split
    const View<const double, 3> places = heads(o);
    for (Index n = 0; n < static_cast<Index>(o.size()); ++n) {
      const Index d = m / h;
      o[&places(n / d / s_.queries, n / d % s_.queries, n % d) - o.data()] = found.o[n];
    }
    const Values rows_of_y = project(kernel_.out_projection, o, "out_proj_weight", "out_proj_bias", 0,
                                     s_.has_bias && !kernel_.forgets_out_bias, s_.element);
    for (Index n = 0; n < static_cast<Index>(rows_of_y.size()); ++n) {
      y.values[place(s_.queries, b, n / m) + n % m] = rows_of_y[n];
    }
    const Index plane = s_.queries * keys;
    if (!s_.average_weights) weights.insert(weights.end(), found.p.begin(), found.p.end());
    for (Index at = 0; s_.average_weights && !found.p.empty() && at < plane; ++at) {
      Real sum = 0;
      for (Index n = 0; n < h; ++n) sum += static_cast<Real>(found.p[n * plane + at]);
      weights.push_back(round_to(sum / static_cast<Real>(h), s_.element));
    }
  }
  if (weights.empty()) return;
  c_.out["weights"] = tensor_of(s_.element, s_.average_weights ? std::vector{s_.batch, s_.queries, keys}
                                                               : std::vector{s_.batch, h, s_.queries, keys});
  for (std::size_t n = 0; n < weights.size(); ++n)
    c_.out["weights"].values[n] = round_to(weights[n], s_.element);
}

}  // namespace

std::string MultiheadSetup::text() const {
  return std::string(format_of(element).name) + " " + std::string(name_of(data)) + ", batch " +
         std::to_string(batch) + ", " + std::to_string(queries) + " x " +
         std::to_string(is_self ? queries : keys) + ", width " + std::to_string(width) + ", " +
         std::to_string(heads) + " heads, " + (causal == Causal::none ? "" : "causal, ") +
         (has_mask ? "mask, " : "") + (has_bias ? "" : "no bias, ") + "seed " + std::to_string(seed);
}

Case multihead_dump(const MultiheadSetup& s, const MultiheadKernel& kernel) {
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
  const auto name = [](DType dtype) { return std::string(format_of(dtype).name); };
  if (kernel.intermediate != s.element) c.contract["intermediate_dtype"] = name(kernel.intermediate);
  if (kernel.attention.p_dtype != kernel.intermediate) c.contract["p_dtype"] = name(kernel.attention.p_dtype);

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
  if (s.element == DType::float64) {
    Pipeline<double>(s, kernel, c).run();
  } else {
    Pipeline<float>(s, kernel, c).run();
  }
  return c;
}

}  // namespace attest::emulate
