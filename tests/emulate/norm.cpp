// Emulated RMSNorm and LayerNorm kernels and their dumps.
#include "tests/emulate/norm.hpp"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "tests/emulate/tensors.hpp"
#include "tests/support/random.hpp"

namespace attest::emulate {
namespace {

/// One kernel at work. Real is what it computes in.
template <class Real>
class Device {
 public:
  using Sum = NormKernel::Sum;
  using Moments = NormKernel::Moments;
  using Values = std::vector<Real>;

  Device(const NormSetup& setup, const NormKernel& kernel, const Case& c)
      : setup_(setup),
        kernel_(kernel),
        wrong_(kernel.mistakes),
        n_(setup.width()),
        rows_(c.in.at("x").size() / n_),
        is_centred_(setup.is_centred != kernel.mistakes.is_other_op) {
    const auto values = [&](const char* name) {
      const auto it = c.in.find(name);
      return it == c.in.end() ? Values{} : Values(it->second.values.begin(), it->second.values.end());
    };
    x_ = values("x");
    dy_ = values("dy");
    bias_ = values("bias");
    if (setup.has_residual && !wrong_.no_residual) {
      const Values residual = values("residual");
      for (std::size_t k = 0; k < x_.size(); ++k) {
        x_[k] += residual[k];
        sum_.push_back(round_to(x_[k], setup.element));
        if (setup.rounds_sum != wrong_.other_rounding_of_sum) x_[k] = static_cast<Real>(sum_[k]);
      }
    }
    const Values weight = values("weight");
    w_.assign(n_, 1);
    for (Index j = 0; j < n_ && setup.has_weight && !wrong_.no_weight; ++j) {
      double offset = wrong_.no_offset ? 0 : setup.weight_offset;
      if (wrong_.offset_twice) offset += 1;
      w_[j] = weight[j] + static_cast<Real>(offset);
      if (wrong_.offset_in_element) w_[j] = static_cast<Real>(round_to(w_[j], setup.element));
    }
  }

  void run(Case& c, bool with_gradients);

  std::vector<double> values(DType stored) {
    std::vector<double> y(x_.size());
    for (Index i = 0; i < rows_; ++i) {
      Real mean = 0, rstd = 0;
      statistics(row_of_statistics(i), mean, rstd);
      forward(i, mean, rstd, stored, &y[i * n_]);
    }
    return y;
  }

 private:
  const Real* row_of_statistics(Index i) const {
    return &x_[(wrong_.statistics_of_row_before && i == rows_ - 1 ? i - 1 : i) * n_];
  }
  Real rounded(double x, DType dtype) const {
    return dtype == DType::float64 ? static_cast<Real>(x) : static_cast<Real>(round_to(x, dtype));
  }
  Real total(const Values& terms, DType dtype) const;
  void moments(const Real* x, Real& mean, Real& square) const;
  void statistics(const Real* x, Real& mean, Real& rstd) const;
  Real xhat(Real x, Real mean, Real rstd) const {
    return kernel_.folds_mean ? x * rstd - mean * rstd : (x - mean) * rstd;
  }
  void forward(Index i, Real mean, Real rstd, DType stored, double* y) const;
  void backward(Index i, Real mean, Real rstd, double* dx) const;

