// Where the weights of a row are so regular that their rounding errors do not average out.
#include "verify/bounds/weight_structure.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <utility>

#include "verify/bounds/lanes.hpp"
#include "verify/bounds/storage_grid.hpp"

namespace attest::bounds {
namespace {

/// Sum over the cells of the square of a cell's weight: 1 / the effective number of cells. cell_of maps a
/// weight to a number that is equal for weights in one cell and does not decrease with the weight.
template <class CellOf>
double cell_concentration(const Lanes& ascending, CellOf cell_of) {
  double squares = 0, weight = 0;
  decltype(cell_of(0.0)) cell{};
  for (const double p : ascending) {
    const auto c = cell_of(p);
    if (c != cell) {
      squares += weight * weight;
      weight = 0;
      cell = c;
    }
    weight += p;
  }
  return squares + weight * weight;
}

std::uint64_t bits_of(double x) {
  return std::bit_cast<std::uint64_t>(x);
}

/// Sorts numbers that are not negative, up to relative differences of 2^-26 unless `precisely`: by their
/// bits, eleven at a time, which is faster than comparing where there are many.
void sort_ascending(Lanes& x, bool precisely) {
  constexpr int digit_bits = 11;
  constexpr std::size_t digits = std::size_t{1} << digit_bits;
  if (x.size() < digits / 4) {
    std::sort(x.begin(), x.end());
    return;
  }
  const auto [least, most] = std::ranges::minmax(x);
  const std::uint64_t lowest = bits_of(least), range = bits_of(most) - lowest;
  Lanes other(x.size());
  for (int shift = precisely ? 0 : 26; shift < 64 && range >> shift > 0; shift += digit_bits) {
    const auto digit = [&](double value) { return (bits_of(value) - lowest) >> shift & (digits - 1); };
    std::array<std::size_t, digits> start{};
    for (const double value : x) ++start[digit(value)];
    std::size_t sum = 0;
    for (std::size_t& count : start) sum += std::exchange(count, sum);
    for (const double value : x) other[start[digit(value)]++] = value;
    x.swap(other);
  }
}

ATTEST_VECTORISED
double sum_of_squares(const Lanes& x) {
  LaneSum sum;
  for_lanes(std::ssize(x), [&](Index n, Index lane) { sum.part[lane] += x[n] * x[n]; });
  return sum.total();
}

/// Is any weight within `share` of itself from the one before?
ATTEST_VECTORISED
bool has_close_neighbours(const Lanes& ascending, double share) {
  const double *x = ascending.data(), *next = x + 1;
  LaneSum close;
  for_lanes(std::ssize(ascending) - 1,
            [&](Index n, Index lane) { close.part[lane] += next[n] - x[n] <= share * next[n] ? 1 : 0; });
  return close.total() > 0;
}

/// The integer nearest to x, for 0 <= x < 2^52: above, all doubles are integers.
double nearest_integer(double x) {
  return (x + 0x1p52) - 0x1p52;
}
double whole_part(double x) {
  const double n = nearest_integer(x);
  return n > x ? n - 1 : n;
}

/// May cells carry a row that are so few as six? At a weight of x they are as wide as those below `together`,
/// or x 2^-bits wide at most. Cells of a relative width of 2^-bits are wider, up to `together`, below which
/// all are one here; each of theirs lies in one or two of these, so that their concentration is at most twice
/// that of these.
bool may_be_few(const Lanes& ascending, int bits, double together) {
  const auto cell_of = [&](double x) { return bits_of(std::max(x, together)) >> (52 - bits); };
  return 2 * 6 * cell_concentration(ascending, cell_of) > 1;
}

}  // namespace

WeightStructure weight_structure(std::span<const double> p, double l, const Arithmetic& arithmetic) {
  Lanes ascending(p.begin(), p.end());
  sort_ascending(ascending, arithmetic.u < 0x1p-25);
  const double keys_concentration = sum_of_squares(ascending);  // 1 / effective number of keys

  WeightStructure found{};

  // Weights closer than 5 roundings are equal scores.
  found.multiplicity = 1;
  if (keys_concentration > 0 && has_close_neighbours(ascending, 5 * arithmetic.u)) {
    double previous = 0;
    Index run = 0;
    const double same_score = cell_concentration(ascending, [&](double x) {
      if (x - previous > 5 * arithmetic.u * x) ++run;
      previous = x;
      return run;
    });
    found.multiplicity = same_score / keys_concentration;
  }
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
  // Cells of the row sum are at most sixteenths of an octave wide above 16 of them; those of stored weights
  // are quarters at least.
  constexpr int sixteenths = 4;
  const DType dtype = arithmetic.contract.p_dtype;
  const int bits = format_of(dtype).precision <= sixteenths ? 2 : sixteenths;
  const StoredWeights& weights = arithmetic.contract.weights;
  const double unit_l = weights.unit * l;
  const double stored_cell = ulp(0, dtype) * std::max(weights.may_be_normalised ? 1.0 : 0.0,
                                                      weights.may_be_relative ? 1 / unit_l : 0.0);
  if (!may_be_few(ascending, bits, std::max(std::ldexp(cell, sixteenths), std::ldexp(stored_cell, bits)))) {
    return found;
  }
  found.row_sum_is_coherent = p.size() > 32 && few([&](double x) { return whole_part(x / cell); });
  const StorageGrid stored(dtype);
  if (!arithmetic.p_is_rounded) return found;
  found.few_stored_values =
      (weights.may_be_relative && few([&](double x) { return stored.round(x * unit_l); })) ||
      (weights.may_be_normalised && few([&](double x) { return stored.round(x); }));
  return found;
}

}  // namespace attest::bounds
