// Emulated multi-head attention: projections, an emulated attention kernel, and a projection.
#include "tests/emulate/multihead_attention.hpp"

#include <cmath>
#include <vector>

#include "tests/emulate/tensors.hpp"

namespace attest::emulate {
namespace {

using Values = std::vector<double>;

template <class Real>
class Pipeline {
 public:
  Pipeline(const MultiheadSetup& setup, const MultiheadKernel& kernel, Case& c)
      : s_(setup),
        kernel_(kernel),
        c_(c),
        heads_(kernel.heads > 0 ? kernel.heads : setup.heads),
        head_width_(setup.width / heads_) {}

  void run();

 private:
  /// Rows of x[S, M] times rows [first, first + M) of a weight.
  Values project(const Adder& adder, const Values& x, const std::string& weight, const std::string& bias,
                 Index first, bool has_bias, DType stored) const;
  /// [S, M] of batch entry b.
  Values rows(const Tensor& tensor, Index length, Index b) const;
  View<const double, 3> heads(const Values& x) const {
    const Index length = static_cast<Index>(x.size()) / s_.width, d = head_width_;
    if (kernel_.interleaves_heads) return {x.data(), {heads_, length, d}, {1, s_.width, heads_}};
    return {x.data(), {heads_, length, d}, {d, s_.width, 1}};
  }
  Index place(Index length, Index b, Index i) const {
    const bool batch_first = s_.batch_first != kernel_.exchanges_layout;
    return (batch_first ? b * length + i : i * s_.batch + b) * s_.width;
  }
  /// As a kernel reads it.
  Values weight_of(const std::string& name) const;
  /// [S, M] of what the heads found, [H, S, D].
  Values joined(const Values& found) const;
  void add_weights(const Values& p, Index keys, Values& weights) const;