  const NormSetup& setup_;
  const NormKernel& kernel_;
  const NormKernel::Mistakes& wrong_;
  Index n_, rows_;
  bool is_centred_;
  Values x_, dy_, bias_, w_;
  std::vector<double> sum_;
};

template <class Real>
Real Device<Real>::total(const Values& terms, DType dtype) const {
  if (kernel_.sum == Sum::sequential) {
    Real sum = 0;
    for (const Real t : terms) sum = rounded(sum + t, dtype);
    return sum;
  }
  Values lanes(32);
  for (std::size_t k = 0; k < terms.size(); ++k) {
    const std::size_t lane = kernel_.sum == Sum::lanes ? k % 32 : k * 32 / terms.size();
    lanes[lane] = rounded(lanes[lane] + terms[k], dtype);
  }
  for (std::size_t step = 16; step > 0; step /= 2) {
    for (std::size_t k = 0; k < step; ++k) lanes[k] = rounded(lanes[k] + lanes[k + step], dtype);
  }
  return lanes[0];
}

template <class Real>
void Device<Real>::moments(const Real* x, Real& mean, Real& square) const {
  Real count = static_cast<Real>(n_);
  if (wrong_.over_padded_width) count = static_cast<Real>((n_ + 31) / 32 * 32);
  const Real square_count = count - (wrong_.over_n_minus_1 ? 1 : 0);
  Values terms(x, x + n_);
  mean = 0;
  if (is_centred_ && kernel_.moments == Moments::welford) {
    Real sum = 0;
    for (Index j = 0; j < n_; ++j) {
      const Real delta = x[j] - mean;
      mean += delta / static_cast<Real>(j + 1);
      sum += delta * (x[j] - mean);
    }
    square = sum / square_count;
    return;
  }
  if (is_centred_) mean = total(terms, wrong_.sum_dtype) / count;
  const bool one_pass = is_centred_ && kernel_.moments == Moments::one_pass;
  for (Real& t : terms) {
    const Real centred = one_pass ? t : t - mean;
    t = centred * centred;
    if (wrong_.squares_in_element) t = rounded(t, setup_.element);
  }
  square = total(terms, wrong_.sum_dtype) / square_count;
  if (one_pass) square = std::max(Real{0}, square - mean * mean);
}

template <class Real>
void Device<Real>::statistics(const Real* x, Real& mean, Real& rstd) const {
  Real square = 0;
  moments(x, mean, square);
  Real eps = static_cast<Real>(setup_.eps);
  if (wrong_.eps_in_element) eps = static_cast<Real>(round_to(std::max(setup_.eps, 1e-4), setup_.element));
  if (wrong_.no_eps) eps = 0;
  if (wrong_.eps_times_max) {
    Real largest = 0;
    for (Index j = 0; j < n_; ++j) largest = std::max(largest, std::abs(x[j]));
    eps *= largest * largest;
  }
  // 2 ulp of a reciprocal root, in a pattern.
  const double shape =
      1 + 1.4 * (std::is_same_v<Real, float> ? 0x1p-23 : 0) * std::sin(1e3 * static_cast<double>(square) + 1);
  rstd = wrong_.eps_outside ? 1 / (std::sqrt(square) + eps)
                            : static_cast<Real>(shape / std::sqrt(static_cast<double>(square + eps)));
  if (wrong_.rstd_in_bfloat16) rstd = rounded(rstd, DType::bfloat16);
}

template <class Real>
void Device<Real>::forward(Index i, Real mean, Real rstd, DType stored, double* y) const {
  const bool casts = (setup_.casts || wrong_.casts) && !wrong_.does_not_cast;
  for (Index j = 0; j < n_; ++j) {
    const Real x = x_[i * n_ + j];
    Real z = xhat(x, mean, rstd);
    if (casts) z = rounded(z, setup_.element);
    z = kernel_.folds_weight && !casts ? (x - mean) * (rstd * w_[j]) : z * w_[j];
    if (kernel_.stores_product && casts) z = rounded(z, setup_.element);
    if (!bias_.empty() && !(wrong_.no_bias_in_a_row && i == rows_ / 2)) z += bias_[j];
    y[j] = round_to(rounded(z, wrong_.output_dtype), stored);
  }
}

template <class Real>
void Device<Real>::backward(Index i, Real mean, Real rstd, double* dx) const {
  const Real count = static_cast<Real>(n_);
  Values g(n_), gx(n_);
  for (Index j = 0; j < n_; ++j) {
    const Real x = x_[i * n_ + j];
    g[j] = w_[j] * dy_[i * n_ + j];
    if (setup_.casts) g[j] = rounded(g[j], setup_.element);
    const Real in_means = wrong_.no_weight_in_means ? dy_[i * n_ + j] : g[j];
    gx[j] = kernel_.cubes ? in_means * (x - mean) : in_means * xhat(x, mean, rstd);
  }
  Real c = total(gx, DType::float64) / count, mean_g = is_centred_ ? total(g, DType::float64) / count : 0;
  if (wrong_.no_mean_of_gx) c = 0;
  if (wrong_.no_mean_of_g) mean_g = 0;
  for (Index j = 0; j < n_; ++j) {
    const Real x = x_[i * n_ + j];
    const Real value = kernel_.cubes ? rstd * (g[j] - mean_g) - (x - mean) * (rstd * rstd * rstd * c)
                                     : rstd * (g[j] - mean_g - xhat(x, mean, rstd) * c);
    dx[j] = round_to(value, setup_.element);
  }
}

template <class Real>
void Device<Real>::run(Case& c, bool with_gradients) {
  const std::vector<Index>& shape = setup_.shape;
  std::vector<Index> rows_shape = shape;
  rows_shape.back() = 1;
  if (!setup_.keeps_trailing_1 && rows_shape.size() > 1) rows_shape.pop_back();
  Tensor y = tensor_of(setup_.element, shape), dx = y;
  Tensor mean = tensor_of(setup_.statistics, rows_shape), rstd = mean;
  Tensor dweight = tensor_of(setup_.statistics, {n_}), dbias = dweight;
  Values weight_sums(n_), bias_sums(n_), weight_block(n_), bias_block(n_);
  for (Index i = 0; i < rows_; ++i) {
    Real mu = 0, r = 0;
    statistics(row_of_statistics(i), mu, r);
    mean.values[i] = round_to(mu, setup_.statistics);
    rstd.values[i] = round_to(r, setup_.statistics);
    forward(i, mu, r, setup_.element, &y.values[i * n_]);
    if (!with_gradients) continue;
    if (kernel_.stores_statistics) {
      mu = static_cast<Real>(mean.values[i]);
      r = static_cast<Real>(rstd.values[i]);
    }
    backward(i, mu, r, &dx.values[i * n_]);
    for (Index j = 0; j < n_; ++j) {
      const Real dy = dy_[i * n_ + j];
      if (wrong_.dweight_loses_a_row && i == rows_ / 3) continue;
      weight_block[j] = rounded(weight_block[j] + dy * xhat(x_[i * n_ + j], mu, r), wrong_.dweight_dtype);
      bias_block[j] = rounded(bias_block[j] + dy, wrong_.dweight_dtype);
      if ((i + 1) % kernel_.row_block != 0 && i + 1 != rows_) continue;
      weight_sums[j] += weight_block[j];
      bias_sums[j] += bias_block[j];
      weight_block[j] = bias_block[j] = 0;
    }
  }
  for (Index j = 0; j < n_; ++j) {
    dweight.values[j] = round_to(weight_sums[j], setup_.statistics);
    dbias.values[j] = round_to(bias_sums[j], setup_.statistics);
  }
  c.out = {{"y", y}, {"rstd", rstd}};
  if (setup_.is_centred) c.out.emplace("mean", mean);
  if (setup_.has_residual) {
    c.out.emplace("sum", y);
    c.out.at("sum").values = wrong_.no_residual ? std::vector<double>(x_.begin(), x_.end()) : sum_;
  }
  if (!with_gradients) return;
  c.out.emplace("dx", dx);
  if (setup_.has_weight) c.out.emplace("dweight", dweight);
  if (setup_.has_bias) c.out.emplace("dbias", dbias);
}

double shaped(NormValues values, double x, Index i, Index j, Index n) {
  switch (values) {
    case NormValues::normal:
    case NormValues::equal_rows:
      return x;
    case NormValues::small:
      return 0.001 * x;
    case NormValues::large:
      return 60 * x;
    case NormValues::outlier:
      return j < 2 ? 40 * x : x;
    case NormValues::mean_30:
      return 30 + x;
    case NormValues::positive:
      return 0.5 + 0.14 * x;
    case NormValues::two_values:
      return x < 0 ? -1.3 : 1.3;
    case NormValues::alternating:
      return (j % 2 == 0 ? 100 : -100) + 0.1 * x;
    case NormValues::sorted:
      return 6.0 * static_cast<double>(j) / static_cast<double>(n) - 3 + 0.01 * x;
    case NormValues::zero_row:
      return i == 0 ? 0 : x;
  }
  return x;
}

}  // namespace

std::string name_of(NormValues values) {
  static constexpr const char* names[] = {"normal",  "small",    "large",      "outlier",
                                          "mean 30", "positive", "two values", "alternating",
                                          "sorted",  "zero row", "equal rows"};
  return names[static_cast<int>(values)];
}

std::string NormSetup::text() const {
  std::string text = std::string(is_centred ? "layer_norm " : "rms_norm ") +
                     std::string(format_of(element).name) + " " + name_of(values) + " [";
  for (const Index extent : shape) text += " " + std::to_string(extent);
  text += " ]";
  if (!has_weight) text += " no weight";
  if (weight_offset != 0) text += " offset";
  if (has_bias) text += " bias";
  if (has_residual) text += rounds_sum ? " residual" : " unrounded residual";
  if (has_residual && !declares_sum) text += " undeclared";
  if (casts) text += " cast";
  if (one_pass) text += " one pass";
  return text + " seed " + std::to_string(seed);
}

Case norm_inputs(const NormSetup& setup) {
  test::Random random(setup.seed);
  const Index n = setup.width();
  Case c;
  c.file = "emulated.h5";
  c.name = "case";
  c.op = setup.is_centred ? "layer_norm" : "rms_norm";
  c.spec = {{"eps", setup.eps}};
  if (setup.weight_offset != 0) c.spec["weight_offset"] = setup.weight_offset;
  if (setup.casts) c.spec["cast_before_weight"] = true;
  if (setup.has_residual && setup.declares_sum) c.spec["round_sum"] = setup.rounds_sum;
  if (setup.one_pass) c.contract["variance"] = std::string("one_pass");
  Tensor x = tensor_of(setup.element, setup.shape), residual = x, dy = x;
  for (Index k = 0; k < x.size(); ++k) {
    const bool repeats = setup.values == NormValues::equal_rows && k >= n;
    const double value = shaped(setup.values, normal(random), k / n, k % n, n);
    x.values[k] = repeats ? x.values[k - n] : round_to(value, setup.element);
    residual.values[k] = round_to(0.7 * normal(random), setup.element);
    dy.values[k] = round_to(normal(random), setup.element);
  }
  if (setup.values == NormValues::zero_row) {
    for (Index j = 0; j < n; ++j) residual.values[j] = 0;
  }
  Tensor weight = tensor_of(setup.weight, {n}), bias = weight;
  for (Index j = 0; j < n; ++j) {
    weight.values[j] = round_to(1 - setup.weight_offset + 0.2 * normal(random), setup.weight);
    bias.values[j] = round_to(0.3 * normal(random), setup.weight);
  }
  c.in = {{"x", x}, {"dy", dy}};
  if (setup.has_residual) c.in.emplace("residual", residual);
  if (setup.has_weight) c.in.emplace("weight", weight);
  if (setup.has_bias) c.in.emplace("bias", bias);
  return c;
}

Case norm_dump(const NormSetup& setup, const NormKernel& kernel, bool with_gradients) {
  Case c = norm_inputs(setup);
  if (setup.element == DType::float64) {
    Device<double>(setup, kernel, c).run(c, with_gradients);
  } else {
    Device<float>(setup, kernel, c).run(c, with_gradients);
  }
  if (!with_gradients) c.in.erase("dy");
  return c;
}

std::vector<double> norm_values(const NormSetup& setup, const NormKernel& kernel, const Case& c,
                                DType stored) {
  return Device<float>(setup, kernel, c).values(stored);
}

}  // namespace attest::emulate
