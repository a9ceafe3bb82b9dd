// Rotary embeddings as a faulty kernel computes them.
#include "verify/ops/rope/turns.hpp"

#include <cmath>

namespace attest {
namespace {

double in_rule(AngleRule rule, double x) {
  return rule == AngleRule::float32 ? round_to(x, DType::float32) : x;
}

}  // namespace

Coefficients right_coefficients(const bounds::RopeSource& source, const RopeSpec& spec, Index s, Index k) {
  if (source.has_table()) {
    const Index row = source.table_rows[s];
    const bool is_half = source.cos.extent(1) == spec.pairs();
    const Index i = is_half ? k : spec.first(k), j = is_half ? k : spec.second(k);
    return {source.cos(row, i), source.cos(row, j), source.sin(row, i), source.sin(row, j)};
  }
  const double angle = in_rule(source.rule, in_rule(source.rule, source.positions[s]) *
                                                in_rule(source.rule, source.frequencies[k].exact.hi));
  const double c = source.attention_factor * std::cos(angle), d = source.attention_factor * std::sin(angle);
  return {c, c, d, d};
}

Decoy computed(const std::string& name, const RopeSpec& spec, const RopeSample& sample,
               const RopeDirection& direction, const CoefficientsOf& coefficients, const RopeSteps& steps) {
  Decoy decoy{name, direction.output, sample.at, sample.input};
  decoy.is_of_whole_call = true;
  const auto rounded = [](const RopeSteps::Round& round, double x) { return round ? round(x) : x; };
  const Index rows = sample.shape.sizes.s, width = sample.shape.sizes.width;
  for (Index s = 0; s < rows; ++s) {
    for (Index k = 0; k < spec.pairs(); ++k) {
      Coefficients c = coefficients(s, k);
      if (direction.backward) c = turned_back(c);
      for (Index h = 0; h < sample.shape.sizes.h; ++h) {
        double* const row = &decoy.value[(h * rows + s) * width];
        double &x = row[spec.first(k)],
               &y = row[steps.apart > 0 ? spec.first(k) + steps.apart : spec.second(k)];
        const double a = x, b = y;
        const auto product = [&](const RopeSteps::Round& by_column, const RopeSteps::Round& by_coefficient,
                                 double of) { return rounded(by_column, rounded(by_coefficient, of)); };
        const auto first = [&](double of_b) {
          return product(steps.of_first, steps.with_cos, a * c.cos_i) -
                 product(steps.of_second, steps.with_sin, of_b * c.sin_i);
        };
        const auto second = [&](double of_a) {
          return product(steps.of_second, steps.with_cos, b * c.cos_j) +
                 product(steps.of_first, steps.with_sin, of_a * c.sin_j);
        };
        const DType element = *sample.dumped.dtype;
        x = first(steps.second_is_overwritten ? round_to(second(a), element) : b);
        y = second(steps.first_is_overwritten ? round_to(first(b), element) : a);
      }
    }
  }
  return decoy;
}

}  // namespace attest
