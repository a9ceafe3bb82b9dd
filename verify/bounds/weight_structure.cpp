// Where the weights of a row are so regular that their rounding errors do not average out.
#include "verify/bounds/weight_structure.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "verify/bounds/storage_grid.hpp"

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

/// Sorts numbers that are not negative, up to relative differences of 2^-30 unless `precisely`: by their
/// bits, eleven at a time, which is faster than comparing where there are many.
void sort_ascending(std::vector<double>& x, bool precisely) {
  constexpr int digit_bits = 11;
  constexpr std::size_t digits = std::size_t{1} << digit_bits;
  if (x.size() < digits / 4) {
    std::sort(x.begin(), x.end());
    return;
  }
  const auto digit = [](double value, int shift) {
    return (std::bit_cast<std::uint64_t>(value) >> shift) & (digits - 1);
  };
  std::vector<double> other(x.size());
  for (int shift = precisely ? 0 : 2 * digit_bits; shift < 64; shift += digit_bits) {
    std::array<std::size_t, digits> start{};
    for (const double value : x) ++start[digit(value, shift)];
    if (start[digit(x.front(), shift)] == x.size()) continue;
    std::size_t sum = 0;
    for (std::size_t& count : start) sum += std::exchange(count, sum);
    for (const double value : x) other[start[digit(value, shift)]++] = value;
    x.swap(other);
  }
}

/// The integer nearest to x, for 0 <= x < 2^52: above, all doubles are integers.
double nearest_integer(double x) {
  return (x + 0x1p52) - 0x1p52;
}
double whole_part(double x) {
  const double n = nearest_integer(x);
  return n > x ? n - 1 : n;
}

/// May cells carry a row that are so few as six? At a weight of x they are `narrowest` or x 2^-bits wide at
/// most. Cells of a relative width of 2^-bits are wider, up to weights where the former counts; each of
/// theirs lies in one or two of these, so that their concentration is at most twice that of these.
bool may_be_few(const std::vector<double>& ascending, int bits, double narrowest) {
  const double together = std::ldexp(narrowest, bits);
  const auto cell_of = [&](double x) {
    return x < together ? 0.0 : static_cast<double>(std::bit_cast<std::int64_t>(x) >> (52 - bits));
  };
  return 2 * 6 * cell_concentration(ascending, cell_of) > 1;
}

}  // namespace

WeightStructure weight_structure(std::span<const double> p, double l, const Arithmetic& arithmetic) {
  std::vector<double> ascending(p.begin(), p.end());
  sort_ascending(ascending, arithmetic.u < 0x1p-25);
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
  const auto few = [&](auto cell_of) {
    const double concentration = cell_concentration(ascending, cell_of);
    return concentration * 6 > 1 && concentration > 4 * keys_concentration;
  };
  const double cell = ulp(l, arithmetic.contract.softmax_dtype) / l;
  double lost = 0;
  for (const double x : p) {
    if (x < 16 * arithmetic.u) lost += nearest_integer(x / cell) * cell - x;
  }
  found.stagnation = std::abs(lost);
  constexpr int quarter_octaves = 2, sixteenths = 4;
  found.row_sum_is_coherent = p.size() > 32 && may_be_few(ascending, sixteenths, cell) &&
                              few([&](double x) { return whole_part(x / cell); });

  const DType dtype = arithmetic.contract.p_dtype;
  const StorageGrid stored(dtype);
  const bool is_coarse = format_of(dtype).precision <= sixteenths;
  found.few_stored_values =
      arithmetic.p_is_rounded &&
      may_be_few(ascending, is_coarse ? quarter_octaves : sixteenths, ulp(0, dtype) * std::max(1.0, 1 / l)) &&
      (few([&](double x) { return stored.round(x * l); }) || few([&](double x) { return stored.round(x); }));
  return found;
}

}  // namespace attest::bounds