  const MultiheadSetup& s_;
  const MultiheadKernel& kernel_;
  Case& c_;
  Index heads_, head_width_;
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
  const Values w = weight_of(weight);
  Values y;
  const auto operand = [&](double value) {
    return static_cast<Real>(kernel_.projects_in_tf32 ? to_tf32(value) : value);
  };
  for (std::size_t row = 0; row < x.size(); row += m) {
    for (Index n = 0; n < m; ++n) {
      Real sum = add_products(
          adder, Real{0}, m, [&](Index d) { return operand(x[row + d]); },
          [&](Index d) { return operand(w[(first + n) * m + d]); });
      if (has_bias && kernel_.stores_before_bias) sum = static_cast<Real>(round_to(sum, stored));
      const Index from = kernel_.shifts_in_bias && weight == "in_proj_weight" ? (first + m) % (3 * m) : first;
      if (has_bias) sum += static_cast<Real>(c_.in.at(bias).values[from + n]);
      y.push_back(round_to(sum, stored));
    }
  }
  return y;
}

template <class Real>
Values Pipeline<Real>::weight_of(const std::string& name) const {
  const bool is_in = name == "in_proj_weight";
  const Values& stored = c_.in.at(name).values;
  const Index m = s_.width, rows = static_cast<Index>(stored.size()) / m;
  Values w;
  for (Index r = 0; r < rows; ++r) {
    for (Index j = 0; j < m; ++j) {
      const bool is_transposed = is_in ? kernel_.transposes_in_weight : kernel_.transposes_out_weight;
      const double value = stored[is_transposed ? (r / m * m + j) * m + r % m : r * m + j];
      w.push_back(round_to(value, is_in ? kernel_.in_weight : kernel_.out_weight));
    }
  }
  return w;
}

template <class Real>
Values Pipeline<Real>::joined(const Values& found) const {
  Values o(found.size());
  const View<const double, 3> places = heads(o);
  const Index d = head_width_;
  for (Index n = 0; n < static_cast<Index>(o.size()); ++n) {
    const Index at = kernel_.joins_heads_untransposed
                         ? n
                         : &places(n / d / s_.queries, n / d % s_.queries, n % d) - o.data();
    o[at] = round_to(found[n], kernel_.attended);
  }
  return o;
}

template <class Real>
void Pipeline<Real>::add_weights(const Values& p, Index keys, Values& weights) const {
  const Index plane = s_.queries * keys;
  if (!s_.average_weights) weights.insert(weights.end(), p.begin(), p.end());
  for (Index at = 0; s_.average_weights && !p.empty() && at < plane; ++at) {
    Real sum = 0;
    const Index shown = kernel_.shows_weights_of_head_0 ? 1 : heads_;
    for (Index n = 0; n < shown; ++n) sum += static_cast<Real>(p[n * plane + at]);
    weights.push_back(round_to(kernel_.sums_weights ? sum : sum / static_cast<Real>(shown), s_.element));
  }
}

template <class Real>
void Pipeline<Real>::run() {
  const Index m = s_.width, h = heads_, keys = s_.is_self ? s_.queries : s_.keys;
  const AttentionSpec spec{kernel_.causal.value_or(s_.causal),
                           kernel_.scale_factor / std::sqrt(static_cast<double>(m / h)),
                           -1,
                           -1,
                           0,
                           EmptyRow::zero};
  Tensor& y = c_.out["y"] = tensor_of(s_.element, s_.batch_first ? std::vector{s_.batch, s_.queries, m}
                                                                 : std::vector{s_.queries, s_.batch, m});
  const Rounding rounding = kernel_.output_is_cut_off ? Rounding::toward_zero : Rounding::to_nearest_even;
  // What is rounded to nearest twice in one format is rounded once.
  const DType wide = s_.element == DType::float64 ? DType::float64 : DType::float32;
  const DType stored_first = kernel_.output == DType::float64 ? wide : kernel_.output;
  Values weights;
  for (Index b = 0; b < s_.batch; ++b) {
    const auto third = [&](const std::string& name, Index length, Index n) {
      const Values x = rows(c_.in.at(s_.is_self ? "x" : name), length, b);
      Values all = project(kernel_.in_projection, x, "in_proj_weight", "in_proj_bias", n * m,
                           s_.has_bias && !kernel_.forgets_in_bias && n != kernel_.forgets_bias_of,
                           kernel_.intermediate);
      for (double& value : all) value = round_to(value, kernel_.projected);
      return all;
    };
    const Values q = third("query", s_.queries, kernel_.swaps_q_and_k ? 1 : 0);
    const Values k = third("key", keys, kernel_.swaps_q_and_k ? 0 : kernel_.swaps_k_and_v ? 2 : 1);
    const Values v =
        third(kernel_.makes_values_of_key ? "key" : "value", keys, kernel_.swaps_k_and_v ? 1 : 2);
    AttentionInputs in{heads(q), heads(k), heads(v), {}, {}, {}, {}, 0};
    if (s_.has_mask) in.mask = {&c_.in.at("mask").values[b * keys], {h, s_.queries, keys}, {0, 0, 1}};
    const Results found = emulate::run(kernel_.attention, spec, in, {}, kernel_.intermediate);

    const Values rows_of_y =
        project(kernel_.out_projection, joined(found.o), "out_proj_weight", "out_proj_bias", 0,
                s_.has_bias && !kernel_.forgets_out_bias, stored_first);
    for (Index n = 0; n < static_cast<Index>(rows_of_y.size()); ++n) {
      const bool is_skipped = kernel_.skips_last_row && b == s_.batch - 1 && n / m == s_.queries - 1;
      y.values[place(s_.queries, b, n / m) + n % m] =
          is_skipped ? 0 : round_to(rows_of_y[n], s_.element, rounding);
    }
    add_weights(found.p, keys, weights);
  }
  if (weights.empty()) return;
  c_.out["weights"] = tensor_of(s_.element, s_.average_weights ? std::vector{s_.batch, s_.queries, keys}
                                                               : std::vector{s_.batch, h, s_.queries, keys});
  for (std::size_t n = 0; n < weights.size(); ++n)
    c_.out["weights"].values[n] = round_to(round_to(weights[n], kernel_.weights), s_.element);
}

}  // namespace

Case multihead_dump(Case c, const MultiheadKernel& kernel) {
  const auto text = [&](const char* key, const std::string& otherwise) {
    const auto at = c.spec.find(key);
    return at == c.spec.end() ? otherwise : std::get<std::string>(at->second);
  };
  MultiheadSetup s;
  s.is_self = c.in.contains("x");
  const Tensor& query = c.in.at(s.is_self ? "x" : "query");
  const Tensor& key = c.in.at(s.is_self ? "x" : "key");
  s.element = *query.dtype;
  s.batch_first = text("layout", "lbm") == "blm";
  s.batch = query.shape[s.batch_first ? 0 : 1];
  s.queries = query.shape[s.batch_first ? 1 : 0];
  s.keys = key.shape[s.batch_first ? 1 : 0];
  s.width = query.shape[2];
  s.heads = std::get<std::int64_t>(c.spec.at("heads"));
  const std::string causal = text("causal", "none");
  s.causal = causal == "none" ? Causal::none : causal == "top_left" ? Causal::top_left : Causal::bottom_right;
  s.has_bias = c.in.contains("in_proj_bias");
  const auto averages = c.spec.find("average_weights");
  s.average_weights = averages == c.spec.end() || std::get<bool>(averages->second);
  Pipeline<float>(s, kernel, c).run();
  return c;
}

Case multihead_dump(const MultiheadSetup& s, const MultiheadKernel& kernel) {
  Case c = multihead_inputs(s);
  const auto name = [](DType dtype) { return std::string(format_of(dtype).name); };
  if (kernel.intermediate != s.element) c.contract["intermediate_dtype"] = name(kernel.intermediate);
  if (kernel.attention.p_dtype != kernel.intermediate) c.contract["p_dtype"] = name(kernel.attention.p_dtype);
  if (s.element == DType::float64) {
    Pipeline<double>(s, kernel, c).run();
  } else {
    Pipeline<float>(s, kernel, c).run();
  }
  return c;
}

}  // namespace attest::emulate
