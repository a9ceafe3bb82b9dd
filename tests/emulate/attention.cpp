// An emulated attention kernel, in float arithmetic, or in double for float64 tensors.
#include "tests/emulate/attention.hpp"

#include <algorithm>
#include <limits>
#include <numbers>

namespace attest::emulate {
namespace {

template <class Real>
constexpr Real infinity = std::numeric_limits<Real>::infinity();

template <class Real>
std::vector<Real> dense(View<const double, 3> x) {
  std::vector<Real> values;
  for (Index h = 0; h < x.extent(0); ++h) {
    for (Index s = 0; s < x.extent(1); ++s) {
      for (Index d = 0; d < x.extent(2); ++d) values.push_back(static_cast<Real>(x(h, s, d)));
    }
  }
  return values;
}

template <class Real>
class Device {
 public:
  Device(const Kernel& kernel, const AttentionSpec& spec, const AttentionInputs& in,
         View<const double, 3> d_o, DType element)
      : kernel_(kernel),
        spec_(spec),
        in_(in),
        element_(element),
        wide_(std::is_same_v<Real, double> ? DType::float64 : DType::float32),
        queries_(in.queries()),
        keys_(in.keys()),
        d_(in.qk_width()),
        e_(in.v_width()),
        scale_is_fused_(kernel.algorithm != Algorithm::standard && spec.softcap == 0 && spec.scale > 0 &&
                        !in.bias && !in.alibi_slopes && !in.sink),
        scale_(static_cast<Real>(spec.scale)),
        unit_(static_cast<Real>(scale_is_fused_ ? spec.scale * std::numbers::log2e : std::numbers::log2e)),
        q_(dense<Real>(in.q)),
        k_(dense<Real>(in.k)),
        v_(dense<Real>(in.v)),
        d_o_(dense<Real>(d_o)) {}

  Results run();

 private:
  /// One worker's share of a row; o is normalised, m in the units of scores.
  struct Partial {
    Real m = -infinity<Real>, l = 0;
    std::vector<Real> o;
  };

  Index kv_head(Index h) const { return kernel_.mistakes.heads_modulo ? h % in_.kv_heads() : in_.kv_head(h); }
  bool is_faulty_block(Index h, Index i) const { return h == 0 && i / kernel_.tile == 1; }
  Real stored(Real x) const { return static_cast<Real>(round_to(x, kernel_.p_dtype)); }
  /// exp((s - m) unit), m and s in the units of scores.
  Real exponential(Real s, Real m) const {
    if (s == -infinity<Real>) return 0;
    if (!scale_is_fused_) return device_exp2(static_cast<Real>((s - m) * unit_));
    return device_exp2(static_cast<Real>(static_cast<double>(s) * unit_ - static_cast<Real>(m * unit_)));
  }
  Real natural(Real s) const { return scale_is_fused_ ? s * scale_ : s; }

  bool is_visible(Index h, Index i, Index j) const;
  Real score(Index h, Index i, Index j) const;
  void forward_row(Index h, Index i, Results& out);
  Partial standard_row(Index h, const std::vector<Real>& s, std::vector<Real>& p) const;
  Partial flash_row(Index h, Index i, const std::vector<Real>& s, Index first_tile, Index last_tile) const;
  void backward_head(Index h, const Results& forward, Results& out);

