// Sums over the keys of attention rows, for every column of V.
#include "verify/bounds/value_sums.hpp"

#include <algorithm>
#include <cmath>

namespace attest::bounds {
namespace {

using ValueKeys = ValueKey[rows_in_cache];
using CentredKeys = CentredKey[rows_in_cache];

void value_keys(const Weights& w, Index first, Index count, const Head& head, double vanishing,
                ValueKeys& keys) {
  for (Index n = 0; n < count; ++n) {
    const Index c = first + n;
    const double p = w.p[c];
    keys[n] = {head.v_row(w.key[c]),
               p,
               p * p,
               w.store[c],
               w.store_variance[c],
               p < vanishing ? p : 0,
               {w.predicted[0][c], w.predicted[1][c], w.predicted[2][c]}};
  }
}

void centred_keys(const Weights& w, Index first, Index count, const Head& head, CentredKeys& keys) {
  for (Index n = 0; n < count; ++n) {
    const Index c = first + n;
    const double p = w.p[c], variance = w.variance[c];
    keys[n] = {head.v_row(w.key[c]), p * w.growth[c],        p, p * variance, p * p * variance,
               p * w.tangent[c],     p * std::sqrt(variance)};
  }
}

/// The sink is a key whose value is 0.
void add_sink(ValueSums& row) {
  const Weights& w = row.w;
  for (ValueBlock& sums : row.blocks) {
    for (Index e = 0; e < lanes; ++e) {
      const double x = sums.o[e], size = std::abs(x), p = w.sink_p;
      sums.worst[e] += p * std::expm1(w.sink_delta) * size;
      sums.spread[e] += p * size;
      sums.second_order[e] += p * w.sink_variance * size;
      sums.variance[e] += p * p * w.sink_variance * x * x;
      sums.coherent[e] += p * std::sqrt(w.sink_variance) * size;
    }
  }
}

}  // namespace

void compute_value_sums(std::span<ValueSums> rows, const Head& head, const Arithmetic& arithmetic) {
  const double vanishing = std::max(arithmetic.u, arithmetic.p_half_subnormal);
  const Index blocks = padded(head.v_width) / lanes;
  Index most = 0;
  for (ValueSums& row : rows) {
    row.blocks.assign(blocks, {});
    most = std::max(most, row.w.count());
  }
  const auto for_pieces = [&](const auto& add) {
    for (Index first = 0; first < most; first += rows_in_cache) {
      for (ValueSums& row : rows) {
        if (first < row.w.count()) add(row, first, std::min(rows_in_cache, row.w.count() - first));
      }
    }
  };
  for_pieces([&](ValueSums& row, Index first, Index count) {
    ValueKeys keys;
    value_keys(row.w, first, count, head, vanishing, keys);
    vector_kernels().add_values(row.blocks.data(), blocks, keys, count);
  });
  for_pieces([&](ValueSums& row, Index first, Index count) {
    CentredKeys keys;
    centred_keys(row.w, first, count, head, keys);
    vector_kernels().add_centred(row.blocks.data(), blocks, keys, count);
  });
  for (ValueSums& row : rows) {
    if (row.w.sink_p != 0) add_sink(row);
  }
}

}  // namespace attest::bounds
