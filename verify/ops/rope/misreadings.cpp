// What would explain a rotary embedding that failed: rows of other positions, factors and products on one
// side only, columns that are overwritten too early, and frequencies of another width or without
// interpolation.
#include <algorithm>
#include <cmath>
#include <set>

#include "verify/ops/rope/problem.hpp"
#include "verify/ops/rope/sample.hpp"
#include "verify/ops/rope/turns.hpp"
#include "verify/ops/stages.hpp"
#include "verify/statistics/median.hpp"
#include "verify/text.hpp"

namespace attest {
namespace {

using Round = std::function<double(double)>;

/// Rows of the tensor that read another position: where it counts as `position` of the row and what it has.
struct OtherPositions {
  std::string name;
  std::function<double(Index row, double position)> of;
};

std::vector<OtherPositions> other_positions(const RopeCase& rope) {
  const auto in_sequence = [&rope](Index row) { return row - rope.first_row(row); };
  const bool has_table = rope.source.has_table();
  const auto own = [&rope, has_table](Index row) {
    return has_table ? static_cast<double>(rope.source.table_rows[row]) : rope.source.positions[row];
  };
  std::vector<OtherPositions> all;
  const auto add = [&](const std::string& name, auto of) { all.push_back({name, of}); };
  if (has_table) {
    add("the row of the sequence in the place of its position",
        [=](Index row, double) { return static_cast<double>(in_sequence(row)); });
    add("positions that run on from one sequence to the next",
        [](Index row, double) { return static_cast<double>(row); });
    // Packed ones have no others.
    if (rope.shape.sizes.b > 1)
      add("positions of the first sequence", [=](Index row, double) { return own(in_sequence(row)); });
  }
  // From 0: they have another name.
  if (has_table || own(0) != 0)
    add("positions that count on from the first of the sequence", [=, &rope](Index row, double) {
      return own(rope.first_row(row)) + static_cast<double>(in_sequence(row));
    });
  double largest = 0;
  for (Index row = 0; row < rope.rows(); ++row) largest = std::max(largest, own(row));
  for (double limit = 8; limit <= largest; limit *= 2) {
    const std::string text = number_text(limit, 9);
    add("positions clamped to " + number_text(limit - 1, 9),
        [=](Index, double position) { return std::min(position, limit - 1); });
    add("positions modulo " + text, [=](Index, double position) { return std::fmod(position, limit); });
    add("positions clamped to " + text, [=](Index, double position) { return std::min(position, limit); });
  }
  return all;
}

/// The base of a table whose rows are positions, from row 1; NaN if there is none.
double base_of_table(const bounds::RopeSource& source, const RopeSpec& spec) {
  if (source.cos.extent(0) < 2) return std::nan("");
  std::vector<double> logarithms;
  for (Index k = 1; k < spec.pairs(); ++k) {
    const bool is_half = source.cos.extent(1) == spec.pairs();
    const Index i = is_half ? k : spec.first(k);
    const double angle = std::atan2(source.sin(1, i), source.cos(1, i));
    if (angle > 0)
      logarithms.push_back(-std::log(angle) * static_cast<double>(spec.pairs()) / static_cast<double>(k));
  }
  return std::exp(median(logarithms));
}

}  // namespace

std::vector<Decoy> RopeProblem::misreadings(const RopeSample& sample, const RopeDirection& direction) const {
  std::vector<Decoy> all;
  const RopeSpec& spec = rope_.spec;
  const auto of = [&spec](const bounds::RopeSource& source) -> CoefficientsOf {
    return [&source, &spec](Index s, Index k) { return right_coefficients(source, spec, s, k); };
  };
  const CoefficientsOf right = of(sample.source);
  for (const DType narrow : narrow_formats(compute_)) {
    const Round round = [narrow](double x) { return round_to(x, narrow); };
    all.push_back(computed("the product with cos" + in_format(narrow), spec, sample, direction, right,
                           {.with_cos = round}));
    all.push_back(computed("the product with sin" + in_format(narrow), spec, sample, direction, right,
                           {.with_sin = round}));
    all.push_back(computed("products with the first column of a pair" + in_format(narrow), spec, sample,
                           direction, right, {.of_first = round}));
    all.push_back(computed("products with the second column of a pair" + in_format(narrow), spec, sample,
                           direction, right, {.of_second = round}));
  }
  all.push_back(computed("the second column of a pair, formed of the first as overwritten", spec, sample,
                         direction, right, {.first_is_overwritten = true}));
  all.push_back(computed("the first column of a pair, formed of the second as overwritten", spec, sample,
                         direction, right, {.second_is_overwritten = true}));

  for (const bool of_first : {true, false}) {
    all.push_back(computed(of_first ? "sin with the wrong sign for the first column of a pair"
                                    : "sin with the wrong sign for the second column of a pair",
                           spec, sample, direction, [&, of_first](Index s, Index k) {
                             Coefficients c = right(s, k);
                             // Backward, the columns take each other's.
                             double& wrong = of_first != direction.backward ? c.sin_i : c.sin_j;
                             wrong = -wrong;
                             return c;
                           }));
  }

  bounds::RopeSource wrong = sample.source;
  std::set<std::vector<double>> seen;
  for (const OtherPositions& other : other_positions(rope_)) {
    bool differs = false, exists = true;
    std::vector<double> positions(sample.row.size());
    for (std::size_t n = 0; n < sample.row.size(); ++n) {
      const double own = wrong.has_table() ? static_cast<double>(sample.source.table_rows[n])
                                           : sample.source.positions[n],
                   to = positions[n] = other.of(sample.row[n], own);
      if (wrong.has_table()) {
        exists &= 0 <= to && to < static_cast<double>(wrong.cos.extent(0));
        wrong.table_rows[n] = static_cast<Index>(to);
      } else {
        wrong.positions[n] = to;
      }
      differs |= to != own;
    }
    // Of several names for the same positions the first is the simplest.
    if (differs && exists && seen.insert(positions).second)
      all.push_back(computed(other.name, spec, sample, direction, of(wrong)));
  }
  if (sample.source.has_table()) {
    // A full table has its columns in the order of the style; a kernel of the other style may know that.
    const bool is_half = spec.style == RopeStyle::half;
    const RopeSpec other{is_half ? RopeStyle::interleaved : RopeStyle::half, spec.rotary_dim};
    if (sample.source.cos.extent(1) == spec.rotary_dim)
      all.push_back(computed(is_half ? "style = interleaved, with cos and sin of pair k"
                                     : "style = half, with cos and sin of pair k",
                             other, sample, direction, right));
    std::ranges::move(other_tables(sample, direction), std::back_inserter(all));
    return all;
  }

  if (const double factor = sample.source.attention_factor; factor != 1) {
    for (const bool on_cos : {true, false}) {
      all.push_back(computed(on_cos ? "attention_factor on cos only" : "attention_factor on sin only", spec,
                             sample, direction, [&, on_cos](Index s, Index k) {
                               Coefficients c = right(s, k);
                               for (double* x : {on_cos ? &c.sin_i : &c.cos_i, on_cos ? &c.sin_j : &c.cos_j})
                                 *x /= factor;
                               return c;
                             }));
    }
    all.push_back(computed("attention_factor applied twice", spec, sample, direction, [&](Index s, Index k) {
      const Coefficients c = right(s, k);
      return Coefficients{factor * c.cos_i, factor * c.cos_j, factor * c.sin_i, factor * c.sin_j};
    }));
  }
  return all;
}

std::vector<Decoy> RopeProblem::other_tables(const RopeSample& sample, const RopeDirection& direction) const {
  std::vector<Decoy> all;
  const RopeSpec& spec = rope_.spec;
  const double theta = base_of_table(sample.source, spec);
  const bounds::RopeArithmetic types = arithmetic(direction);
  const Index width = sample.shape.sizes.width, turned = spec.rotary_dim;
  const auto with = [&](const std::string& name, double base, Index exponent_width) {
    all.push_back(computed(name, spec, sample, direction, [&, base, exponent_width](Index s, Index k) {
      const double angle = static_cast<double>(sample.source.table_rows[s]) *
                           std::pow(base, -2 * static_cast<double>(k) / static_cast<double>(exponent_width));
      const double c = round_to(std::cos(angle), types.cos_table),
                   d = round_to(std::sin(angle), types.sin_table);
      return Coefficients{c, c, d, d};
    }));
  };
  std::set<double> bases;
  for (int digits = 1; std::isfinite(theta) && digits <= 3; ++digits)
    bases.insert(number_of(number_text(theta, digits)));
  for (const double base : bases) {
    if (!(base > 1 && std::isfinite(base))) continue;
    for (const Index other : std::set<Index>{width, 2 * width, turned / 2, 2 * turned})
      if (other != turned && other > 0)
        with("cos and sin of theta^(-2k/" + std::to_string(other) + "), not theta^(-2k/" +
                 std::to_string(turned) + ")",
             base, other);
  }
  return all;
}

}  // namespace attest
