// Some rows and heads of a rotary embedding, and the base that they show.
#include "verify/ops/rope/sample.hpp"

#include <cmath>
#include <complex>
#include <utility>

#include "verify/ops/sample.hpp"

namespace attest {
namespace {

constexpr Index sampled_rows = 32, sampled_heads = 4, most_steps = 256;

}  // namespace

RopeSample::RopeSample(const RopeCase& rope, const std::vector<double>& whole_input, const Tensor& whole)
    : RopeSample(rope, whole_input, whole, evenly_spread(rope.rows(), sampled_rows)) {}

RopeSample::RopeSample(const RopeCase& rope, const std::vector<double>& whole_input, const Tensor& whole,
                       std::vector<Index> rows)
    : source(rope.source),
      shape(rope.shape),
      dumped{whole.type_name, whole.dtype, {}, {}},
      row(std::move(rows)) {
  const AxisSizes& sizes = rope.shape.sizes;
  const std::vector<Index> heads = evenly_spread(sizes.h, sampled_heads);
  source.positions.clear(), source.table_rows.clear();
  for (const Index r : row) {
    if (!rope.source.positions.empty()) source.positions.push_back(rope.source.positions[r]);
    if (!rope.source.table_rows.empty()) source.table_rows.push_back(rope.source.table_rows[r]);
  }
  for (const Index h : heads) {
    for (const Index r : row) {
      const View<const double, 3> of_row =
          sequence_view(whole_input.data(), rope.shape.order, sizes, r / sizes.s, r % sizes.s, 1);
      for (Index d = 0; d < sizes.width; ++d) {
        at.push_back(&of_row(h, 0, d) - whole_input.data());
        input.push_back(whole_input[at.back()]);
        dumped.values.push_back(whole.values[at.back()]);
      }
    }
  }
  const Index h = static_cast<Index>(heads.size()), s = static_cast<Index>(row.size());
  shape.order = axis_order(Layout::bhsd);
  shape.sizes = {1, h, s, sizes.width};
  dumped.shape = {1, h, s, sizes.width};
}

std::vector<double> fitted_frequencies(const RopeSpec& spec, const RopeCase& rope,
                                       const std::vector<double>& input, const Tensor& dumped,
                                       bool backward) {
  using Complex = std::complex<double>;
  const AxisSizes& sizes = rope.shape.sizes;
  const std::vector<double>& positions = rope.source.positions;
  /// By how much pair k has turned in a row: one number of that angle for every head.
  const auto turned = [&](Index row, Index h, Index k) -> Complex {
    const auto of = [&](const std::vector<double>& x) -> Complex {
      const auto view = sequence_view(x.data(), rope.shape.order, sizes, row / sizes.s, row % sizes.s, 1);
      return {view(h, 0, spec.first(k)), view(h, 0, spec.second(k))};
    };
    const Complex turn = of(dumped.values) * std::conj(of(input));
    return backward ? std::conj(turn) : turn;
  };
  std::vector<double> all(static_cast<std::size_t>(spec.pairs()));
  for (Index k = 0; k < spec.pairs(); ++k) {
    double& frequency = all[k];
    // Of rows further apart the estimate is finer, but known up to full turns only.
    for (Index apart = 1; apart < sizes.s; apart *= 4) {
      Complex total = 0;
      for (const Index row : evenly_spread(rope.rows(), most_steps)) {
        const bool is_last = row % sizes.s + apart >= sizes.s;
        if (is_last || positions[row + apart] - positions[row] != static_cast<double>(apart)) continue;
        for (Index h = 0; h < std::min(sizes.h, sampled_heads); ++h)
          total += turned(row + apart, h, k) * std::conj(turned(row, h, k));
      }
      if (total == Complex{} || !std::isfinite(std::abs(total))) break;
      const double known = static_cast<double>(apart) * frequency;
      frequency += std::arg(total * std::polar(1.0, -known)) / static_cast<double>(apart);
    }
  }
  return all;
}

double fitted_theta(const RopeSpec& spec, const RopeCase& rope, const std::vector<double>& input,
                    const Tensor& dumped, bool backward) {
  const std::vector<double> frequencies = fitted_frequencies(spec, rope, input, dumped, backward);
  double weights = 0, sum = 0;
  for (Index k = 1; k < spec.pairs(); ++k) {
    const double frequency = frequencies[k];
    if (!(frequency > 0 && frequency < 1)) continue;
    const double exponent = static_cast<double>(2 * k) / static_cast<double>(spec.rotary_dim);
    const double weight = frequency * frequency * exponent * exponent;  // 1 / variance of ln theta
    sum += weight * -std::log(frequency) / exponent;
    weights += weight;
  }
  return weights > 0 ? std::exp(sum / weights) : 0;
}

}  // namespace attest
