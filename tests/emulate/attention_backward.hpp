// The backward pass of an emulated attention kernel.
#pragma once

#include "tests/emulate/attention_device.hpp"

namespace attest::emulate {

template <class Real>
Real Device<Real>::delta_of(Index row, const Results& forward) const {
  if (wrong_.drops_delta) return 0;
  const Index first = row / queries_ * queries_;
  const Index read = std::clamp(row + wrong_.delta_row_shift, first, first + queries_ - 1);
  if (wrong_.delta_rows > 0 && row - first >= wrong_.delta_rows) return 0;
  Real delta = 0;
  for (Index e = 0; e < (wrong_.delta_columns > 0 ? wrong_.delta_columns : e_); ++e) {
    const Real seen = kernel_.delta_of == DeltaOf::computed_o ? computed_o_[read * e_ + e]
                                                              : static_cast<Real>(forward.o[read * e_ + e]);
    const Real o = wrong_.delta_of_d_o ? d_o_[read * e_ + e] : rounded(seen, wrong_.delta_output);
    delta = rounded(delta + d_o_[read * e_ + e] * o, wrong_.delta);
  }
  return delta;
}

/// The derivative of the softcap times `gradient`.
template <class Real>
Real Device<Real>::capped_gradient(Index h, Index i, Index j, Real gradient) const {
  if (spec_.softcap == 0 || wrong_.no_softcap_derivative) return gradient;
  const Real cap = static_cast<Real>(spec_.softcap);
  Real t = tanh_of(raw_score(h, i, j) * scale_ / cap);
  if (wrong_.softcap_derivative_of_capped) t = std::tanh(t);
  return gradient * (1 - t * t);
}

/// What dS in memory has to be multiplied by.
template <class Real>
Real Device<Real>::after(int scales) const {
  Real factor = 1;
  for (int n = kernel_.ds_is_scaled ? 1 : 0; n < scales; ++n) factor *= scale_;
  return factor;
}

template <class Real>
void Device<Real>::add_dq(Index h, const std::vector<Real>& ds, Results& out) const {
  const Adder adder = narrowed(kernel_.pv, wrong_.dq_sum);
  const Index tiles = (keys_ + kernel_.tile - 1) / kernel_.tile;
  const bool is_in_memory = kernel_.splits > 1 || wrong_.dq_in_memory != DType::float64;
  for (Index i = 0; i < queries_; ++i) {
    for (Index d = 0; d < d_; ++d) {
      Real sum = 0;
      for (Index n = 0; n < tiles; ++n) {
        const bool is_faulty = is_faulty_tile(h, i, n, tiles);
        if (wrong_.drops_tile_of_dq && is_faulty) continue;
        const Index first = (kernel_.reversed ? tiles - 1 - n : n) * kernel_.tile;
        const Real* k = &k_[(kv_head(h) * keys_ + first) * d_ + d];
        const Real* row = &ds[i * keys_ + first];
        for (int times = wrong_.repeats_tile_of_dq && is_faulty ? 2 : 1; times > 0; --times) {
          // Split keys: every tile adds its share to memory.
          const Real share = add_products(
              adder, is_in_memory ? Real{0} : sum, std::min(kernel_.tile, keys_ - first),
              [&](Index j) { return row[j]; }, [&](Index j) { return backward_k(k[j * d_]); });
          sum = is_in_memory ? rounded(sum + share, wrong_.dq_in_memory) : share;
        }
      }
      out.dq.push_back(round_to(sum * after(wrong_.scales_of_dq), element_));
    }
  }
}

/// The share of head h in dk or dv.
template <class Real>
void Device<Real>::add_over_queries(Index h, std::vector<Real> factors, const std::vector<Real>& rows,
                                    Index width, Real factor, double block_factor,
                                    std::vector<Real>& sums) const {
  const Adder adder = narrowed(kernel_.pv, wrong_.dkv_sum);
  const Index g = kv_head(h);
  if (block_factor != 1) {
    for (Index i = 0; i < queries_; ++i) {
      if (!is_faulty_block(h, i)) continue;
      for (Index j = 0; j < keys_; ++j) factors[i * keys_ + j] *= static_cast<Real>(block_factor);
    }
  }
  if (wrong_.skips_last_rows && queries_ > 32) {
    const Index last = (queries_ - 1) / 32 * 32;
    std::fill(factors.begin() + last * keys_, factors.end(), Real{0});
  }
  for (Index j = 0; j < keys_; ++j) {
    for (Index d = 0; d < width; ++d) {
      Real& sum = sums[(g * keys_ + j) * width + d];
      if (wrong_.overwrites_gradients_of_group) sum = 0;
      const Real own = add_products(
          adder, kernel_.stores_gradients_per_head ? Real{0} : sum, queries_,
          [&](Index i) { return factors[i * keys_ + j]; },
          [&](Index i) { return rows[(h * queries_ + i) * width + d]; });
      sum =
          kernel_.stores_gradients_per_head ? sum + static_cast<Real>(round_to(own * factor, element_)) : own;
    }
  }
}

template <class Real>
void Device<Real>::backward_head(Index h, const Results& forward, Results& out) {
  const Index g = kv_head(h);
  const Adder dp_adder = narrowed(kernel_.qk, wrong_.dp_sum);
  std::vector<Real> p(queries_ * keys_), ds(queries_ * keys_);
  Real dsink = 0;
  for (Index i = 0; i < queries_; ++i) {
    const Index row = h * queries_ + i;
    const double read = wrong_.reads_maximum ? forward.m[row] : wrong_.lse_factor * forward.lse[row];
    const Real lse = rounded(static_cast<Real>(read), wrong_.lse);
    if (lse == lowest<Real>) continue;
    const Real* d_o = &d_o_[row * e_];
    const Real log2e = static_cast<Real>(std::numbers::log2e);
    std::vector<Real> weights(keys_), d_ps(keys_);
    std::vector<Index> visible;
    for (Index j = 0; j < keys_; ++j) {
      const Real s = score(h, i, j);
      if (s == lowest<Real>) continue;
      visible.push_back(j);
      const Real* v = &v_[(g * keys_ + j) * e_];
      const Real exponent =
          scale_is_fused_ ? static_cast<Real>(static_cast<double>(s) * unit_ - static_cast<Real>(lse * log2e))
                          : (s - lse) * log2e;
      weights[j] = with_error(exponent, wrong_.exp_error_of_backward);
      d_ps[j] = add_products(
          dp_adder, Real{0}, e_, [&](Index e) { return d_o[e]; }, [&](Index e) { return v[e]; });
    }
    Real delta = delta_of(row, forward);
    if (kernel_.delta_of == DeltaOf::weights)
      delta = std::inner_product(weights.begin(), weights.end(), d_ps.begin(), Real{0});
    if (in_.sink) dsink -= device_exp2((sink(h) - lse) * log2e) * delta;
    for (const Index j : visible) {
      const Real weight = weights[j], d_p = d_ps[j];
      p[i * keys_ + j] = rounded(stored(weight, wrong_.p_of_dv_is_cut_off), wrong_.p_of_dv);
      Real gradient = (kernel_.ds_from_stored_p ? p[i * keys_ + j] : weight) * (d_p - delta);
      gradient *= static_cast<Real>(wrong_.ds_factor);
      if (in_.bias) {
        Real& sum = dbias_[&in_.bias(h, i, j) - in_.bias.data_handle()];
        const Real share = kernel_.stores_gradients_per_head ? stored(gradient) : gradient;
        sum = wrong_.overwrites_dbias ? share : sum + share;
      }
      gradient = capped_gradient(h, i, j, gradient);
      const Real unrounded = kernel_.ds_is_scaled ? gradient * scale_ : gradient;
      ds[i * keys_ + j] = rounded(stored(unrounded, wrong_.ds_is_cut_off), wrong_.ds);
    }
  }
  if (in_.sink) out.dsink.push_back(dsink);
  add_dq(h, ds, out);
  add_over_queries(h, ds, q_, d_, after(wrong_.scales_of_dk), wrong_.block_of_dk, dk_);
  add_over_queries(h, p, d_o_, e_, 1, wrong_.block_of_dv, dv_);
}

template <class Real>
void Device<Real>::backward(Results& out) {
  is_backward_ = true;
  dk_.resize(k_.size());
  dv_.resize(v_.size());
  if (in_.bias) {
    Index last = 0;
    for (int r = 0; r < 3; ++r) last += (in_.bias.extent(r) - 1) * in_.bias.stride(r);
    dbias_.resize(last + 1);
  }
  for (Index h = 0; h < in_.q_heads(); ++h) backward_head(h, out, out);
  const Real factor = kernel_.stores_gradients_per_head ? Real{1} : after(wrong_.scales_of_dk);
  for (const Real x : dk_) out.dk.push_back(round_to(x * factor, element_));
  for (const Real x : dv_) out.dv.push_back(round_to(x, element_));
  for (const Real x : dbias_) out.dbias.push_back(round_to(x, element_));
  for (double& x : out.dsink) x = round_to(x, wide_);
}

}  // namespace attest::emulate
