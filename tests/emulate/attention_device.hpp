// The state of an emulated attention kernel, and the scores that both of its passes compute.
#pragma once

#include <algorithm>
#include <limits>
#include <numbers>
#include <numeric>
#include <type_traits>

#include "tests/emulate/attention.hpp"

namespace attest::emulate {

template <class Real>
inline constexpr Real lowest = -std::numeric_limits<Real>::infinity();

/// Not rounded at all if the format is float64.
template <class Real>
Real rounded(Real x, DType dtype, bool cuts_off = false) {
  if (dtype == DType::float64) return x;
  return static_cast<Real>(round_to(x, dtype, cuts_off ? Rounding::toward_zero : Rounding::to_nearest_even));
}

/// An adder whose running sum has a format of its own.
inline Adder narrowed(Adder adder, DType dtype) {
  if (dtype == DType::float64) return adder;
  adder.kind = Adder::Kind::blocked;
  adder.dtype = dtype;
  return adder;
}

template <class Real>
class Device {
 public:
  Device(const Kernel& kernel, const AttentionSpec& spec, const AttentionInputs& in,
         View<const double, 3> d_o, DType element)
      : kernel_(kernel),
        wrong_(kernel.mistakes),
        spec_(spec),
        in_(in),
        element_(element),
        wide_(std::is_same_v<Real, double> ? DType::float64 : DType::float32),
        queries_(in.queries()),
        keys_(in.keys()),
        d_(in.qk_width()),
        e_(in.v_width()),
        scale_is_fused_(kernel.algorithm != Algorithm::standard && spec.softcap == 0 && spec.scale > 0 &&
                        !in.bias && !in.alibi_slopes && !in.sink && wrong_.scores == DType::float64),
        scale_(static_cast<Real>(spec.scale)),
        unit_(static_cast<Real>(scale_is_fused_ ? spec.scale * std::numbers::log2e : std::numbers::log2e)),
        q_(dense(in.q)),
        k_(dense(in.k)),
        v_(dense(in.v)),
        d_o_(dense(d_o)) {}

  Results run();

 private:
  /// One worker's share of a row; o is normalised, m in the units of scores.
  struct Partial {
    Real m = lowest<Real>, l = 0;
    std::vector<Real> o;
  };

  std::vector<Real> dense(View<const double, 3> x) const;
  Index kv_head(Index h) const {
    return wrong_.kv_head ? wrong_.kv_head(h, in_.q_heads(), in_.kv_heads()) : in_.kv_head(h);
  }
  bool is_faulty_block(Index h, Index i) const { return h == 0 && i / kernel_.tile == 1; }
  bool is_faulty_tile(Index h, Index i, Index n, Index count) const;
  Real stored(Real x, bool cuts_off = false) const {
    if (wrong_.products_in_tf32) return static_cast<Real>(to_tf32(x, wrong_.tf32_cuts_off));
    return static_cast<Real>(
        round_to(x, kernel_.p_dtype, cuts_off ? Rounding::toward_zero : Rounding::to_nearest_even));
  }
  /// exp((s - m) unit), m and s in the units of scores.
  Real exponential(Real s, Real m) const {
    if (s == lowest<Real>) return 0;
    const Real z = scale_is_fused_
                       ? static_cast<Real>(static_cast<double>(s) * unit_ - static_cast<Real>(m * unit_))
                       : static_cast<Real>((s - m) * unit_);
    return with_error(z, wrong_.exp_error);
  }
  /// By which sums relative to one maximum become sums relative to another; exactly 1 if it is the same.
  Real rescale(Real from, Real to) const {
    return from == lowest<Real> ? Real{0}
                                : with_error(static_cast<Real>((from - to) * unit_), wrong_.exp_error);
  }
  /// Of either sign, and largest at 0: a minimax polynomial errs most at the ends of its interval.
  static Real with_error(Real z, double error) {
    const Real y = device_exp2(z);
    return error == 0 ? y : static_cast<Real>(y * (1 + error * std::cos(8 * static_cast<double>(z))));
  }
  /// Neighbouring arguments have neighbouring errors, as with tables.
  Real tanh_of(Real x) const {
    const Real t = std::tanh(x);
    return wrong_.tanh_error == 0
               ? t
               : static_cast<Real>(t * (1 + wrong_.tanh_error * std::cos(20 * static_cast<double>(x))));
  }
  Real natural(Real s) const { return scale_is_fused_ ? s * scale_ : s; }
  Real sink(Index h) const { return static_cast<Real>(wrong_.sink_factor * in_.sink(h)); }

  bool is_visible(Index h, Index i, Index j) const;
  /// Key j, whose vector is read from row `from` of K.
  Real score(Index h, Index i, Index j, Index from) const;
  Real score(Index h, Index i, Index j) const { return score(h, i, j, j); }
  Real raw_score(Index h, Index i, Index from) const;
  Real backward_k(Real k) const {
    if (wrong_.scaled_k == DType::float64) return k;
    const Real factor = static_cast<Real>(static_cast<double>(scale_) * std::numbers::log2e);
    return rounded(k * factor, wrong_.scaled_k) / factor;
  }
  Real scaled(Index h, Real raw) const {
    const Real factor = static_cast<Real>(h == in_.q_heads() - 1 ? wrong_.scale_factor_of_last_head : 1.0);
    return scale_is_fused_ ? raw * factor : raw * scale_ * factor;
  }

