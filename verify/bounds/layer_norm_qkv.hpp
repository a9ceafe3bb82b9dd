// Exact values and bounds of queries, keys and values behind a LayerNorm. Equation numbers:
// docs/bounds_norm.md.
#pragma once

#include <functional>
#include <optional>

#include "core/contract.hpp"
#include "verify/bounds/norm_row.hpp"

namespace attest::bounds {

struct LayerNormQkvContract {
  NormContract norm;
  std::optional<DType> stored;  // what the normalised rows are rounded to; absent: they stay in norm.compute
  Accumulator accumulate;       // of the product
};

/// Columns 0 .. M-1 of a row are its query, the next M its key, the last M its value. take(row, column,
/// value, worst, systematic, sigma, value_error) is told each of them before it is stored, from many threads.
/// `elements` is the size of the largest output. Equations (24) to (27).
using TakeQkv = std::function<void(Index row, Index column, double value, double worst, double systematic,
                                   double sigma, double value_error)>;
void layer_norm_qkv(const NormSpec& spec, const LayerNormQkvInputs& in, const LayerNormQkvContract& contract,
                    Index elements, const TakeQkv& take);

}  // namespace attest::bounds
