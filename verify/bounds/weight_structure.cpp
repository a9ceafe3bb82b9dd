// Where the weights of a row are so regular that their rounding errors do not average out.
#include "verify/bounds/weight_structure.hpp"

#include <algorithm>
#include <cmath>

namespace attest::bounds {
namespace {

/// Sum over the cells of the square of a cell's weight: 1 / the effective number of cells. cell_of maps a
/// weight to a number that is equal for weights in one cell and does not decrease with the weight.
template <class CellOf>
double cell_concentration(const std::vector<double>& ascending, CellOf cell_of) {
  double squares = 0, weight = 0, cell = 0;
  for (const double p : ascending) {
    const double c = cell_of(p);
    if (c != cell) {
      squares += weight * weight;
      weight = 0;
      cell = c;
    }
    weight += p;
  }
  return squares + weight * weight;
}

}  // namespace

WeightStructure weight_structure(const std::vector<double>& p, double l, const Arithmetic& arithmetic) {
  std::vector<double> ascending = p;
  std::sort(ascending.begin(), ascending.end());
  double keys_concentration = 0;  // 1 / effective number of keys
  for (const double x : ascending) keys_concentration += x * x;

  WeightStructure found{};

  // Weights closer than 5 roundings are equal scores.
  double previous = 0;
  Index run = 0;
  const double same_score = cell_concentration(ascending, [&](double x) {
    if (x - previous > 5 * arithmetic.u * x) ++run;
    previous = x;
    return static_cast<double>(run);
  });
  found.multiplicity = keys_concentration > 0 ? same_score / keys_concentration : 1;
  found.scores_repeat = p.size() > 16 && found.multiplicity > 4;

  // "Few cells": fewer than six carry the row although more than four times as many keys do.
  const auto few = [&](double concentration) {
    return concentration * 6 > 1 && concentration > 4 * keys_concentration;
  };
  const double cell = ulp(l, arithmetic.contract.softmax_dtype) / l;
  double lost = 0;
  for (const double x : p) {
    if (x < 16 * arithmetic.u) lost += std::nearbyint(x / cell) * cell - x;
  }
  found.stagnation = std::abs(lost);
  found.row_sum_is_coherent =
      p.size() > 32 && few(cell_concentration(ascending, [&](double x) { return std::floor(x / cell); }));

  const DType stored = arithmetic.contract.p_dtype;
  found.few_stored_values =
      arithmetic.p_is_rounded &&
      (few(cell_concentration(ascending, [&](double x) { return round_to(x * l, stored); })) ||
       few(cell_concentration(ascending, [&](double x) { return round_to(x, stored); })));
  return found;
}

}  // namespace attest::bounds
