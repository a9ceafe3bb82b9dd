// Emulated layer_norm_qkv kernels and their dumps.
#include "tests/emulate/layer_norm_qkv.hpp"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "tests/emulate/tensors.hpp"

namespace attest::emulate {
namespace {

/// Extents and options of a case.
struct Extents {
  Index batch, tokens, width, heads;
  bool heads_outside;

  explicit Extents(const Case& c)
      : batch(c.in.at("x").shape[0]),
        tokens(c.in.at("x").shape[1]),
        width(c.in.at("x").shape[2]),
        heads(std::get<std::int64_t>(c.spec.at("heads"))) {
    const auto layout = c.spec.find("layout");
    heads_outside = layout == c.spec.end() || std::get<std::string>(layout->second) == "bhsd";
  }
  Index head_width() const { return width / heads; }
  Index count() const { return batch * tokens; }
  std::vector<Index> shape() const {
    return heads_outside ? std::vector<Index>{batch, heads, tokens, head_width()}
                         : std::vector<Index>{batch, tokens, heads, head_width()};
  }
};

std::vector<double> normalised(const Case& c, const Extents& n, DType stored, const QkvKernel& kernel) {
  if (kernel.skips_norm) return c.in.at("x").values;
  NormSetup setup;
  setup.is_centred = true;
  setup.element = setup.weight = *c.in.at("x").dtype;
  setup.shape = {n.batch, n.tokens, n.width};
  setup.has_weight = c.in.contains("weight");
  setup.eps = std::get<double>(c.spec.at("eps"));
  Case read = c;
  if (kernel.forgets_norm_bias) read.in.erase("bias");
  std::vector<double> x = norm_values(setup, kernel.norm, read, DType::float32);
  for (double& value : x) {
    if (kernel.normalised != DType::float64) value = round_to(value, kernel.normalised);
    if (kernel.stores) value = round_to(value, stored);
  }
  return x;
}

/// Where in qkv_weight a kernel finds what it multiplies column j with, for output o.
Index weight_place(QkvWeight how, const Extents& n, Index o, Index j) {
  const Index m = n.width, d = n.head_width(), third = o / m, h = o % m / d, column = o % d;
  if (how == QkvWeight::by_heads) return ((h * 3 + third) * d + column) * m + j;
  if (how == QkvWeight::interleaved_heads) return (third * m + column * n.heads + h) * m + j;
  if (how == QkvWeight::transposed_thirds) return (third * m + j) * m + o % m;
  if (how == QkvWeight::transposed_whole) return j * 3 * m + o;
  return o * m + j;
}

/// What the kernel multiplies with, output by output.
std::vector<double> weights(const Case& c, const Extents& n, const QkvKernel& kernel) {
  const std::vector<double>& stored = c.in.at("qkv_weight").values;
  std::vector<double> w;
  for (Index o = 0; o < 3 * n.width; ++o)
    for (Index j = 0; j < n.width; ++j)
      w.push_back(round_to(stored[weight_place(kernel.weight, n, o, j)], kernel.weights));
  return w;
}

/// Of output o of token i.
Index output_place(const Extents& n, bool heads_outside, Index i, Index o) {
  const Index b = i / n.tokens, s = i % n.tokens, d = n.head_width(), h = o % n.width / d;
  const Index row = heads_outside ? (b * n.heads + h) * n.tokens + s : (b * n.tokens + s) * n.heads + h;
  return row * d + o % d;
}

}  // namespace

Case qkv_dump(Case c, DType stored, const QkvKernel& kernel) {
  const Extents n(c);
  const Index m = n.width;
  const DType element = *c.in.at("x").dtype;
  std::vector<double> x = normalised(c, n, stored, kernel);
  std::vector<double> w = weights(c, n, kernel);
  if (kernel.is_in_tf32) std::ranges::transform(x, x.begin(), [](double value) { return to_tf32(value); });
  if (kernel.is_in_tf32) std::ranges::transform(w, w.begin(), [](double value) { return to_tf32(value); });
  const auto bias = c.in.find("qkv_bias");
  std::vector<std::string> order = {"q", "k", "v"};
  if (kernel.exchanges_q_and_k) std::swap(order[0], order[1]);
  if (kernel.exchanges_k_and_v) std::swap(order[1], order[2]);
  for (const std::string& name : order) c.out[name] = tensor_of(element, n.shape());

  const Rounding rounding = kernel.output_is_cut_off ? Rounding::toward_zero : Rounding::to_nearest_even;
  for (Index i = 0; i < n.count() - kernel.last_not_written; ++i) {
    for (Index o = 0; o < 3 * m; ++o) {
      const bool drops = kernel.drops_a_block && i == n.count() / 2;
      float sum = add_products<float>(
          kernel.product, 0.0F, m - kernel.dropped_columns - (drops ? 16 : 0),
          [&](Index j) { return w[o * m + j]; }, [&](Index j) { return x[i * m + j]; });
      if (bias != c.in.end() && !kernel.forgets_bias && o / m != kernel.forgets_bias_of) {
        const Index from = kernel.shifts_bias ? (o + m) % (3 * m) : o;
        sum += static_cast<float>(bias->second.values[from]) * (kernel.has_bias_twice ? 2 : 1);
      }
      if (kernel.scales_q && o < m) sum /= std::sqrt(static_cast<float>(n.head_width()));
      const double first = kernel.output == DType::float64 ? sum : round_to(sum, kernel.output);
      c.out.at(order[o / m]).values[output_place(n, n.heads_outside != kernel.moves_heads, i, o)] =
          round_to(first, element, rounding);
    }
  }
  return c;
}

}  // namespace attest::emulate