  void forward_row(Index h, Index i, Results& out);
  Partial standard_row(Index h, const std::vector<Real>& s, std::vector<Real>& p) const;
  Partial flash_row(Index h, Index i, const std::vector<Real>& s, Index first_tile, Index last_tile) const;
  Partial merged(const std::vector<Partial>& parts, Real& lse) const;

  void backward_head(Index h, const Results& forward, Results& out);
  Real delta_of(Index row, const Results& forward) const;
  Real capped_gradient(Index h, Index i, Index j, Real gradient) const;
  void add_dq(Index h, const std::vector<Real>& ds, Results& out) const;
  void add_over_queries(Index h, std::vector<Real> factors, const std::vector<Real>& rows, Index width,
                        Real factor, double block_factor, std::vector<Real>& sums) const;
  Real after(int scales) const;
  void backward(Results& out);

  const Kernel& kernel_;
  const Mistakes& wrong_;
  const AttentionSpec& spec_;
  const AttentionInputs& in_;
  const DType element_, wide_;
  const Index queries_, keys_, d_, e_;
  const bool scale_is_fused_;  // scores stay unscaled until the exponential
  const Real scale_, unit_;    // unit: log2(e) times what scores still lack
  const std::vector<Real> q_, k_, v_, d_o_;
  std::vector<Real> computed_o_;  // before it is stored
  bool is_backward_ = false;
  std::vector<Real> dk_, dv_, dbias_;  // running sums over the heads of a group
};

template <class Real>
std::vector<Real> Device<Real>::dense(View<const double, 3> x) const {
  std::vector<Real> values;
  for (Index h = 0; h < x.extent(0); ++h) {
    for (Index s = 0; s < x.extent(1); ++s) {
      for (Index d = 0; d < x.extent(2); ++d) {
        values.push_back(static_cast<Real>(wrong_.products_in_tf32 ? to_tf32(x(h, s, d), wrong_.tf32_cuts_off)
                                                                   : x(h, s, d)));
      }
    }
  }
  return values;
}

template <class Real>
bool Device<Real>::is_visible(Index h, Index i, Index j) const {
  const Index on_diagonal = diagonal(spec_, in_, i);
  const Index shift = wrong_.diagonal_shift + (is_backward_ ? wrong_.diagonal_shift_of_backward : 0);
  Index last = on_diagonal + shift;
  if (wrong_.leaves_diagonal_tile_open && last >= 0) last = (last / kernel_.tile + 1) * kernel_.tile - 1;
  if (spec_.causal != Causal::none && j > last) return false;
  if (!(is_backward_ && wrong_.backward_ignores_window)) {
    if (spec_.window_left >= 0 && j < on_diagonal - spec_.window_left) return false;
    if (spec_.window_right >= 0 && j > on_diagonal + spec_.window_right) return false;
  }
  return !in_.mask || (is_backward_ && wrong_.backward_ignores_mask) || in_.mask(h, i, j) != 0;
}

template <class Real>
Real Device<Real>::raw_score(Index h, Index i, Index from) const {
  const Real* q = &q_[(h * queries_ + i) * d_];
  const Real* k = &k_[(kv_head(h) * keys_ + from) * d_];
  const auto sum = [&](auto factor) {
    return add_products(kernel_.qk, Real{0}, d_, factor,
                        [&](Index n) { return is_backward_ ? backward_k(k[n]) : k[n]; });
  };
  if (wrong_.scaled_q == DType::float64)
    return rounded(sum([&](Index n) { return q[n]; }), wrong_.raw_scores);
  return sum([&](Index n) { return rounded(q[n] * scale_, wrong_.scaled_q); }) / scale_;
}

template <class Real>
Real Device<Real>::score(Index h, Index i, Index j, Index from) const {
  if (!is_visible(h, i, j))
    return static_cast<Real>(scale_is_fused_ ? wrong_.hidden_score / scale_ : wrong_.hidden_score);
  Real s = raw_score(h, i, from);
  if (scale_is_fused_) return scaled(h, s);
  const Real bias = in_.bias ? static_cast<Real>(wrong_.bias_factor * in_.bias(h, i, j)) : 0;
  const Real cap = static_cast<Real>(spec_.softcap);
  if (wrong_.bias_inside_scale) s += bias;
  s = scaled(h, s);
  if (wrong_.bias_inside_softcap) s += bias;
  if (cap > 0) s = (wrong_.softcap_keeps_factor ? s : cap) * tanh_of(s / cap);
  if (cap > 0 && wrong_.softcap_twice) s = cap * tanh_of(s / cap);
  if (in_.alibi_slopes) {
    s -= static_cast<Real>(wrong_.alibi_factor * in_.alibi_slopes(h)) *
         static_cast<Real>(alibi_distance(spec_.alibi, diagonal(spec_, in_, i), j));
  }
  if (!wrong_.bias_inside_scale && !wrong_.bias_inside_softcap) s += bias;
  return rounded(s, wrong_.scores);
}

}  // namespace attest::emulate
