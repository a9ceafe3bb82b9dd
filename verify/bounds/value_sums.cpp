// Sums over the keys of attention rows, for every column of V.
#include "verify/bounds/value_sums.hpp"

#include <algorithm>
#include <array>
#include <cmath>

namespace attest::bounds {
namespace {

/// The rows of V of `count` keys.
using ValueRows = std::array<const double*, rows_in_cache>;
ValueRows value_rows(const Weights& w, Index first, Index count, const Head& head) {
  ValueRows rows;
  for (Index n = 0; n < count; ++n) rows[n] = head.v_row(w.key[first + n]);
  return rows;
}

/// A term below half a place of the running sum is lost whole, whatever the rounding. Equation (11c).
void find_stagnation(ValueSums& row, const Head& head, double unit) {
  const Weights& w = row.w;
  row.stagnation.assign(head.v_width, 0);
  for (Index e = 0; e < head.v_width; ++e) {
    const double place = 2 * unit * std::abs(row.blocks[e / lanes].o[e % lanes]);
    if (place == 0) continue;
    double sum = 0;
    for (Index n = 0; n < w.count(); ++n) {
      const double term = w.p[n] * head.v_row(w.key[n])[e];
      sum += std::nearbyint(term / place) * place - term;
    }
    row.stagnation[e] = std::abs(sum);
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

void compute_value_sums(std::span<ValueSums* const> rows, const Head& head, const Arithmetic& arithmetic) {
  const Index blocks = padded(head.v_width) / lanes;
  Index most = 0;
  for (ValueSums* row : rows) {
    row->blocks.assign(blocks, {});
    most = std::max(most, row->w.count());
  }
  const auto for_pieces = [&](const auto& add) {
    for (Index first = 0; first < most; first += rows_in_cache) {
      for (ValueSums* row : rows) {
        const Index left = row->w.count() - first;
        if (left > 0) add(*row, first, std::min(rows_in_cache, left));
      }
    }
  };
  for_pieces([&](ValueSums& row, Index first, Index count) {
    const Weights& w = row.w;
    const ValueRows v = value_rows(w, first, count, head);
    const double vanishing = std::max(arithmetic.u, arithmetic.half_subnormal_of_weights(w.l));
    ValueKeys keys{v.data(), &w.p[first], nullptr, nullptr, {}, vanishing};
    if (arithmetic.p_is_rounded) {
      keys.store = &w.store[first];
      keys.store_variance = &w.store_variance[first];
      for (int k = 0; k < 3; ++k) keys.predicted[k] = &w.predicted[k][first];
    }
    vector_kernels().add_values(row.blocks.data(), blocks, keys, count);
  });
  const double unit = unit_roundoff(arithmetic.contract.pv.dtype);
  for (ValueSums* row : rows) {
    row->stagnation.clear();
    if (unit > unit_roundoff(DType::float32)) find_stagnation(*row, head, unit);
  }
  for_pieces([&](ValueSums& row, Index first, Index count) {
    const Weights& w = row.w;
    const ValueRows v = value_rows(w, first, count, head);
    const double* spread = row.with_coherent ? &w.spread[first] : nullptr;
    const CentredKeys keys{v.data(),           &w.p[first],       &w.growth[first],
                           &w.variance[first], w.tangent + first, spread};
    vector_kernels().add_centred(row.blocks.data(), blocks, keys, count);
  });
  for (ValueSums* row : rows) {
    if (row->w.sink_p != 0) add_sink(*row);
  }
}

}  // namespace attest::bounds