  const Kernel& kernel_;
  const AttentionSpec& spec_;
  const AttentionInputs& in_;
  const DType element_, wide_;
  const Index queries_, keys_, d_, e_;
  const bool scale_is_fused_;  // scores stay unscaled until the exponential
  const Real scale_, unit_;    // unit: log2(e) times what scores still lack
  const std::vector<Real> q_, k_, v_, d_o_;
  std::vector<Real> dk_, dv_, dbias_;  // running sums over the heads of a group
};

template <class Real>
bool Device<Real>::is_visible(Index h, Index i, Index j) const {
  const Index on_diagonal = diagonal(spec_, in_, i);
  if (spec_.causal != Causal::none && j > on_diagonal + kernel_.mistakes.diagonal_shift) return false;
  if (spec_.window_left >= 0 && j < on_diagonal - spec_.window_left) return false;
  if (spec_.window_right >= 0 && j > on_diagonal + spec_.window_right) return false;
  return !in_.mask || in_.mask(h, i, j) != 0;
}

template <class Real>
Real Device<Real>::score(Index h, Index i, Index j) const {
  if (!is_visible(h, i, j)) return -infinity<Real>;
  const Real* q = &q_[(h * queries_ + i) * d_];
  const Real* k = &k_[(kv_head(h) * keys_ + j) * d_];
  Real s = add_products(
      kernel_.qk, Real{0}, d_, [&](Index n) { return q[n]; }, [&](Index n) { return k[n]; });
  if (kernel_.mistakes.scores_in_bfloat16) s = static_cast<Real>(round_to(s, DType::bfloat16));
  if (scale_is_fused_) return s;
  s *= scale_;
  const Real cap = static_cast<Real>(spec_.softcap);
  if (cap > 0) s = cap * std::tanh(s / cap);
  if (in_.alibi_slopes) {
    s -= static_cast<Real>(in_.alibi_slopes(h)) * static_cast<Real>(std::abs(diagonal(spec_, in_, i) - j));
  }
  if (in_.bias) s += static_cast<Real>(in_.bias(h, i, j));
  return s;
}

template <class Real>
auto Device<Real>::standard_row(Index h, const std::vector<Real>& s, std::vector<Real>& p) const -> Partial {
  Partial row;
  row.o.resize(e_);
  if (in_.sink) row.m = static_cast<Real>(in_.sink(h));
  for (const Real x : s) row.m = std::max(row.m, x);
  if (row.m == -infinity<Real>) return row;
  if (in_.sink) row.l = exponential(static_cast<Real>(in_.sink(h)), row.m);
  for (Index j = 0; j < keys_; ++j) row.l += p[j] = exponential(s[j], row.m);
  for (Real& x : p) x = stored(x / row.l);
  const Real* v = &v_[kv_head(h) * keys_ * e_];
  for (Index e = 0; e < e_; ++e) {
    row.o[e] = add_products(
        kernel_.pv, Real{0}, keys_, [&](Index j) { return p[j]; }, [&](Index j) { return v[j * e_ + e]; });
  }
  return row;
}

template <class Real>
auto Device<Real>::flash_row(Index h, Index i, const std::vector<Real>& s, Index first_tile,
                             Index last_tile) const -> Partial {
  const Mistakes& wrong = kernel_.mistakes;
  const Index tile = kernel_.tile;
  Partial row;
  row.o.resize(e_);
  if (in_.sink && first_tile == 0) {
    row.m = static_cast<Real>(in_.sink(h));
    row.l = 1;
  }
  std::vector<Real> p(tile);
  const auto visit = [&](Index t, bool is_faulty) {
    const Index first = t * tile, count = std::min(tile, keys_ - first);
    const Index padding = wrong.attends_to_padding ? tile - count : 0;
    Real tile_m = padding > 0 ? Real{0} : -infinity<Real>;
    for (Index j = 0; j < count; ++j) tile_m = std::max(tile_m, s[first + j]);
    const Real m = std::max(row.m, tile_m);
    if (tile_m == -infinity<Real>) return;
    const Real reference = kernel_.algorithm == Algorithm::flash1 ? tile_m : m;
    Real tile_l = 0;
    for (Index j = 0; j < count; ++j) {
      const Real weight = exponential(s[first + j], reference);
      tile_l += weight;
      p[j] = stored(weight);
    }
    for (Index n = 0; n < padding; ++n) tile_l += exponential(0, reference);
    const Real before = row.l == 0 ? Real{0} : exponential(row.m, m);
    const Real* v = &v_[(kv_head(h) * keys_ + first) * e_];
    const auto products = [&](Real start, Index e) {
      return add_products(
          kernel_.pv, start, count, [&](Index j) { return p[j]; }, [&](Index j) { return v[j * e_ + e]; });
    };
    if (kernel_.algorithm == Algorithm::flash1) {
      const Real now = exponential(tile_m, m), l = before * row.l + now * tile_l;
      const Real kept = (is_faulty && wrong.misses_rescale ? 1 : before) * row.l / l, added = now / l;
      for (Index e = 0; e < e_; ++e) row.o[e] = kept * row.o[e] + added * products(0, e);
      row.l = l;
    } else {
      for (Index e = 0; e < e_; ++e) {
        row.o[e] = products(is_faulty && wrong.misses_rescale ? row.o[e] : before * row.o[e], e);
      }
      row.l = before * row.l + tile_l;
    }
    row.m = m;
  };
  for (Index n = 0; n < last_tile - first_tile; ++n) {
    const bool is_faulty = n == 1 && is_faulty_block(h, i);
    if (is_faulty && wrong.drops_tile) continue;
    const Index t = kernel_.reversed ? last_tile - 1 - n : first_tile + n;
    visit(t, is_faulty);
    if (is_faulty && wrong.repeats_tile) visit(t, false);
  }
  if (kernel_.algorithm == Algorithm::flash2 && row.l > 0) {
    const Real inverse = 1 / row.l;
    for (Real& x : row.o) x *= inverse;
  }
  return row;
}

template <class Real>
void Device<Real>::forward_row(Index h, Index i, Results& out) {
  std::vector<Real> s(keys_), p(keys_);
  for (Index j = 0; j < keys_; ++j) s[j] = score(h, i, j);

  Partial row;
  Real lse;
  if (kernel_.algorithm == Algorithm::standard) {
    row = standard_row(h, s, p);
    lse = row.l == 0 ? -infinity<Real> : row.m + std::log(row.l);
  } else {
    const Index tiles = (keys_ + kernel_.tile - 1) / kernel_.tile;
    std::vector<Partial> parts;
    const Index splits = std::min(kernel_.splits, tiles);
    for (Index n = 0; n < splits; ++n) {
      parts.push_back(flash_row(h, i, s, tiles * n / splits, tiles * (n + 1) / splits));
    }
    row = parts[0];
    lse = row.l == 0 ? -infinity<Real> : natural(row.m) + std::log(row.l);
    if (splits > 1) {
      std::vector<Real> part_lse;
      Real top = -infinity<Real>, sum = 0;
      for (const Partial& part : parts) {
        part_lse.push_back(part.l == 0 ? -infinity<Real> : natural(part.m) + std::log(part.l));
        top = std::max(top, part_lse.back());
        row.m = std::max(row.m, part.m);
      }
      const auto share = [&](Real of, Real in) {
        return of == -infinity<Real>
                   ? Real{0}
                   : device_exp2(static_cast<Real>((of - in) * static_cast<Real>(std::numbers::log2e)));
      };
      for (const Real x : part_lse) sum += share(x, top);
      lse = top == -infinity<Real> ? top : top + std::log(sum);
      row.l = 0;
      std::fill(row.o.begin(), row.o.end(), Real{0});
      for (std::size_t n = 0; n < parts.size(); ++n) {
        if (parts[n].l == 0) continue;
        row.l += exponential(parts[n].m, row.m) * parts[n].l;
        for (Index e = 0; e < e_; ++e) row.o[e] += share(part_lse[n], lse) * parts[n].o[e];
      }
    }
  }
  for (const Real x : row.o) out.o.push_back(round_to(x, element_));
  out.lse.push_back(lse);
  out.m.push_back(natural(row.m));
  out.l.push_back(row.l);
  if (kernel_.algorithm != Algorithm::standard) return;
  for (const Real x : s) out.s.push_back(x);
  for (const Real x : p) out.p.push_back(x);
}

template <class Real>
void Device<Real>::backward_head(Index h, const Results& forward, Results& out) {
  const Mistakes& wrong = kernel_.mistakes;
  const Index g = kv_head(h);
  std::vector<Real> p(queries_ * keys_), ds(queries_ * keys_);
  Real dsink = 0;
  for (Index i = 0; i < queries_; ++i) {
    const Index row = h * queries_ + i;
    const Real lse = static_cast<Real>(forward.lse[row]);
    if (lse == -infinity<Real>) continue;
    const Real* d_o = &d_o_[row * e_];
    Real delta = 0;
    for (Index e = 0; e < e_; ++e) delta += d_o[e] * static_cast<Real>(forward.o[row * e_ + e]);
    if (wrong.drops_delta) delta = 0;
    const Real log2e = static_cast<Real>(std::numbers::log2e);
    if (in_.sink) dsink -= device_exp2((static_cast<Real>(in_.sink(h)) - lse) * log2e) * delta;
    for (Index j = 0; j < keys_; ++j) {
      const Real s = score(h, i, j);
      if (s == -infinity<Real>) continue;
      const Real* v = &v_[(g * keys_ + j) * e_];
      const Real exponent =
          scale_is_fused_ ? static_cast<Real>(static_cast<double>(s) * unit_ - static_cast<Real>(lse * log2e))
                          : (s - lse) * log2e;
      const Real weight = device_exp2(exponent);
      const Real d_p = add_products(
          kernel_.qk, Real{0}, e_, [&](Index e) { return d_o[e]; }, [&](Index e) { return v[e]; });
      p[i * keys_ + j] = stored(weight);
      Real gradient = (kernel_.ds_from_stored_p ? p[i * keys_ + j] : weight) * (d_p - delta);
      if (in_.bias) {
        Real& sum = dbias_[&in_.bias(h, i, j) - in_.bias.data_handle()];
        sum += kernel_.stores_gradients_per_head ? stored(gradient) : gradient;
      }
      if (spec_.softcap > 0) {
        const Real* q = &q_[row * d_];
        const Real* k = &k_[(g * keys_ + j) * d_];
        const Real qk = add_products(
            kernel_.qk, Real{0}, d_, [&](Index n) { return q[n]; }, [&](Index n) { return k[n]; });
        const Real t = std::tanh(qk * scale_ / static_cast<Real>(spec_.softcap));
        gradient *= 1 - t * t;
      }
      ds[i * keys_ + j] = stored(kernel_.ds_is_scaled ? gradient * scale_ : gradient);
    }
  }
  if (in_.sink) out.dsink.push_back(dsink);

  const Real after = kernel_.ds_is_scaled ? Real{1} : scale_;
  const Index tiles = (keys_ + kernel_.tile - 1) / kernel_.tile;
  for (Index i = 0; i < queries_; ++i) {
    for (Index d = 0; d < d_; ++d) {
      Real sum = 0;
      for (Index n = 0; n < tiles; ++n) {
        if (wrong.drops_tile_of_dq && n == 1 && is_faulty_block(h, i)) continue;
        const Index first = (kernel_.reversed ? tiles - 1 - n : n) * kernel_.tile;
        const Real* k = &k_[(g * keys_ + first) * d_ + d];
        const Real* row = &ds[i * keys_ + first];
        // Split keys: every tile adds its share to memory.
        const Real from = kernel_.splits > 1 ? Real{0} : sum;
        const Real share = add_products(
            kernel_.pv, from, std::min(kernel_.tile, keys_ - first), [&](Index j) { return row[j]; },
            [&](Index j) { return k[j * d_]; });
        sum = kernel_.splits > 1 ? sum + share : share;
      }
      out.dq.push_back(round_to(sum * after, element_));
    }
  }
  const auto over_queries = [&](const std::vector<Real>& factors, const std::vector<Real>& rows, Index width,
                                Real factor, std::vector<Real>& sums) {
    for (Index j = 0; j < keys_; ++j) {
      for (Index d = 0; d < width; ++d) {
        Real& sum = sums[(g * keys_ + j) * width + d];
        const Real own = add_products(
            kernel_.pv, kernel_.stores_gradients_per_head ? Real{0} : sum, queries_,
            [&](Index i) { return factors[i * keys_ + j]; },
            [&](Index i) { return rows[(h * queries_ + i) * width + d]; });
        sum = kernel_.stores_gradients_per_head ? sum + static_cast<Real>(round_to(own * factor, element_))
                                                : own;
      }
    }
  };
  over_queries(ds, q_, d_, wrong.forgets_scale_of_dk ? Real{1} : after, dk_);
  over_queries(p, d_o_, e_, 1, dv_);
}

template <class Real>
Results Device<Real>::run() {
  Results out;
  for (Index h = 0; h < in_.q_heads(); ++h) {
    for (Index i = 0; i < queries_; ++i) forward_row(h, i, out);
  }
  for (auto* x : {&out.lse, &out.m, &out.l, &out.s}) {
    for (double& value : *x) value = round_to(value, wide_);
  }
  if (d_o_.empty()) return out;

  dk_.resize(k_.size());
  dv_.resize(v_.size());
  if (in_.bias) {
    Index last = 0;
    for (int r = 0; r < 3; ++r) last += (in_.bias.extent(r) - 1) * in_.bias.stride(r);
    dbias_.resize(last + 1);
  }
  for (Index h = 0; h < in_.q_heads(); ++h) backward_head(h, out, out);
  const bool is_scaled =
      kernel_.stores_gradients_per_head || kernel_.ds_is_scaled || kernel_.mistakes.forgets_scale_of_dk;
  for (const Real x : dk_) out.dk.push_back(round_to(is_scaled ? x : x * scale_, element_));
  for (const Real x : dv_) out.dv.push_back(round_to(x, element_));
  for (const Real x : dbias_) out.dbias.push_back(round_to(x, element_));
  for (double& x : out.dsink) x = round_to(x, wide_);
  return out;
}

}  // namespace

Results run(const Kernel& kernel, const AttentionSpec& spec, const AttentionInputs& in,
            View<const double, 3> d_o, DType element) {
  if (element == DType::float64) return Device<double>(kernel, spec, in, d_o, element).run();
  return Device<float>(kernel, spec, in, d_o, element).run();
}

}  // namespace attest::emulate
