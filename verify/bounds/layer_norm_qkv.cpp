// Exact values and bounds of queries, keys and values behind a LayerNorm.
#include "verify/bounds/layer_norm_qkv.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "verify/bounds/linear.hpp"
#include "verify/bounds/norm.hpp"

namespace attest::bounds {
namespace {

/// A normalised value that ref and the exact arithmetic may round to different neighbours.
struct Ambiguous {
  Index j;
  double error;
};

/// Where nothing is promised, errors that swamp everything and can still be multiplied with 0.
double finite(double error) {
  return std::min(error, 1e150);
}

struct Token {
  NormRow row;
  std::vector<Ambiguous> ambiguous;
};

}  // namespace

void layer_norm_qkv(const NormSpec& spec, const LayerNormQkvInputs& in, const LayerNormQkvContract& contract,
                    Index elements, const TakeQkv& take) {
  const Index width = in.norm.width(), outputs = in.qkv_weight.extent(0);
  const NormRows rows(spec, contract.norm, width, elements);
  const NormForwardRow forward(rows, in.norm);
  const Linear linear(in.qkv_weight, in.qkv_bias, contract.accumulate);
  const double u = rows.roundings().worst.u;
  const double share = std::max(linear.reference_share(), 1.05 * unit_roundoff(DType::float64) / u);

  // What an error common to a whole row does to an output: equation (26).
  std::vector<double> through_scale(outputs), from_bias(outputs);
  for (Index o = 0; o < outputs; ++o) {
    for (Index j = 0; j < width; ++j) {
      through_scale[o] += in.qkv_weight(o, j) * norm_weight(spec, in.norm, j).hi;
      if (in.norm.bias) from_bias[o] += in.qkv_weight(o, j) * in.norm.bias(j);
    }
    if (in.qkv_bias) from_bias[o] += in.qkv_bias(o);
  }

  std::vector<Token> tokens(in.norm.rows());
  const auto fill = [&](Index i, Factor* factors) {
    SumNoise noise(contract.norm.compute);
    Token& token = tokens[i];
    std::vector<double> x(width);
    for (Index j = 0; j < width; ++j) x[j] = in.norm.x(i, j);
    token.row = rows.row(x, noise);
    for (Index j = 0; j < width; ++j) {
      const NormForwardRow::Element e = forward.element(token.row, x[j], j);
      if (!contract.stored) {
        factors[j] = {e.y.hi, finite(e.worst), 0, finite(e.systematic), 0};
        continue;
      }
      // Equations (24) and (25).
      const double y = e.y.hi, flip = finite(rounded_error(y, e.probable, *contract.stored));
      factors[j] = {round_to(y, *contract.stored), finite(rounded_error(y, e.worst, *contract.stored)),
                    flip * flip, 0, 0};
      const double ambiguous = rounded_error(y, e.reference, *contract.stored);
      if (ambiguous > 0) token.ambiguous.push_back({j, ambiguous});
    }
  };
  linear.apply(in.norm.rows(), fill, [&](Index i, Index o, const Estimate& y) {
    const Token& token = tokens[i];
    const NormRow& row = token.row;
    const double scaled = y.value - from_bias[o], shifted = row.rstd.hi * through_scale[o];
    double systematic = y.systematic, value_error = share * y.worst + 0x1p-53 * std::abs(y.value);
    if (contract.stored) {
      systematic += row.systematic.rstd * std::abs(scaled) + row.systematic.mean * std::abs(shifted);
    }
    for (const Ambiguous& a : token.ambiguous) value_error += std::abs(in.qkv_weight(o, a.j)) * a.error;
    const double common = u * std::hypot(row.rstd_sigma * scaled, row.mean_sigma * shifted);
    take(i, o, y.value, y.worst, systematic, std::hypot(std::sqrt(y.variance), common), value_error);
  });
}

}  // namespace attest::bounds
