// Sums over the keys of one attention row, for every column of V.
#include "verify/bounds/value_sums.hpp"

#include <algorithm>
#include <cmath>

namespace attest::bounds {

void ValueSums::compute(const Weights& w, const Head& head, const Arithmetic& arithmetic) {
  const double vanishing = std::max(arithmetic.u, arithmetic.p_half_subnormal);
  keys_.clear();
  for (Index c = 0; c < w.count(); ++c) {
    const double p = w.p[c];
    keys_.push_back({head.v_row(w.key[c]),
                     p,
                     w.store[c],
                     w.store_variance[c],
                     p < vanishing ? p : 0,
                     {w.predicted[0][c], w.predicted[1][c], w.predicted[2][c]},
                     p * std::expm1(w.delta[c]),
                     p * w.variance[c],
                     p * p * w.variance[c],
                     p * w.tangent[c],
                     p * std::sqrt(w.variance[c])});
  }
  blocks.assign(padded(head.v_width) / lanes, {});
  const auto for_all = [&](auto add) {
    const Index count = static_cast<Index>(keys_.size());
    for (Index first = 0; first < count; first += rows_in_cache) {
      const Index here = std::min(rows_in_cache, count - first);
      for (std::size_t b = 0; b < blocks.size(); ++b) {
        add(blocks[b], &keys_[first], here, static_cast<Index>(b) * lanes);
      }
    }
  };
  for_all(add_values);
  for_all(add_centred);

  if (w.sink_p == 0) return;
  // The sink is a key whose value is 0.
  for (Block& sums : blocks) {
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

ATTEST_VECTORISED
void ValueSums::add_values(Block& block, const Key* keys, Index count, Index column) {
  Block sums = block;
  for (Index n = 0; n < count; ++n) {
    const Key& key = keys[n];
    const double* v = key.v + column;
    for (Index e = 0; e < lanes; ++e) {
      const double x = v[e], size = std::abs(x), square = x * x, o = sums.o[e] + key.p * x;
      sums.o[e] = o;
      sums.prefix[e] += o * o;
      sums.prefix_sum[e] += o;
      sums.magnitude[e] += key.p * size;
      sums.squares[e] += key.p * key.p * square;
      sums.store[e] += key.store * size;
      sums.store_variance[e] += key.store_variance * square;
      sums.tiny[e] += key.tiny * x;
      for (int k = 0; k < 3; ++k) sums.predicted[k][e] += key.predicted[k] * x;
    }
  }
  block = sums;
}

ATTEST_VECTORISED
void ValueSums::add_centred(Block& block, const Key* keys, Index count, Index column) {
  Block sums = block;
  for (Index n = 0; n < count; ++n) {
    const Key& key = keys[n];
    const double* v = key.v + column;
    for (Index e = 0; e < lanes; ++e) {
      const double x = v[e] - sums.o[e], size = std::abs(x);
      sums.worst[e] += key.worst * size;
      sums.spread[e] += key.p * size;
      sums.second_order[e] += key.second_order * size;
      sums.variance[e] += key.variance * (x * x);
      sums.scale[e] += key.scale * x;
      sums.coherent[e] += key.coherent * size;
    }
  }
  block = sums;
}

}  // namespace attest::bounds
