// RMSNorm and LayerNorm, forward and backward, and LayerNorm with a linear layer behind it. Fractions are
// kept back to the end, so that what is exact in the reals is exact here:
//   LayerNorm  D_j = N x_j - sum x,  V = N sum x^2 - (sum x)^2 + N^2 eps,  xhat_j = D_j / sqrt V,      rstd =
//   N / sqrt V RMSNorm    D_j = x_j,            V = sum x^2 + N eps,                  xhat_j = D_j sqrt(N /
//   V),  rstd = sqrt(N / V)
#include "data/golden/results.hpp"

namespace attest::golden {
namespace {

struct NormRow {
  std::vector<Interval> d;
  Interval v, sum, rstd;
  Interval unit;  // xhat = unit D
};

NormRow norm_row(const std::vector<Interval>& x, bool is_centred, double eps) {
  NormRow row;
  const Interval n(static_cast<double>(x.size()));
  Interval squares;
  for (const Interval& value : x) {
    row.sum += value;
    squares += square(value);
  }
  row.v =
      is_centred ? n * squares - square(row.sum) + square(n) * Interval(eps) : squares + n * Interval(eps);
  for (const Interval& value : x) row.d.push_back(is_centred ? n * value - row.sum : value);
  row.unit = is_centred ? Interval(1) / sqrt(row.v) : sqrt(n / row.v);
  row.rstd = is_centred ? n * row.unit : row.unit;
  return row;
}

/// x + residual, rounded to the type of the residual where the case says so.
std::vector<Interval> sum_of_row(const Case& c, Index first, Index count, Results& results) {
  const Tensor &x = c.in.at("x"), *residual = c.input("residual");
  std::vector<Interval> sum;
  for (Index n = first; n < first + count; ++n) {
    Interval value(x.values[n]);
    if (residual) value += Interval(residual->values[n]);
    if (residual && boolean(c.spec, "round_sum")) value = Interval(results.rounded(value, *residual->dtype));
    sum.push_back(value);
  }
  return sum;
}

Interval at_or(const Tensor* tensor, Index n, double fallback) {
  return Interval(tensor ? tensor->values[n] : fallback);
}

}  // namespace

void norm(const Case& c, Results& results) {
  const Tensor &x = c.in.at("x"), *weight = c.input("weight"), *bias = c.input("bias"), *dy = c.input("dy");
  const Index width = x.shape.back(), rows = x.size() / width;
  const bool is_centred = c.op == "layer_norm", rounds = boolean(c.spec, "cast_before_weight");
  std::vector<Index> per_row = x.shape;
  per_row.pop_back();
  Output *const y = results.output("y", x.shape), *const mean = results.output("mean", per_row),
                *const rstd = results.output("rstd", per_row), *const sum = results.output("sum", x.shape),
                *const dx = results.output("dx", x.shape),
                *const dweight = results.output("dweight", {width}),
                *const dbias = results.output("dbias", {width});
  const Interval n(static_cast<double>(width)), offset(number(c.spec, "weight_offset", 0));
  std::vector<Interval> dweights(width), dbiases(width);
  for (Index i = 0; i < rows; ++i) {
    const std::vector<Interval> values = sum_of_row(c, i * width, width, results);
    const NormRow row = norm_row(values, is_centred, number(c.spec, "eps", 0));
    if (mean) mean->set(i, row.sum / n);
    if (rstd) rstd->set(i, row.rstd);
    std::vector<Interval> g;
    Interval g_sum, gd_sum;
    for (Index j = 0; j < width; ++j) {
      const Index at = i * width + j;
      Interval xhat = row.d[j] * row.unit;
      const Interval w = weight ? at_or(weight, j, 1) + offset : Interval(1);
      if (dy) {
        dweights[j] += at_or(dy, at, 0) * xhat;
        dbiases[j] += at_or(dy, at, 0);
        g.push_back(w * at_or(dy, at, 0));
        g_sum += g.back();
        gd_sum += g.back() * row.d[j];
      }
      if (rounds) xhat = Interval(results.rounded(xhat, *x.dtype));
      if (y) y->set(at, w * xhat + at_or(bias, j, 0));
      if (sum) sum->set(at, values[j]);
    }
    // rstd (g - mean(g) - xhat mean(g xhat))
    for (Index j = 0; dx && j < width; ++j) {
      if (is_centred) {
        dx->set(i * width + j, ((n * g[j] - g_sum) * row.v - row.d[j] * gd_sum) / row.v * row.unit);
      } else {
        dx->set(i * width + j, (g[j] * row.v - row.d[j] * gd_sum) / row.v * row.unit);
      }
    }
  }
  for (Index j = 0; j < width; ++j) {
    if (dweight) dweight->set(j, dweights[j]);
    if (dbias) dbias->set(j, dbiases[j]);
  }
}

void layer_norm_qkv(const Case& c, Results& results) {
  const Tensor &x = c.in.at("x"), *weight = c.input("weight"), *bias = c.input("bias"),
               &matrix = c.in.at("qkv_weight"), *shift = c.input("qkv_bias");
  const Index batch = x.shape[0], tokens = x.shape[1], width = x.shape[2];
  const auto heads = static_cast<Index>(number(c.spec, "heads", 1));
  const Index columns = width / heads;
  const std::optional<DType> stored = dtype_named(text(c.contract, "intermediate_dtype", "float64"));
  const std::vector<Index> shape = {batch, heads, tokens, columns};
  Output* const outputs[3] = {results.output("q", shape), results.output("k", shape),
                              results.output("v", shape)};
  for (Index i = 0; i < batch * tokens; ++i) {
    const NormRow row = norm_row(sum_of_row(c, i * width, width, results), true, number(c.spec, "eps", 0));
    std::vector<Interval> y;
    for (Index j = 0; j < width; ++j) {
      y.push_back(at_or(weight, j, 1) * row.d[j] * row.unit + at_or(bias, j, 0));
      if (stored != DType::float64) y.back() = Interval(results.rounded(y.back(), *stored));
    }
    for (Index o = 0; o < 3 * width; ++o) {
      Output* const out = outputs[o / width];
      if (!out) continue;
      Interval value = at_or(shift, o, 0);
      for (Index j = 0; j < width; ++j) value.add_product(y[j], matrix.values[o * width + j]);
      const Index h = o % width / columns, d = o % columns;
      out->set(((i / tokens * heads + h) * tokens + i % tokens) * columns + d, value);
    }
  }
}

}  // namespace attest::golden
