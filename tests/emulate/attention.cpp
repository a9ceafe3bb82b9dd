// The forward pass of an emulated attention kernel, in float arithmetic, or in double for float64 tensors.
#include "tests/emulate/attention.hpp"

#include "tests/emulate/attention_backward.hpp"
#include "tests/emulate/attention_device.hpp"

namespace attest::emulate {

template <class Real>
auto Device<Real>::standard_row(Index h, const std::vector<Real>& s, std::vector<Real>& p) const -> Partial {
  Partial row;
  row.o.resize(e_);
  if (in_.sink) row.m = sink(h);
  for (const Real x : s) row.m = std::max(row.m, x);
  if (row.m == lowest<Real>) return row;
  if (in_.sink) row.l = exponential(sink(h), row.m);
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
bool Device<Real>::is_faulty_tile(Index h, Index i, Index n, Index count) const {
  switch (wrong_.where) {
    case Where::one_block:
      return n == 1 && is_faulty_block(h, i);
    case Where::every_block:
      return n == 1;
    case Where::last_tile:
      return n == count - 1;
    case Where::every_tile:
      break;
  }
  return true;
}

template <class Real>
auto Device<Real>::flash_row(Index h, Index i, const std::vector<Real>& s, Index first_tile,
                             Index last_tile) const -> Partial {
  const Index tile = kernel_.tile;
  Partial row;
  row.o.resize(e_);
  row.m = static_cast<Real>(wrong_.no_maximum ? 0 : wrong_.first_maximum);
  if (in_.sink && (first_tile == 0 || wrong_.sink_per_split) && !wrong_.sink_weighs_1) {
    row.m = std::max(row.m, sink(h));
    row.l = 1;
  }
  std::vector<Real> p(tile);
  const auto visit = [&](Index t, bool is_faulty) {
    const Index first = t * tile, count = std::min(tile, keys_ - first);
    const Index padding = wrong_.attends_to_padding ? tile - count : 0;
    Real tile_m = padding > 0 ? Real{0} : lowest<Real>;
    for (Index j = 0; j < count; ++j) tile_m = std::max(tile_m, rounded(s[first + j], wrong_.maximum));
    if (tile_m == lowest<Real>) return;
    if (wrong_.skips_below > 0 && natural(tile_m) < natural(row.m) - wrong_.skips_below) return;
    Real m = wrong_.no_maximum ? Real{0} : std::max(row.m, tile_m);
    if (row.m != lowest<Real> && natural(m) - natural(row.m) <= kernel_.lazy_rescale) m = row.m;
    const bool is_stale = is_faulty && wrong_.stale_maximum && row.m != lowest<Real>;
    const Real reference = kernel_.algorithm == Algorithm::flash1 ? tile_m : is_stale ? row.m : m;
    const Real of_weights = rounded(reference, wrong_.maximum_of_weights);
    Real tile_l = 0;
    for (Index j = 0; j < count; ++j) {
      const Real weight = exponential(s[first + j], reference);
      p[j] = stored(exponential(s[first + j], of_weights), wrong_.p_is_cut_off);
      tile_l += wrong_.sums_stored_weights ? p[j] : weight;
    }
    for (Index n = 0; n < padding; ++n) tile_l += exponential(0, reference);
    const Real before = row.l == 0 ? Real{0} : rescale(row.m, m);
    const Index off = is_faulty && wrong_.stale_values && t > 0 ? -tile : 0;
    const Index step = is_faulty && wrong_.shifts_values ? 1 : 0;  // the row after, the last one stays
    const Real* v = &v_[kv_head(h) * keys_ * e_];
    const auto value = [&](Index j, Index e) {
      return v[std::min(first + j + off + step, keys_ - 1) * e_ + e];
    };
    const auto products = [&](Real start, Index e) {
      return add_products(
          kernel_.pv, start, count, [&](Index j) { return p[j]; }, [&](Index j) { return value(j, e); });
    };
    const bool is_kept = is_faulty && wrong_.misses_rescale;
    const Real l_before = is_faulty && wrong_.misses_rescale_of_sum ? row.l : before * row.l;
    if (kernel_.algorithm == Algorithm::flash1) {
      const Real now = rescale(tile_m, m), l = l_before + now * tile_l;
      const Real kept = (is_kept ? 1 : before) * row.l / l, added = now / l;
      for (Index e = 0; e < e_; ++e) {
        row.o[e] = rounded(kept * row.o[e] + added * products(0, e), wrong_.output_sum);
      }
      row.l = l;
    } else {
      for (Index e = 0; e < e_; ++e) {
        const Real start = is_kept ? row.o[e] : before * row.o[e];
        row.o[e] = wrong_.tile_sum == DType::float64 ? products(start, e)
                                                     : start + rounded(products(0, e), wrong_.tile_sum);
        row.o[e] = rounded(row.o[e], wrong_.output_sum);
      }
      row.l = l_before + tile_l;
    }
    row.l = rounded(row.l, wrong_.row_sum);
    row.m = m;
  };
  const Index tiles = last_tile - first_tile;
  for (Index n = 0; n < tiles; ++n) {
    const bool is_faulty = is_faulty_tile(h, i, n, tiles);
    if (is_faulty && wrong_.drops_tile) continue;
    const Index t = kernel_.reversed ? last_tile - 1 - n : first_tile + n;
    visit(t, is_faulty);
    if (is_faulty && wrong_.repeats_tile) visit(t, false);
  }
  if (in_.sink && wrong_.sink_weighs_1) row.l += 1;
  if (kernel_.algorithm == Algorithm::flash2 && row.l > 0 &&
      !(wrong_.is_not_divided && is_faulty_block(h, i))) {
    const Real inverse = (1 / row.l) * static_cast<Real>(1 + wrong_.reciprocal_error);
    for (Real& x : row.o) x *= inverse;
  }
  return row;
}

/// Of several workers; sets lse, too.
template <class Real>
auto Device<Real>::merged(const std::vector<Partial>& parts, Real& lse) const -> Partial {
  Partial row;
  row.o.resize(e_);
  std::vector<Real> part_lse;
  Real top = lowest<Real>, sum = 0;
  for (const Partial& part : parts) {
    const bool is_lost = wrong_.drops_split && &part == &parts.back();
    part_lse.push_back(part.l == 0 || is_lost
                           ? lowest<Real>
                           : rounded(natural(part.m) + std::log(part.l), wrong_.split_lse));
    top = std::max(top, part_lse.back());
    row.m = std::max(row.m, part.m);
  }
  const Real base = wrong_.merges_in_base_2 ? Real{1} : static_cast<Real>(std::numbers::log2e);
  const auto share = [&](Real of, Real in) {
    return of == lowest<Real> ? Real{0} : device_exp2(static_cast<Real>((of - in) * base));
  };
  for (const Real x : part_lse) sum += share(x, top);
  lse = top == lowest<Real> ? top
                            : top + std::log(sum) / (base == 1 ? static_cast<Real>(std::numbers::ln2) : 1);
  for (std::size_t n = 0; n < parts.size(); ++n) {
    if (parts[n].l == 0 || part_lse[n] == lowest<Real>) continue;
    row.l += rescale(parts[n].m, row.m) * parts[n].l;
    const Real weight = wrong_.averages_splits          ? 1 / static_cast<Real>(parts.size())
                        : wrong_.weights_splits_by_next ? share(part_lse[(n + 1) % parts.size()], lse)
                                                        : share(part_lse[n], lse);
    for (Index e = 0; e < e_; ++e) row.o[e] += weight * rounded(parts[n].o[e], wrong_.split_output);
  }
  return row;
}

template <class Real>
void Device<Real>::forward_row(Index h, Index i, Results& out) {
  std::vector<Real> s(keys_), p(keys_);
  const bool has_stale_keys =
      wrong_.stale_keys && (is_faulty_block(h, i) || wrong_.where != Where::one_block);
  for (Index j = 0; j < keys_; ++j) {
    s[j] = score(h, i, j, has_stale_keys && j / kernel_.tile == 1 ? j - kernel_.tile : j);
  }

  Partial row;
  Real lse;
  if (kernel_.algorithm == Algorithm::standard) {
    row = standard_row(h, s, p);
    lse = row.l == 0 ? lowest<Real> : row.m + std::log(row.l);
  } else {
    const Index tiles = (keys_ + kernel_.tile - 1) / kernel_.tile;
    std::vector<Partial> parts;
    const Index splits = std::min(kernel_.splits, tiles);
    for (Index n = 0; n < splits; ++n) {
      parts.push_back(flash_row(h, i, s, tiles * n / splits, tiles * (n + 1) / splits));
    }
    row = parts[0];
    lse = row.l == 0 ? lowest<Real> : natural(row.m) + std::log(row.l);
    if (splits > 1) row = merged(parts, lse);
  }
  const Rounding store = wrong_.output_is_cut_off ? Rounding::toward_zero : Rounding::to_nearest_even;
  for (const Real x : row.o) out.o.push_back(round_to(x, element_, store));
  computed_o_.insert(computed_o_.end(), row.o.begin(), row.o.end());
  out.lse.push_back(lse);
  out.m.push_back(natural(row.m));
  out.l.push_back(row.l);
  if (kernel_.algorithm != Algorithm::standard) return;
  for (const Real x : s) out.s.push_back(x);
  for (const Real x : p) out.p.push_back(x);
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
  if (!d_o_.empty()) backward(out);
  return out;
}

Results run(const Kernel& kernel, const AttentionSpec& spec, const AttentionInputs& in,
            View<const double, 3> d_o, DType element) {
  if (element == DType::float64) return Device<double>(kernel, spec, in, d_o, element).run();
  return Device<float>(kernel, spec, in, d_o, element).run();
}

}  // namespace attest::emulate
